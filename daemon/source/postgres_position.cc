#include "source/postgres_position.h"

#include <sys/random.h>

#include <algorithm>
#include <utility>

namespace apikeyd {

namespace {

constexpr std::string_view kDoing = "reading where it stands";
constexpr std::string_view kDoingChanges = "reading what changed";
constexpr int64_t kVersion = 1;  // of the schema
/// A load that was refused is compared with the one before it, and that may be some changes ago.
constexpr size_t kKnownMax = 16;
/// More rows are not read one by one: all is read anew.
constexpr int64_t kLogRowsMax = 100'000;

/// The schema by its name: where it may not be used, that is the error.
constexpr std::string_view kPositionSql =
    "SELECT store.version, pg_is_in_recovery()::int, "
    "server_identity(), "
    "pg_current_snapshot()::text, coalesce((SELECT max(seq) FROM changes), 0), "
    "(SELECT encode(sha256(convert_to(string_agg(seq || ':' || mark, ' ' ORDER BY seq), 'UTF8')), 'hex') "
    "FROM "
    "(SELECT seq, mark FROM changes ORDER BY seq DESC LIMIT 100) AS newest) FROM apikeyd.store";

/// Whether rows were deleted that the snapshot ?1 may not have seen; the tail as it is now of what it saw.
constexpr std::string_view kThenSql =
    "SELECT (store.trimmed >= pg_snapshot_xmin(?1::pg_snapshot))::int, "
    "(SELECT encode(sha256(convert_to(string_agg(seq || ':' || mark, ' ' ORDER BY seq), 'UTF8')), 'hex') "
    "FROM "
    "(SELECT seq, mark FROM changes WHERE seq <= ?2::bigint AND pg_visible_in_snapshot(xid, ?1::pg_snapshot) "
    "ORDER BY seq DESC LIMIT 100) AS newest) FROM store";

/// By two indexes, one each.
constexpr std::string_view kLogSql =
    "SELECT kind, name, came, sha256, \"foreign\", old FROM ("
    "SELECT * FROM changes WHERE seq > ?2::bigint UNION ALL "
    "SELECT * FROM changes WHERE seq <= ?2::bigint AND xid >= pg_snapshot_xmin(?1::pg_snapshot) "
    "AND NOT pg_visible_in_snapshot(xid, ?1::pg_snapshot)) AS unseen ORDER BY seq LIMIT ?3::bigint";

}  // namespace

Result<PostgresPosition> read_position(const SqlKeyStore& store) {
    const Result<SqlStatementPtr> prepared = store.connection->prepare(kPositionSql);
    if (!prepared) {
        return tl::unexpected(prepared.error());
    }
    SqlStatement& row = **prepared;
    const SqlStep step = row.step();
    if (step == SqlStep::kFailed) {
        return store.failed(kDoing);
    }
    const std::string named = store.connection->named();
    if (step == SqlStep::kDone) {
        return fail(named + ": its table 'store' is damaged; restore a copy");
    }
    if (row.column_int(0) != kVersion) {
        return fail(named + ": has version " + std::to_string(row.column_int(0)) + ", this apikeyd knows " +
                    std::to_string(kVersion) + "; run the apikeyd that the schema came with");
    }
    if (row.column_int(1) != 0) {
        return fail(named +
                    ": is a standby, which cannot tell what changed; name the primary "
                    "(target_session_attrs=read-write finds it among several hosts)");
    }
    return PostgresPosition{std::string(row.column_text(2)), std::string(row.column_text(3)),
                            row.column_int(4), std::string(row.column_text(5))};
}

Result<std::optional<ChangeLog>> log_since(const SqlKeyStore& store, const PostgresPosition& since,
                                           const PostgresPosition& now) {
    if (since.identity != now.identity) {
        return std::nullopt;
    }
    const Result<SqlStatementPtr> then = store.connection->prepare(kThenSql);
    const Result<SqlStatementPtr> prepared = store.connection->prepare(kLogSql);
    if (!then || !prepared) {
        return tl::unexpected(!then ? then.error() : prepared.error());
    }
    if ((*then)->bind(1, since.snapshot).bind(2, since.last).step() != SqlStep::kRow) {
        return store.failed(kDoingChanges);
    }
    if ((*then)->column_int(0) != 0 || (*then)->column_text(1) != since.tail) {
        return std::nullopt;
    }
    SqlStatement& rows = **prepared;
    ChangeLog log;
    int64_t count = 0;
    SqlStep step = rows.bind(1, since.snapshot).bind(2, since.last).bind(3, kLogRowsMax + 1).step();
    for (; step == SqlStep::kRow; step = rows.step()) {
        if (++count > kLogRowsMax || rows.column_text(0) == "all") {
            return std::nullopt;
        }
        log.note(rows, 0);
    }
    if (step == SqlStep::kFailed) {
        return store.failed(kDoingChanges);
    }
    return log;
}

const PostgresPosition* PostgresPositions::find(const Fingerprint& name) {
    const auto known = known_.find(name);
    if (known == known_.end()) {
        return nullptr;
    }
    known->second.turn = ++turns_;
    return &known->second.position;
}

void PostgresPositions::note(const Fingerprint& name, PostgresPosition position) {
    if (known_.size() == kKnownMax && !known_.contains(name)) {
        known_.erase(std::min_element(known_.begin(), known_.end(), [](const auto& a, const auto& b) {
            return a.second.turn < b.second.turn;
        }));
    }
    known_[name] = Known{++turns_, std::move(position)};
    latest_ = name;
}

Fingerprint unknown_fingerprint() {
    Fingerprint random{};
    // 256 bytes and fewer come whole once the kernel's pool is filled, which it is when a network is up.
    static_cast<void>(getrandom(random.data(), random.size(), 0));
    return random;
}

}  // namespace apikeyd
