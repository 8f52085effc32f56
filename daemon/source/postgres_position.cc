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
    "SELECT store.version, pg_is_in_recovery()::int, server_identity(), "
    "pg_current_snapshot()::text, coalesce((SELECT max(seq) FROM changes), 0), "
    "(SELECT sum(hashint8extended(seq, mark))::text FROM "
    "(SELECT seq, mark FROM changes ORDER BY seq DESC LIMIT 100) AS newest) FROM apikeyd.store";

/// The same, and what came since another position: in one statement, since each that is planned costs the
/// server more than its rows do, times the hosts of a fleet. The first row, and no other, has the columns of
/// kPositionSql; then whether rows were deleted that the snapshot ?1 may not have seen, and the tail as it is
/// now of what it saw. The others are of the log, by two indexes, one each.
constexpr std::string_view kLookSql =
    "SELECT 0::bigint AS seq, store.version, pg_is_in_recovery()::int, server_identity(), "
    "pg_current_snapshot()::text, coalesce((SELECT max(seq) FROM changes), 0), "
    "(SELECT sum(hashint8extended(seq, mark))::text FROM "
    "(SELECT seq, mark FROM changes ORDER BY seq DESC LIMIT 100) AS newest), "
    "(store.trimmed >= pg_snapshot_xmin(?1::pg_snapshot))::int, "
    "(SELECT sum(hashint8extended(seq, mark))::text FROM "
    "(SELECT seq, mark FROM changes WHERE seq <= ?2::bigint AND pg_visible_in_snapshot(xid, ?1::pg_snapshot) "
    "ORDER BY seq DESC LIMIT 100) AS newest), "
    "NULL::text, NULL::text, NULL::smallint, NULL::bytea, NULL::smallint, NULL::text FROM apikeyd.store "
    "UNION ALL (SELECT seq, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, kind, name, came, sha256, "
    "\"foreign\", old FROM ("
    "SELECT * FROM changes WHERE seq > ?2::bigint UNION ALL "
    "SELECT * FROM changes WHERE seq <= ?2::bigint AND xid >= pg_snapshot_xmin(?1::pg_snapshot) "
    "AND NOT pg_visible_in_snapshot(xid, ?1::pg_snapshot)) AS unseen LIMIT ?3::bigint) ORDER BY seq";
constexpr int kTrimmedColumn = 7;
constexpr int kTailThenColumn = 8;
constexpr int kLogColumn = 9;

/// Of a row whose columns from `first` on are those of kPositionSql.
Result<PostgresPosition> position_of(const SqlKeyStore& store, const SqlStatement& row, int first) {
    const std::string named = store.connection->named();
    if (row.column_int(first) != kVersion) {
        return fail(named + ": has version " + std::to_string(row.column_int(first)) +
                    ", this apikeyd knows " + std::to_string(kVersion) +
                    "; run the apikeyd that the schema came with");
    }
    if (row.column_int(first + 1) != 0) {
        return fail(named +
                    ": is a standby, which cannot tell what changed; name the primary "
                    "(target_session_attrs=read-write finds it among several hosts)");
    }
    return PostgresPosition{std::string(row.column_text(first + 2)), std::string(row.column_text(first + 3)),
                            row.column_int(first + 4), std::string(row.column_text(first + 5))};
}

/// The rows of kLookSql behind the first; nullopt where they cannot tell.
Result<std::optional<ChangeLog>> log_of(const SqlKeyStore& store, SqlStatement& rows) {
    ChangeLog log;
    int64_t count = 0;
    bool is_told = true;
    SqlStep step = rows.step();
    for (; step == SqlStep::kRow && is_told; step = rows.step()) {
        is_told = ++count <= kLogRowsMax && rows.column_text(kLogColumn) != "all";
        if (is_told) {
            log.note(rows, kLogColumn);
        }
    }
    if (step == SqlStep::kFailed) {
        return store.failed(kDoingChanges);
    }
    return is_told ? std::optional(std::move(log)) : std::nullopt;
}

}  // namespace

Result<PostgresLook> look(const SqlKeyStore& store, std::string_view begin, const PostgresPosition* since) {
    const std::string sql =
        std::string(begin).append("; ").append(since == nullptr ? kPositionSql : kLookSql);
    const Result<SqlStatementPtr> prepared = store.connection->prepare(sql);
    if (!prepared) {
        return tl::unexpected(prepared.error());
    }
    SqlStatement& rows = **prepared;
    if (since != nullptr) {
        rows.bind(1, since->snapshot).bind(2, since->last).bind(3, kLogRowsMax + 1);
    }
    if (rows.step() == SqlStep::kFailed) {
        return store.failed(kDoing);
    }
    const int first = since == nullptr ? 0 : 1;
    if (rows.column_is_null(first)) {
        return fail(store.connection->named() + ": its table 'store' is damaged; restore a copy");
    }
    Result<PostgresPosition> now = position_of(store, rows, first);
    if (!now) {
        return tl::unexpected(now.error());
    }
    PostgresLook seen{.now = *std::move(now)};
    if (since != nullptr && since->identity == seen.now.identity && rows.column_int(kTrimmedColumn) == 0 &&
        rows.column_text(kTailThenColumn) == since->tail) {
        auto log = log_of(store, rows);
        if (!log) {
            return tl::unexpected(log.error());
        }
        seen.log = *std::move(log);
    }
    return seen;
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
