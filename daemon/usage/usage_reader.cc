#include "usage/usage_reader.h"

#include <utility>

#include "usage/database.h"
#include "usage/usage_schema.h"

namespace apikeyd {

namespace {

constexpr std::string_view kDoingRead = "reading usage";

KeyTotal row_of(const Statement& statement) {
    return KeyTotal{std::string(statement.column_text(0)), static_cast<uint64_t>(statement.column_int(1)),
                    static_cast<uint64_t>(statement.column_int(2)), statement.column_int(3)};
}

constexpr std::string_view kRollupsSql =
    "SELECT start_s, key_id, allowed, denied FROM key_rollups "
    "WHERE step_s = ?1 AND start_s >= ?2 AND start_s < ?3 ORDER BY start_s, key_id";
/// One seek a step, from the first that is kept on: the key stands last in the index.
constexpr std::string_view kRollupsOfOneSql =
    "WITH RECURSIVE steps(start) AS ("
    "SELECT max(?2, start_s) FROM (SELECT start_s FROM key_rollups WHERE step_s = ?1 ORDER BY start_s LIMIT "
    "1) "
    "UNION ALL SELECT start + ?1 FROM steps WHERE start + ?1 < ?3) "
    "SELECT start_s, key_id, allowed, denied FROM steps CROSS JOIN key_rollups "
    "ON step_s = ?1 AND start_s = start AND start < ?3 AND key_id = ?4 ORDER BY start";
constexpr std::string_view kSumsSql =
    "SELECT ?2, key_id, sum(allowed), sum(denied) FROM key_rollups "
    "WHERE step_s = ?1 AND start_s >= ?2 AND start_s < ?3 GROUP BY key_id ORDER BY key_id";
constexpr std::string_view kCodeRollupsSql =
    "SELECT start_s, code, total FROM code_rollups "
    "WHERE step_s = ?1 AND start_s >= ?2 AND start_s < ?3 ORDER BY start_s, code";
/// A step's counts are in its day's, and a day's in the totals: what is older than is kept, or was counted by
/// a version without steps, is missing in one and not in the other.
constexpr std::string_view kKeptSql =
    "WITH days(since, until) AS (SELECT ?2 - ?2 % 86400, (?3 + 86399) / 86400 * 86400), "
    "steps AS (SELECT coalesce(sum(total), 0) AS total FROM days CROSS JOIN code_rollups "
    "ON step_s = ?1 AND (?1 = 86400 OR (start_s >= since AND start_s < until))), "
    "whole AS (SELECT iif(?1 = 86400, (SELECT coalesce(sum(total), 0) FROM codes), "
    "(SELECT coalesce(sum(total), 0) FROM days CROSS JOIN code_rollups "
    "ON step_s = 86400 AND start_s >= since AND start_s < until)) AS total) "
    "SELECT coalesce((SELECT min(start_s) FROM ("
    "SELECT * FROM (SELECT start_s FROM code_rollups WHERE step_s = ?1 ORDER BY start_s LIMIT 1) UNION ALL "
    "SELECT * FROM (SELECT start_s FROM key_rollups WHERE step_s = ?1 ORDER BY start_s LIMIT 1))), -1), "
    "whole.total > steps.total FROM whole, steps";

KeyRollup rollup_of(const Statement& statement) {
    return {statement.column_int(0), std::string(statement.column_text(1)),
            static_cast<uint64_t>(statement.column_int(2)), static_cast<uint64_t>(statement.column_int(3))};
}

}  // namespace

struct UsageReader::Impl {
    std::string path;
    Database database;  // before the statements: they are finalized first
    Statement all;
    Statement one;
    Statement codes;
};

UsageReader::UsageReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
UsageReader::UsageReader(UsageReader&&) noexcept = default;
UsageReader& UsageReader::operator=(UsageReader&&) noexcept = default;
UsageReader::~UsageReader() = default;

Result<UsageReader> UsageReader::open(const std::string& path) {
    Result<Database> database = Database::open_read_only(path);
    if (!database) {
        return tl::unexpected(std::move(database.error()));
    }
    auto impl = std::make_unique<Impl>(Impl{path, std::move(*database), {}, {}, {}});
    if (Result<void> prepared = impl->database.prepare(
            {{&impl->all, "SELECT key_id, allowed, denied, last_used_s FROM totals ORDER BY key_id"},
             {&impl->one, "SELECT key_id, allowed, denied, last_used_s FROM totals WHERE key_id = ?1"},
             {&impl->codes, "SELECT code, total FROM codes ORDER BY code"}});
        !prepared) {
        return tl::unexpected(std::move(prepared.error()));
    }
    return UsageReader(std::move(impl));
}

Result<void> UsageReader::for_each_total(const std::function<void(const KeyTotal&)>& callback) {
    const ResetGuard guard(impl_->all);
    int rc = impl_->all.step();
    for (; rc == SQLITE_ROW; rc = impl_->all.step()) {
        callback(row_of(impl_->all));
    }
    if (rc != SQLITE_DONE) {
        return tl::unexpected(impl_->database.last_error(kDoingRead));
    }
    return {};
}

Result<std::optional<KeyTotal>> UsageReader::total(std::string_view key_id) {
    const ResetGuard guard(impl_->one);
    const int rc = impl_->one.bind(1, key_id).step();
    if (rc == SQLITE_ROW) {
        return row_of(impl_->one);
    }
    if (rc != SQLITE_DONE) {
        return tl::unexpected(impl_->database.last_error(kDoingRead));
    }
    return std::nullopt;
}

/// Prepared when it is wanted: a store of an earlier version has the rest, and can be read.
Result<void> UsageReader::walk(std::string_view sql, const RollupQuery& query,
                               const std::function<void(const Statement&)>& visit) {
    const Result<int64_t> version = impl_->database.version();
    if (!version) {
        return tl::unexpected(version.error());
    }
    if (*version < kUsageRollupsVersion) {
        return fail("usage store " + impl_->path + ": is of version " + std::to_string(*version) +
                    ", which has no counts by time; start this version's apikeyd, and they begin");
    }
    Result<Statement> prepared = impl_->database.prepare(sql);
    if (!prepared) {
        return tl::unexpected(std::move(prepared.error()));
    }
    Statement& statement = *prepared;
    statement.bind(1, query.step_s).bind(2, query.since_s).bind(3, query.until_s);
    if (sql == kRollupsOfOneSql) {
        statement.bind(4, *query.key_id);
    }
    int rc = statement.step();
    for (; rc == SQLITE_ROW; rc = statement.step()) {
        visit(statement);
    }
    if (rc != SQLITE_DONE) {
        return tl::unexpected(impl_->database.last_error(kDoingRead));
    }
    return {};
}

Result<void> UsageReader::for_each_rollup(const RollupQuery& query,
                                          const std::function<void(const KeyRollup&)>& callback) {
    return walk(query.key_id ? kRollupsOfOneSql : kRollupsSql, query,
                [&](const Statement& statement) { callback(rollup_of(statement)); });
}

Result<void> UsageReader::for_each_sum(const RollupQuery& query,
                                       const std::function<void(const KeyRollup&)>& callback) {
    if (!query.key_id) {
        return walk(kSumsSql, query, [&](const Statement& statement) { callback(rollup_of(statement)); });
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
    return walk(kCodeRollupsSql, query, [&](const Statement& statement) {
        callback({statement.column_int(0),
                  {static_cast<uint8_t>(statement.column_int(1)),
                   static_cast<uint64_t>(statement.column_int(2))}});
    });
}

Result<KeptSteps> UsageReader::kept(const RollupQuery& query) {
    KeptSteps kept;
    const Result<void> walked = walk(kKeptSql, query, [&](const Statement& statement) {
        kept.first_s = statement.column_int(0) < 0 ? std::nullopt : std::optional(statement.column_int(0));
        kept.lost = statement.column_int(1) != 0;
    });
    return walked ? Result<KeptSteps>(kept) : tl::unexpected(walked.error());
}

Result<std::optional<std::vector<CodeCount>>> UsageReader::code_baselines(const GenerationUid& uid) {
    Result<Statement> prepared = impl_->database.prepare(
        "SELECT -1, 0 FROM closed WHERE uid = ?1 UNION ALL "
        "SELECT code, total FROM code_baselines WHERE uid = ?1");
    if (!prepared) {
        return tl::unexpected(std::move(prepared.error()));
    }
    std::vector<CodeCount> codes;
    bool closed = false;
    int rc = prepared->bind(1, uid).step();
    for (; rc == SQLITE_ROW; rc = prepared->step()) {
        closed = closed || prepared->column_int(0) < 0;
        codes.push_back(
            {static_cast<uint8_t>(prepared->column_int(0)), static_cast<uint64_t>(prepared->column_int(1))});
    }
    if (rc != SQLITE_DONE) {
        return tl::unexpected(impl_->database.last_error(kDoingRead));
    }
    return closed ? std::nullopt : std::optional(std::move(codes));
}

Result<std::vector<CodeCount>> UsageReader::codes() {
    std::vector<CodeCount> codes;
    const ResetGuard guard(impl_->codes);
    int rc = impl_->codes.step();
    for (; rc == SQLITE_ROW; rc = impl_->codes.step()) {
        codes.push_back({static_cast<uint8_t>(impl_->codes.column_int(0)),
                         static_cast<uint64_t>(impl_->codes.column_int(1))});
    }
    if (rc != SQLITE_DONE) {
        return tl::unexpected(impl_->database.last_error(kDoingRead));
    }
    return codes;
}

}  // namespace apikeyd
