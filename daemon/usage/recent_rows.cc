#include "usage/recent_rows.h"

#include <algorithm>
#include <string>
#include <utility>

namespace apikeyd {

namespace {

/// Of these some 16 MiB are taken; beyond, all are forgotten and read once more.
constexpr size_t kRememberedMax = size_t{1} << 18;
/// A flush moves so many rows, in 0.1 s, or 0.4 s where a million keys were used; or twice as many as it
/// adds. The more at a time, the more of them share a page.
constexpr uint64_t kFoldedRowsMin = 8192;

constexpr std::string_view kBaselineSql =
    "SELECT allowed, denied FROM baselines WHERE uid = ?1 AND digest = ?2 UNION ALL "
    "SELECT allowed, denied FROM recent WHERE uid = ?1 AND digest = ?2";
/// The rows of a cell and its baseline add up to sums that were plausible, so to no more than 2^63 - 1.
constexpr std::string_view kAddSql =
    "INSERT INTO recent(uid, digest, start_s, key_id, allowed, denied, last_used_s) "
    "VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT(uid, digest, start_s, key_id) "
    "DO UPDATE SET allowed = allowed + excluded.allowed, denied = denied + excluded.denied, "
    "last_used_s = max(last_used_s, excluded.last_used_s)";

constexpr std::string_view kRangeSql =
    " FROM recent WHERE (uid, digest) >= (?1, ?2) AND (uid, digest) <= (?3, ?4) AND start_s <> ?5 ";
/// A statement over a range, of what stands before and after that.
std::string over_range(std::string_view before, std::string_view after) {
    return std::string(before).append(kRangeSql).append(after);
}

// Rows are moved in the order of the tree that they go to, so that a page is visited once. A sum beyond
// 2^63 - 1 would become a REAL; min() picks the largest integer instead.
constexpr std::string_view kToTotalsSql =
    "INSERT INTO totals(key_id, allowed, denied, last_used_s) SELECT key_id, allowed, denied, last_used_s";
constexpr std::string_view kOntoTotalsSql =
    "ORDER BY key_id ON CONFLICT(key_id) "
    "DO UPDATE SET allowed = min(allowed + excluded.allowed, 9223372036854775807), "
    "denied = min(denied + excluded.denied, 9223372036854775807), "
    "last_used_s = max(last_used_s, excluded.last_used_s)";
constexpr std::string_view kToBaselinesSql =
    "INSERT INTO baselines(uid, digest, allowed, denied) SELECT uid, digest, allowed, denied";
constexpr std::string_view kOntoBaselinesSql =
    "ORDER BY uid, digest ON CONFLICT(uid, digest) "
    "DO UPDATE SET allowed = allowed + excluded.allowed, denied = denied + excluded.denied";
constexpr std::string_view kToRollupsSql =
    "INSERT INTO key_rollups(step_s, start_s, key_id, allowed, denied) "
    "SELECT ?6, start_s - start_s % ?6, key_id, allowed, denied";
constexpr std::string_view kOntoRollupsSql =
    "ORDER BY start_s - start_s % ?6, key_id ON CONFLICT(step_s, start_s, key_id) "
    "DO UPDATE SET allowed = min(allowed + excluded.allowed, 9223372036854775807), "
    "denied = min(denied + excluded.denied, 9223372036854775807)";
constexpr std::string_view kToUnsentSql =
    "INSERT INTO unsent(start_s, key_id, mark) SELECT start_s - start_s % 3600, key_id, ?6";
constexpr std::string_view kOntoUnsentSql =
    "ORDER BY start_s - start_s % 3600, key_id "
    "ON CONFLICT(start_s, key_id) DO UPDATE SET mark = excluded.mark";

GenerationUid last_uid() {
    GenerationUid uid;
    uid.fill(0xFF);
    return uid;
}

}  // namespace

Result<RecentRows> RecentRows::prepare(const Database& database) {
    RecentRows rows;
    Result<void> prepared = database.prepare(
        {{&rows.data_version_, "PRAGMA data_version"},
         {&rows.baseline_, kBaselineSql},
         {&rows.add_, kAddSql},
         {&rows.find_, over_range("SELECT uid, digest", "ORDER BY uid, digest LIMIT 1 OFFSET ?6")},
         {&rows.move_to_totals_, over_range(kToTotalsSql, kOntoTotalsSql)},
         {&rows.move_to_baselines_, over_range(kToBaselinesSql, kOntoBaselinesSql)},
         {&rows.move_to_rollups_, over_range(kToRollupsSql, kOntoRollupsSql)},
         {&rows.move_to_unsent_, over_range(kToUnsentSql, kOntoUnsentSql)},
         {&rows.delete_, over_range("DELETE", "")}});
    if (!prepared) {
        return tl::unexpected(std::move(prepared.error()));
    }
    return rows;
}

/// There is one writer to a store, but whoever repairs one by hand must not be overruled by what is
/// remembered.
int RecentRows::begin() {
    const ResetGuard guard(data_version_);
    if (const int rc = data_version_.step(); rc != SQLITE_ROW) {
        return rc;
    }
    const int64_t version = data_version_.column_int(0);
    if (version != version_) {
        remembered_.clear();
        version_ = version;
    }
    return SQLITE_OK;
}

void RecentRows::rolled_back() {
    remembered_.clear();
    in_pass_ = false;
    pass_start_s_ = -1;
}

void RecentRows::remember(const Cell& cell, const Baseline& baseline) {
    if (remembered_.size() >= kRememberedMax) {
        remembered_.clear();
    }
    remembered_.insert_or_assign(cell, baseline);
}

int RecentRows::read_baseline(const GenerationUid& uid, const KeyDigest& digest, Baseline& baseline) {
    const Cell cell{uid, digest};
    if (const auto known = remembered_.find(cell); known != remembered_.end()) {
        baseline = known->second;
        return SQLITE_OK;
    }
    baseline = {};
    const ResetGuard guard(baseline_);
    int rc = baseline_.bind(1, uid).bind(2, digest).step();
    for (; rc == SQLITE_ROW; rc = baseline_.step()) {
        baseline.allowed += static_cast<uint64_t>(baseline_.column_int(0));
        baseline.denied += static_cast<uint64_t>(baseline_.column_int(1));
    }
    if (rc != SQLITE_DONE) {
        return rc;
    }
    remember(cell, baseline);
    return SQLITE_OK;
}

int RecentRows::add(const GenerationUid& uid, const KeyCount& key, const Baseline& before, int64_t now_s) {
    add_.bind(1, uid).bind(2, key.digest).bind(3, rollup_start_s(now_s, kRollupSteps_s[0]));
    const int rc = add_.bind(4, key.key_id)
                       .bind(5, static_cast<int64_t>(key.allowed - before.allowed))
                       .bind(6, static_cast<int64_t>(key.denied - before.denied))
                       .bind(7, now_s)
                       .run();
    if (rc == SQLITE_OK) {
        remember({uid, key.digest}, {key.allowed, key.denied});
    }
    return rc;
}

/// A pass goes over all rows, in steps, and begins once in each minute: rows of the minute under way are not
/// looked at again and again.
int RecentRows::fold(uint64_t keys_changed, int64_t now_s) {
    const int64_t start_s = rollup_start_s(now_s, kRollupSteps_s[0]);
    if (!in_pass_) {
        if (pass_start_s_ == start_s) {
            return SQLITE_OK;
        }
        in_pass_ = true;
        pass_start_s_ = start_s;
        folded_to_ = {};
    }
    Range range{folded_to_, {last_uid(), last_uid()}, start_s};
    Cell last;
    int rc = find(range, std::max(kFoldedRowsMin, 2 * keys_changed) - 1, last, in_pass_);
    if (rc == SQLITE_OK && in_pass_) {
        range.last = last;
        folded_to_ = last;
        return move(range, true);
    }
    bool some = false;
    rc = rc == SQLITE_OK ? find(range, 0, last, some) : rc;
    return rc == SQLITE_OK && some ? move(range, true) : rc;
}

int RecentRows::fold_generation(const GenerationUid& uid) {
    constexpr int64_t kNoMinute_s = -1;
    return move({{uid, {}}, {uid, last_uid()}, kNoMinute_s}, false);
}

int RecentRows::find(const Range& from, uint64_t skip, Cell& found, bool& is_found) {
    const ResetGuard guard(find_);
    find_.bind(1, from.first.uid).bind(2, from.first.digest).bind(3, from.last.uid).bind(4, from.last.digest);
    const int rc = find_.bind(5, from.but_start_s).bind(6, static_cast<int64_t>(skip)).step();
    is_found = rc == SQLITE_ROW;
    if (is_found) {
        const auto copy = [](std::span<const uint8_t> bytes, auto& to) {
            std::copy_n(bytes.begin(), std::min(bytes.size(), to.size()), to.begin());
        };
        copy(find_.column_blob(0), found.uid);
        copy(find_.column_blob(1), found.digest);
    }
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

int RecentRows::move(const Range& range, bool with_baselines) {
    const auto bound = [&](Statement& statement) -> Statement& {
        return statement.bind(1, range.first.uid)
            .bind(2, range.first.digest)
            .bind(3, range.last.uid)
            .bind(4, range.last.digest)
            .bind(5, range.but_start_s);
    };
    int rc = bound(move_to_totals_).run();
    if (rc == SQLITE_OK && with_baselines) {
        rc = bound(move_to_baselines_).run();
    }
    for (size_t i = 0; rc == SQLITE_OK && i < kRollupSteps_s.size(); ++i) {
        rc = bound(move_to_rollups_).bind(6, kRollupSteps_s[i]).run();
    }
    if (rc == SQLITE_OK && mark_) {
        rc = bound(move_to_unsent_).bind(6, *mark_).run();
    }
    return rc == SQLITE_OK ? bound(delete_).run() : rc;
}

}  // namespace apikeyd
