#include "usage/usage_reader.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "sqlite/database.h"
#include "usage/usage_schema.h"

namespace apikeyd {

namespace {

constexpr std::string_view kDoingRead = "reading usage";

/// Rows of keys stand in a table of their own or in `recent`, and may stand in both; merged, what belongs
/// together is adjacent.
constexpr std::string_view kTotalsSql =
    "SELECT key_id, allowed, denied, last_used_s FROM totals UNION ALL "
    "SELECT key_id, allowed, denied, last_used_s FROM recent ORDER BY 1";
constexpr std::string_view kTotalSql =
    "SELECT key_id, allowed, denied, last_used_s FROM totals WHERE key_id = ?1 UNION ALL "
    "SELECT key_id, allowed, denied, last_used_s FROM recent WHERE key_id = ?1";
constexpr std::string_view kRollupsSql =
    "SELECT start_s, key_id, allowed, denied FROM key_rollups "
    "WHERE step_s = ?1 AND start_s >= ?2 AND start_s < ?3 UNION ALL "
    "SELECT start_s - start_s % ?1, key_id, allowed, denied FROM recent "
    "WHERE start_s >= ?2 AND start_s < ?3 ORDER BY 1, 2";
/// One seek a step, from the first that is kept on: the key stands last in the index.
constexpr std::string_view kRollupsOfOneSql =
    "SELECT start_s, key_id, allowed, denied FROM ("
    "WITH RECURSIVE steps(start) AS ("
    "SELECT max(?2, start_s) FROM (SELECT start_s FROM key_rollups WHERE step_s = ?1 ORDER BY start_s LIMIT "
    "1) "
    "UNION ALL SELECT start + ?1 FROM steps WHERE start + ?1 < ?3) "
    "SELECT * FROM steps) CROSS JOIN key_rollups "
    "ON step_s = ?1 AND start_s = start AND start < ?3 AND key_id = ?4 UNION ALL "
    "SELECT start_s - start_s % ?1, key_id, allowed, denied FROM recent "
    "WHERE start_s >= ?2 AND start_s < ?3 AND key_id = ?4 ORDER BY 1";
constexpr std::string_view kSumsSql =
    "SELECT ?2, key_id, sum(allowed), sum(denied) FROM ("
    "SELECT key_id, allowed, denied FROM key_rollups "
    "WHERE step_s = ?1 AND start_s >= ?2 AND start_s < ?3 UNION ALL "
    "SELECT key_id, allowed, denied FROM recent WHERE start_s >= ?2 AND start_s < ?3) "
    "GROUP BY key_id ORDER BY key_id";
constexpr std::string_view kCodesSql = "SELECT code, total FROM codes ORDER BY code";
constexpr std::string_view kCodeRollupsSql =
    "SELECT start_s, code, total FROM code_rollups "
    "WHERE step_s = ?1 AND start_s >= ?2 AND start_s < ?3 ORDER BY start_s, code";
/// A step's counts are in its day's, and a day's in the totals: what is older than is kept, or was counted by
/// a version without steps, is missing in one and not in the other.
constexpr std::string_view kKeptSql =
    "SELECT * FROM (WITH days(since, until) AS (SELECT ?2 - ?2 % 86400, (?3 + 86399) / 86400 * 86400), "
    "steps AS (SELECT coalesce(sum(total), 0) AS total FROM days CROSS JOIN code_rollups "
    "ON step_s = ?1 AND (?1 = 86400 OR (start_s >= since AND start_s < until))), "
    "whole AS (SELECT iif(?1 = 86400, (SELECT coalesce(sum(total), 0) FROM codes), "
    "(SELECT coalesce(sum(total), 0) FROM days CROSS JOIN code_rollups "
    "ON step_s = 86400 AND start_s >= since AND start_s < until)) AS total) "
    "SELECT coalesce((SELECT min(start_s) FROM ("
    "SELECT * FROM (SELECT start_s FROM code_rollups WHERE step_s = ?1 ORDER BY start_s LIMIT 1) UNION ALL "
    "SELECT * FROM (SELECT start_s FROM key_rollups WHERE step_s = ?1 ORDER BY start_s LIMIT 1) UNION ALL "
    "SELECT min(start_s - start_s % ?1) FROM recent)), -1), "
    "whole.total > steps.total FROM whole, steps)";
constexpr std::string_view kCodeBaselinesSql =
    "SELECT -1, 0 FROM closed WHERE uid = ?1 UNION ALL "
    "SELECT code, total FROM code_baselines WHERE uid = ?1";
/// Before a statement, which begins with SELECT, on a store of a version that has no such table.
constexpr std::string_view kNoRecentSql =
    "WITH recent(start_s, key_id, allowed, denied, last_used_s) AS (SELECT 0, '', 0, 0, 0 WHERE 0) ";

KeyTotal total_of(const Statement& statement) {
    return {std::string(statement.column_text(0)), static_cast<uint64_t>(statement.column_int(1)),
            static_cast<uint64_t>(statement.column_int(2)), statement.column_int(3)};
}

KeyRollup rollup_of(const Statement& statement) {
    return {statement.column_int(0), std::string(statement.column_text(1)),
            static_cast<uint64_t>(statement.column_int(2)), static_cast<uint64_t>(statement.column_int(3))};
}

CodeCount code_of(const Statement& statement, int column) {
    return {static_cast<uint8_t>(statement.column_int(column)),
            static_cast<uint64_t>(statement.column_int(column + 1))};
}

/// What SQLite would make of it; see min() in the statements that write.
void add_to(uint64_t& sum, uint64_t count) {
    sum = std::min(sum + count, static_cast<uint64_t>(std::numeric_limits<int64_t>::max()));
}

bool belong_together(const KeyTotal& one, const KeyTotal& next) {
    return one.key_id == next.key_id;
}
bool belong_together(const KeyRollup& one, const KeyRollup& next) {
    return one.start_s == next.start_s && one.key_id == next.key_id;
}
void add(KeyTotal& sum, const KeyTotal& more) {
    add_to(sum.allowed, more.allowed);
    add_to(sum.denied, more.denied);
    sum.last_used_s = std::max(sum.last_used_s, more.last_used_s);
}
void add(KeyRollup& sum, const KeyRollup& more) {
    add_to(sum.allowed, more.allowed);
    add_to(sum.denied, more.denied);
}

/// Makes one row of adjacent ones that belong together.
template <typename Row>
class Merger {
  public:
    explicit Merger(const std::function<void(const Row&)>& callback) : callback_(callback) {}

    void take(Row row) {
        if (held_ && belong_together(*held_, row)) {
            add(*held_, row);
            return;
        }
        end();
        held_ = std::move(row);
    }
    void end() {
        if (held_) {
            callback_(*held_);
        }
        held_.reset();
    }

  private:
    const std::function<void(const Row&)>& callback_;
    std::optional<Row> held_;
};

/// While it lives, all statements see one state.
class Snapshot {
  public:
    explicit Snapshot(const Database& database) : database_(database), begun_(database.execute("BEGIN")) {}
    ~Snapshot() { database_.execute("COMMIT"); }
    Snapshot(const Snapshot&) = delete;
    Snapshot& operator=(const Snapshot&) = delete;
    [[nodiscard]] bool is_taken() const { return begun_ == SQLITE_OK; }

  private:
    const Database& database_;
    int begun_;
};

}  // namespace

struct UsageReader::Impl {
    std::string path;
    Database database;
};

UsageReader::UsageReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
UsageReader::UsageReader(UsageReader&&) noexcept = default;
UsageReader& UsageReader::operator=(UsageReader&&) noexcept = default;
UsageReader::~UsageReader() = default;

Result<UsageReader> UsageReader::open(const std::string& path) {
    Result<Database> database = Database::open_read_only(kUsageStore, path);
    if (!database) {
        return tl::unexpected(std::move(database.error()));
    }
    return UsageReader(std::make_unique<Impl>(Impl{path, std::move(*database)}));
}

/// A store of an earlier version is read as it is, and may be brought up meanwhile: so the version is looked
/// at in the snapshot that is read.
Result<void> UsageReader::walk(int64_t version_min, std::string_view sql,
                               const std::function<void(Statement&)>& bind,
                               const std::function<void(const Statement&)>& visit) {
    const Snapshot snapshot(impl_->database);
    if (!snapshot.is_taken()) {
        return tl::unexpected(impl_->database.last_error(kDoingRead));
    }
    const Result<int64_t> version = impl_->database.version();
    if (!version) {
        return tl::unexpected(version.error());
    }
    if (*version < version_min) {
        return fail("usage store " + impl_->path + ": is of version " + std::to_string(*version) +
                    ", which has no counts by time; start this version's apikeyd, and they begin");
    }
    const std::string_view before = *version < kUsageRecentVersion ? kNoRecentSql : "";
    Result<Statement> prepared = impl_->database.prepare(std::string(before).append(sql));
    if (!prepared) {
        return tl::unexpected(std::move(prepared.error()));
    }
    bind(*prepared);
    int rc = prepared->step();
    for (; rc == SQLITE_ROW; rc = prepared->step()) {
        visit(*prepared);
    }
    if (rc != SQLITE_DONE) {
        return tl::unexpected(impl_->database.last_error(kDoingRead));
    }
    return {};
}

Result<void> UsageReader::walk_steps(std::string_view sql, const RollupQuery& query,
                                     const std::function<void(const Statement&)>& visit) {
    const auto bind = [&](Statement& statement) {
        statement.bind(1, query.step_s).bind(2, query.since_s).bind(3, query.until_s);
        if (sql == kRollupsOfOneSql) {
            statement.bind(4, *query.key_id);
        }
    };
    return walk(kUsageRollupsVersion, sql, bind, visit);
}

Result<void> UsageReader::for_each_total(const std::function<void(const KeyTotal&)>& callback) {
    Merger<KeyTotal> merger(callback);
    Result<void> walked = walk(
        1, kTotalsSql, [](Statement&) {},
        [&](const Statement& statement) { merger.take(total_of(statement)); });
    if (walked) {
        merger.end();
    }
    return walked;
}

Result<std::optional<KeyTotal>> UsageReader::total(std::string_view key_id) {
    std::optional<KeyTotal> total;
    const std::function<void(const KeyTotal&)> keep = [&](const KeyTotal& one) { total = one; };
    Merger<KeyTotal> merger(keep);
    const Result<void> walked = walk(
        1, kTotalSql, [&](Statement& statement) { statement.bind(1, key_id); },
        [&](const Statement& statement) { merger.take(total_of(statement)); });
    if (!walked) {
        return tl::unexpected(walked.error());
    }
    merger.end();
    return total;
}

Result<void> UsageReader::for_each_rollup(const RollupQuery& query,
                                          const std::function<void(const KeyRollup&)>& callback) {
    Merger<KeyRollup> merger(callback);
    Result<void> walked = walk_steps(query.key_id ? kRollupsOfOneSql : kRollupsSql, query,
                                     [&](const Statement& statement) { merger.take(rollup_of(statement)); });
    if (walked) {
        merger.end();
    }
    return walked;
}

Result<void> UsageReader::for_each_sum(const RollupQuery& query,
                                       const std::function<void(const KeyRollup&)>& callback) {
    if (!query.key_id) {
        return walk_steps(kSumsSql, query,
                          [&](const Statement& statement) { callback(rollup_of(statement)); });
    }
    KeyRollup sum{query.since_s, *query.key_id};
    Result<void> walked = for_each_rollup(query, [&](const KeyRollup& one) {
        sum.allowed += one.allowed;
        sum.denied += one.denied;
    });
    if (walked) {
        callback(sum);
    }
    return walked;
}

Result<void> UsageReader::for_each_code_rollup(const RollupQuery& query,
                                               const std::function<void(const CodeRollup&)>& callback) {
    return walk_steps(kCodeRollupsSql, query, [&](const Statement& statement) {
        callback({statement.column_int(0), code_of(statement, 1)});
    });
}

Result<KeptSteps> UsageReader::kept(const RollupQuery& query) {
    KeptSteps kept;
    const Result<void> walked = walk_steps(kKeptSql, query, [&](const Statement& statement) {
        kept.first_s = statement.column_int(0) < 0 ? std::nullopt : std::optional(statement.column_int(0));
        kept.lost = statement.column_int(1) != 0;
    });
    return walked ? Result<KeptSteps>(kept) : tl::unexpected(walked.error());
}

Result<std::optional<std::vector<CodeCount>>> UsageReader::code_baselines(const GenerationUid& uid) {
    std::vector<CodeCount> codes;
    bool closed = false;
    const Result<void> walked = walk(
        1, kCodeBaselinesSql, [&](Statement& statement) { statement.bind(1, uid); },
        [&](const Statement& statement) {
            closed = closed || statement.column_int(0) < 0;
            codes.push_back(code_of(statement, 0));
        });
    if (!walked) {
        return tl::unexpected(walked.error());
    }
    return closed ? std::nullopt : std::optional(std::move(codes));
}

Result<std::vector<CodeCount>> UsageReader::codes() {
    std::vector<CodeCount> codes;
    const Result<void> walked = walk(
        1, kCodesSql, [](Statement&) {},
        [&](const Statement& statement) { codes.push_back(code_of(statement, 0)); });
    return walked ? Result<std::vector<CodeCount>>(std::move(codes)) : tl::unexpected(walked.error());
}

}  // namespace apikeyd
