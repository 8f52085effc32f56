#include "usage/flush_run.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <tuple>
#include <utility>
#include <vector>

namespace apikeyd {

namespace {

constexpr uint64_t kInt64Max = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());

constexpr std::string_view kSelectCodeBaselineSql =
    "SELECT total FROM code_baselines WHERE uid = ?1 AND code = ?2";
constexpr std::string_view kRaiseCodeBaselineSql =
    "INSERT INTO code_baselines(uid, code, total) VALUES(?1, ?2, ?3) ON CONFLICT(uid, code) "
    "DO UPDATE SET total = max(total, excluded.total)";
/// A sum beyond 2^63 - 1 would become a REAL; min() picks the largest integer instead.
constexpr std::string_view kAddCodeSql =
    "INSERT INTO codes(code, total) VALUES(?1, ?2) ON CONFLICT(code) "
    "DO UPDATE SET total = min(total + excluded.total, 9223372036854775807)";
constexpr std::string_view kCountQuarantinedSql = "SELECT count(*) FROM quarantined";
constexpr std::string_view kInsertQuarantinedSql =
    "INSERT INTO quarantined(uid, digest, allowed, denied, seen_s) VALUES(?1, ?2, ?3, ?4, ?5) "
    "ON CONFLICT(uid, digest) DO NOTHING";

bool plausible(uint64_t sum, uint64_t baseline) {
    return sum >= baseline && sum - baseline <= kImplausibleJump && sum <= kInt64Max;
}

int64_t clamped(uint64_t value) {
    return static_cast<int64_t>(std::min(value, kInt64Max));
}

}  // namespace

Result<FlushStatements> FlushStatements::prepare(const Database& database) {
    FlushStatements statements;
    Result<RecentRows> recent = RecentRows::prepare(database);
    Result<RollupRows> rollups = RollupRows::prepare(database);
    Result<UnsentRows> unsent = UnsentRows::prepare(database);
    Result<void> prepared = database.prepare({{&statements.select_code_baseline, kSelectCodeBaselineSql},
                                              {&statements.raise_code_baseline, kRaiseCodeBaselineSql},
                                              {&statements.add_code, kAddCodeSql},
                                              {&statements.count_quarantined, kCountQuarantinedSql},
                                              {&statements.insert_quarantined, kInsertQuarantinedSql}});
    if (!recent || !rollups || !unsent || !prepared) {
        return tl::unexpected(std::move(!recent    ? recent.error()
                                        : !rollups ? rollups.error()
                                        : !unsent  ? unsent.error()
                                                   : prepared.error()));
    }
    statements.recent = std::move(*recent);
    statements.rollups = std::move(*rollups);
    statements.unsent = std::move(*unsent);
    return statements;
}

/// Keys go in the order of the trees of recent rows and baselines, so that a page is visited once however
/// many keys there are.
int FlushRun::add(const GenerationCounts& counts) {
    std::vector<size_t> order(counts.keys.size());
    std::iota(order.begin(), order.end(), size_t{0});
    // A cell that was read twice: its earlier, smaller sums first, or the later ones would look like a fall.
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
        const KeyCount& x = counts.keys[a];
        const KeyCount& y = counts.keys[b];
        return std::tie(x.digest, x.allowed, x.denied) < std::tie(y.digest, y.allowed, y.denied);
    });
    int rc = SQLITE_OK;
    for (size_t i = 0; rc == SQLITE_OK && i < order.size(); ++i) {
        rc = add_key(counts.uid, counts.keys[order[i]]);
    }
    for (size_t i = 0; rc == SQLITE_OK && i < counts.codes.size(); ++i) {
        rc = add_code(counts.uid, counts.codes[i]);
    }
    return rc;
}

int FlushRun::add_key(const GenerationUid& uid, const KeyCount& key) {
    Baseline before;
    if (const int rc = statements_.recent.read_baseline(uid, key.digest, before); rc != SQLITE_OK) {
        return rc;
    }
    // One word out of two being wrong discredits the cell: whoever wrote it could write the other.
    if (!plausible(key.allowed, before.allowed) || !plausible(key.denied, before.denied)) {
        return quarantine(uid, key.digest, key.allowed, key.denied);
    }
    if (key.allowed == before.allowed && key.denied == before.denied) {
        return SQLITE_OK;
    }
    ++summary_.keys_changed;
    summary_.allowed_added += key.allowed - before.allowed;
    summary_.denied_added += key.denied - before.denied;
    return statements_.recent.add(uid, key, before, now_s_);
}

int FlushRun::add_code(const GenerationUid& uid, const CodeCount& code) {
    uint64_t total_before = 0;
    {
        Statement& baseline = statements_.select_code_baseline;
        const ResetGuard guard(baseline);
        const int rc = baseline.bind(1, uid).bind(2, int64_t{code.code}).step();
        if (rc == SQLITE_ROW) {
            total_before = static_cast<uint64_t>(baseline.column_int(0));
        } else if (rc != SQLITE_DONE) {
            return rc;
        }
    }
    if (!plausible(code.total, total_before)) {
        KeyDigest stand_in{};
        stand_in.back() = code.code;
        return quarantine(uid, stand_in, code.total, 0);
    }
    if (code.total == total_before) {
        return SQLITE_OK;
    }
    const int64_t difference = clamped(code.total - total_before);
    int rc = statements_.raise_code_baseline.bind(1, uid)
                 .bind(2, int64_t{code.code})
                 .bind(3, clamped(code.total))
                 .run();
    rc = rc == SQLITE_OK ? statements_.add_code.bind(1, int64_t{code.code}).bind(2, difference).run() : rc;
    rc = rc == SQLITE_OK ? statements_.rollups.add_code(code.code, difference, now_s_) : rc;
    return rc == SQLITE_OK ? statements_.unsent.note_code(now_s_) : rc;
}

int FlushRun::quarantine(const GenerationUid& uid, const KeyDigest& digest, uint64_t allowed,
                         uint64_t denied) {
    ++summary_.quarantined;
    if (quarantined_rows_ < 0) {
        Statement& count = statements_.count_quarantined;
        const ResetGuard guard(count);
        if (const int rc = count.step(); rc != SQLITE_ROW) {
            return rc;
        }
        quarantined_rows_ = count.column_int(0);
    }
    if (quarantined_rows_ >= kQuarantinedRowsMax) {
        return SQLITE_OK;
    }
    const int rc = statements_.insert_quarantined.bind(1, uid)
                       .bind(2, digest)
                       .bind(3, clamped(allowed))
                       .bind(4, clamped(denied))
                       .bind(5, now_s_)
                       .run();
    if (rc == SQLITE_OK && database_.rows_changed() > 0) {
        ++quarantined_rows_;
        ++summary_.quarantined_new;
    }
    return rc;
}

}  // namespace apikeyd
