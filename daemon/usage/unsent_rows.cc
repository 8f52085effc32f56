#include "usage/unsent_rows.h"

#include <algorithm>
#include <utility>

#include "usage/usage_store.h"

namespace apikeyd {

namespace {

/// Hours of codes in a batch, each of some twenty rows.
constexpr int64_t kCodeHoursMax = 100;

constexpr std::string_view kHighestMarkSql = "SELECT coalesce(max(mark), 0) FROM unsent";
constexpr std::string_view kReadSql =
    "SELECT uid, batch, coalesce(resend_s, -1), resend_key, codes_from_s FROM sending";
constexpr std::string_view kLowerCodesSql = "UPDATE sending SET codes_from_s = ?1 WHERE codes_from_s > ?1";
constexpr std::string_view kForgetToSql = "DELETE FROM unsent WHERE start_s <= ?1";
/// Of an hour that was forgotten since it was marked there is nothing to be sent.
constexpr std::string_view kChangedSql =
    "SELECT unsent.start_s, unsent.key_id, coalesce(allowed, -1), denied FROM unsent "
    "LEFT JOIN key_rollups AS sums "
    "ON step_s = 3600 AND sums.start_s = unsent.start_s AND sums.key_id = unsent.key_id "
    "ORDER BY unsent.start_s, unsent.key_id LIMIT ?1";
/// But for those that are marked: no batch has one twice.
constexpr std::string_view kUnseenSql =
    "SELECT start_s, key_id, allowed, denied FROM key_rollups AS sums "
    "WHERE step_s = 3600 AND (start_s, key_id) > (?1, ?2) AND NOT EXISTS(SELECT 1 FROM unsent "
    "WHERE unsent.start_s = sums.start_s AND unsent.key_id = sums.key_id) ORDER BY start_s, key_id LIMIT ?3";
/// The last one of so many hours.
constexpr std::string_view kCodesEndSql =
    "SELECT max(start_s) FROM (SELECT DISTINCT start_s FROM code_rollups "
    "WHERE step_s = 3600 AND start_s >= ?1 ORDER BY start_s LIMIT ?2)";
constexpr std::string_view kCodesSql =
    "SELECT start_s, code, total FROM code_rollups "
    "WHERE step_s = 3600 AND start_s >= ?1 AND start_s <= ?2 ORDER BY start_s, code";
constexpr std::string_view kNoteSql =
    "UPDATE sending SET batch = ?1, resend_s = ?2, resend_key = ?3, codes_from_s = ?4";
constexpr std::string_view kDeleteChangedSql =
    "DELETE FROM unsent WHERE (start_s, key_id) <= (?1, ?2) AND mark <= ?3";
/// Writes nothing where it is so already.
constexpr std::string_view kResetSql =
    "UPDATE sending SET batch = coalesce(?1, batch), resend_s = 0, resend_key = '', codes_from_s = 0 "
    "WHERE batch <> coalesce(?1, batch) OR resend_s IS NOT 0 OR resend_key <> '' OR codes_from_s <> 0";
constexpr std::string_view kDeleteAllSql = "DELETE FROM unsent WHERE mark >= 0";

constexpr int64_t kHour_s = kRollupSteps_s[1];
static_assert(kHour_s == 3600, "the SQL above says the same");

KeyHour key_hour_of(const Statement& row) {
    return {row.column_int(0), std::string(row.column_text(1)), static_cast<uint64_t>(row.column_int(2)),
            static_cast<uint64_t>(row.column_int(3))};
}

int ended(int rc) {
    return rc == SQLITE_DONE || rc == SQLITE_ROW ? SQLITE_OK : rc;
}

}  // namespace

Result<UnsentRows> UnsentRows::prepare(const Database& database) {
    UnsentRows rows;
    Result<void> prepared = database.prepare({{&rows.highest_mark_, kHighestMarkSql},
                                              {&rows.read_, kReadSql},
                                              {&rows.lower_codes_, kLowerCodesSql},
                                              {&rows.forget_to_, kForgetToSql},
                                              {&rows.changed_, kChangedSql},
                                              {&rows.unseen_, kUnseenSql},
                                              {&rows.codes_end_, kCodesEndSql},
                                              {&rows.codes_, kCodesSql},
                                              {&rows.note_, kNoteSql},
                                              {&rows.delete_changed_, kDeleteChangedSql},
                                              {&rows.reset_, kResetSql},
                                              {&rows.delete_all_, kDeleteAllSql}});
    if (!prepared) {
        return tl::unexpected(std::move(prepared.error()));
    }
    return rows;
}

int UnsentRows::open(bool wanted, int64_t mark_min) {
    if (!wanted) {
        return SQLITE_OK;
    }
    const ResetGuard guard(highest_mark_);
    const int rc = highest_mark_.step();
    if (rc == SQLITE_ROW) {
        mark_ = std::max(highest_mark_.column_int(0) + 1, mark_min);
    }
    return ended(rc);
}

int UnsentRows::note_code(int64_t now_s) {
    if (!mark_) {
        return SQLITE_OK;
    }
    const int64_t start_s = rollup_start_s(now_s, kHour_s);
    ++code_changes_;
    codes_lowest_s_ = std::min(codes_lowest_s_, start_s);
    if (start_s >= codes_known_from_s_) {
        return SQLITE_OK;
    }
    codes_known_from_s_ = start_s;  // or less
    return lower_codes_.bind(1, start_s).run();
}

int UnsentRows::tidy(std::optional<int64_t> forgotten_hour_s) {
    if (mark_) {
        return forgotten_hour_s ? forget_to_.bind(1, *forgotten_hour_s).run() : SQLITE_OK;
    }
    int rc = is_reset_ ? SQLITE_OK : reset_.bind(1, nullptr).run();
    rc = is_reset_ || rc != SQLITE_OK ? rc : delete_all_.run();
    is_reset_ = rc == SQLITE_OK;
    return rc;
}

int UnsentRows::read(Sending& sending) {
    const ResetGuard guard(read_);
    const int rc = read_.step();
    if (rc == SQLITE_ROW) {
        const std::span<const uint8_t> uid = read_.column_blob(0);
        std::copy_n(uid.begin(), std::min(uid.size(), sending.uid.size()), sending.uid.begin());
        sending.batch = static_cast<uint64_t>(read_.column_int(1));
        if (read_.column_int(2) >= 0) {
            sending.resent_to = KeyHourPlace{read_.column_int(2), std::string(read_.column_text(3))};
        }
        sending.codes_from_s = read_.column_int(4);
    }
    return rc == SQLITE_DONE ? SQLITE_CORRUPT : ended(rc);
}

int UnsentRows::take(size_t keys_max, int64_t now_s, UsageBatch& batch) {
    if (!mark_) {
        return SQLITE_OK;
    }
    Sending sending;
    int rc = read(sending);
    batch.uid = sending.uid;
    batch.number = sending.batch;
    batch.reach.mark = (*mark_)++;
    rc = rc == SQLITE_OK ? take_changed(keys_max, batch) : rc;
    if (rc == SQLITE_OK && sending.resent_to && !batch.more) {
        rc = take_unseen(keys_max - batch.keys.size(), *sending.resent_to, batch);
    }
    const int64_t minute_s = rollup_start_s(now_s, kRollupSteps_s[0]);
    if (rc == SQLITE_OK && code_changes_ != code_changes_noted_ && codes_taken_s_ != minute_s) {
        rc = take_codes(sending.codes_from_s, batch);
        codes_taken_s_ = batch.more ? -1 : minute_s;
    }
    return rc;
}

int UnsentRows::take_changed(size_t keys_max, UsageBatch& batch) {
    const ResetGuard guard(changed_);
    size_t rows = 0;
    int rc = changed_.bind(1, static_cast<int64_t>(keys_max)).step();
    for (; rc == SQLITE_ROW; rc = changed_.step(), ++rows) {
        if (changed_.column_int(2) >= 0) {
            batch.keys.push_back(key_hour_of(changed_));
        }
        batch.reach.changed_to = KeyHourPlace{changed_.column_int(0), std::string(changed_.column_text(1))};
    }
    batch.more = rows == keys_max;
    return ended(rc);
}

int UnsentRows::take_unseen(size_t keys_max, const KeyHourPlace& from, UsageBatch& batch) {
    const ResetGuard guard(unseen_);
    const auto limit = static_cast<int64_t>(keys_max);
    size_t rows = 0;
    int rc = unseen_.bind(1, from.start_s).bind(2, from.key_id).bind(3, limit).step();
    for (; rc == SQLITE_ROW; rc = unseen_.step(), ++rows) {
        batch.keys.push_back(key_hour_of(unseen_));
        batch.reach.resent_to = KeyHourPlace{batch.keys.back().start_s, batch.keys.back().key_id};
    }
    batch.more = rows == keys_max;
    batch.reach.resent_all = rows < keys_max;
    return ended(rc);
}

int UnsentRows::take_codes(int64_t from_s, UsageBatch& batch) {
    int64_t end_s = 0;
    {
        const ResetGuard guard(codes_end_);
        const int rc = codes_end_.bind(1, from_s).bind(2, kCodeHoursMax).step();
        if (rc != SQLITE_ROW || codes_end_.column_type(0) == SQLITE_NULL) {
            return ended(rc);
        }
        end_s = codes_end_.column_int(0);
    }
    const ResetGuard guard(codes_);
    int64_t hours = 0;
    int rc = codes_.bind(1, from_s).bind(2, end_s).step();
    for (; rc == SQLITE_ROW; rc = codes_.step()) {
        const int64_t start_s = codes_.column_int(0);
        hours += batch.codes.empty() || batch.codes.back().start_s != start_s ? 1 : 0;
        batch.codes.push_back({start_s, static_cast<uint8_t>(codes_.column_int(1)),
                               static_cast<uint64_t>(codes_.column_int(2))});
    }
    const bool more = hours == kCodeHoursMax;
    batch.more = batch.more || more;
    batch.reach.codes_to_s = end_s;
    batch.reach.code_changes = more ? code_changes_noted_ : code_changes_;
    codes_lowest_s_ = std::numeric_limits<int64_t>::max();
    return ended(rc);
}

int UnsentRows::note_sent(const UsageBatch& batch, uint64_t number) {
    Sending sending;
    int rc = read(sending);
    if (rc != SQLITE_OK || sending.uid != batch.uid || sending.batch != batch.number) {
        return rc;
    }
    const UsageBatch::Reach& reach = batch.reach;
    if (reach.changed_to) {
        rc = delete_changed_.bind(1, reach.changed_to->start_s)
                 .bind(2, reach.changed_to->key_id)
                 .bind(3, reach.mark)
                 .run();
    }
    std::optional<KeyHourPlace> resent_to = reach.resent_to ? reach.resent_to : sending.resent_to;
    int64_t codes_from_s = sending.codes_from_s;
    if (reach.codes_to_s) {
        // The clock may have been set back meanwhile.
        codes_from_s = std::min(*reach.codes_to_s, codes_lowest_s_);
    }
    note_.bind(1, static_cast<int64_t>(number)).bind(4, codes_from_s);
    if (resent_to && !reach.resent_all) {
        note_.bind(2, resent_to->start_s).bind(3, resent_to->key_id);
    } else {
        note_.bind(2, nullptr).bind(3, std::string_view());
    }
    rc = rc == SQLITE_OK ? note_.run() : rc;
    if (rc == SQLITE_OK && reach.codes_to_s) {
        code_changes_noted_ = reach.code_changes;
        codes_known_from_s_ = codes_from_s;
    }
    return rc;
}

int UnsentRows::begin_anew(const UsageBatch& batch, uint64_t number) {
    Sending sending;
    int rc = read(sending);
    if (rc != SQLITE_OK || sending.uid != batch.uid || sending.batch != batch.number) {
        return rc;
    }
    rc = reset_.bind(1, static_cast<int64_t>(number)).run();
    rc = rc == SQLITE_OK ? delete_all_.run() : rc;
    if (rc == SQLITE_OK) {
        code_changes_noted_ = 0;
        codes_known_from_s_ = 0;
        codes_taken_s_ = -1;
    }
    return rc;
}

}  // namespace apikeyd
