#include "usage/rollup_rows.h"

#include <utility>

namespace apikeyd {

namespace {

/// A sum beyond 2^63 - 1 would become a REAL; min() picks the largest integer instead.
constexpr std::string_view kAddCodeSql =
    "INSERT INTO code_rollups(step_s, start_s, code, total) VALUES(?1, ?2, ?3, ?4) "
    "ON CONFLICT(step_s, start_s, code) DO UPDATE SET "
    "total = min(total + excluded.total, 9223372036854775807)";
/// Whatever was counted for a key was answered with a code, which another flush may have brought: so `<=`
/// below.
constexpr std::string_view kOldestSql =
    "SELECT start_s FROM code_rollups WHERE step_s = ?1 AND start_s < ?2 ORDER BY start_s LIMIT 1";
constexpr std::string_view kForgetKeysSql = "DELETE FROM key_rollups WHERE step_s = ?1 AND start_s <= ?2";
constexpr std::string_view kForgetCodesSql = "DELETE FROM code_rollups WHERE step_s = ?1 AND start_s <= ?2";

}  // namespace

Result<RollupRows> RollupRows::prepare(const Database& database) {
    RollupRows rows;
    Result<void> prepared = database.prepare({{&rows.add_code_, kAddCodeSql},
                                              {&rows.oldest_, kOldestSql},
                                              {&rows.forget_keys_, kForgetKeysSql},
                                              {&rows.forget_codes_, kForgetCodesSql}});
    if (!prepared) {
        return tl::unexpected(std::move(prepared.error()));
    }
    return rows;
}

int RollupRows::add_code(uint8_t code, int64_t total, int64_t now_s) {
    for (const int64_t step_s : kRollupSteps_s) {
        add_code_.bind(1, step_s).bind(2, rollup_start_s(now_s, step_s)).bind(3, int64_t{code});
        if (const int rc = add_code_.bind(4, total).run(); rc != SQLITE_OK) {
            return rc;
        }
    }
    return SQLITE_OK;
}

int RollupRows::forget_oldest(const Retention& retention, int64_t now_s) {
    forgotten_hour_s_.reset();
    for (size_t i = 0; i < kRollupSteps_s.size(); ++i) {
        const int64_t step_s = kRollupSteps_s[i];
        std::optional<int64_t> start_s;
        {
            const ResetGuard guard(oldest_);
            const int64_t kept_s = rollup_start_s(now_s, step_s) - retention.kept_s[i];
            const int rc = oldest_.bind(1, step_s).bind(2, kept_s).step();
            if (rc == SQLITE_ROW) {
                start_s = oldest_.column_int(0);
            } else if (rc != SQLITE_DONE) {
                return rc;
            }
        }
        if (start_s) {
            int rc = forget_keys_.bind(1, step_s).bind(2, *start_s).run();
            rc = rc == SQLITE_OK ? forget_codes_.bind(1, step_s).bind(2, *start_s).run() : rc;
            if (rc != SQLITE_OK) {
                return rc;
            }
            forgotten_hour_s_ = step_s == kRollupSteps_s[1] ? start_s : forgotten_hour_s_;
        }
    }
    return SQLITE_OK;
}

}  // namespace apikeyd
