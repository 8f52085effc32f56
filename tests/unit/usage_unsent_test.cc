// What is sent of the usage store to the database of a fleet: in the end that has the same sums by the hour,
// whatever fails, ends or is put back on the way.

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <stdexcept>

#include "usage_fixture.h"

namespace apikeyd::test {
namespace {

constexpr int64_t kBegin_s = 1'700'000'000;  // 14 November 2023, 22:13:20
constexpr int64_t kHour_s = 3600;
constexpr int64_t kMinute_s = 60;

using Sums = std::map<std::string, std::vector<uint64_t>>;

/// What keeps the batches, as apikeyd.send_usage() does.
struct Fleet {
    uint64_t number = 0;
    Sums sums;

    /// The number that it has then. Nothing is taken where it knows of other batches.
    uint64_t take(const UsageBatch& batch) {
        if (number == batch.number || number == batch.number + 1) {
            std::set<std::pair<int64_t, std::string>> once;
            for (const KeyHour& one : batch.keys) {
                EXPECT_TRUE(once.emplace(one.start_s, one.key_id).second) << "a row twice in a statement";
                sums[std::to_string(one.start_s) + " " + one.key_id] = {one.allowed, one.denied};
            }
            for (const CodeHour& one : batch.codes) {
                sums[std::to_string(one.start_s) + " code " + std::to_string(one.code)] = {one.total};
            }
            ++number;
        } else {
            number = std::max(number, batch.number) + 3;
        }
        return number;
    }
};

class UsageUnsentTest : public UsageTest {
  protected:
    UsageStore open_sending(bool sends = true, const Retention& retention = {}) const {
        Result<UsageStore> store = UsageStore::open(path_, retention, sends);
        if (!store) {
            throw std::runtime_error(store.error().message);
        }
        return std::move(*store);
    }
    /// Flushes sums that have grown by so much.
    void count(UsageStore& store, const std::string& id, uint64_t allowed, uint64_t denied, int64_t now_s) {
        const auto [entry, is_new] = keys_.try_emplace(id);
        KeyCount& key = entry->second;
        if (is_new) {
            key.digest = digest_of(keys_.size());
            key.key_id = entry->first;
        }
        key.allowed += allowed;
        key.denied += denied;
        codes_[0] += allowed;
        codes_[4] += denied;
        flush_one(store, {uid_of(1), {key}, {{0, codes_[0]}, {4, codes_[4]}}}, now_s);
    }
    /// As flushes of later minutes do where nothing is counted any more.
    static void fold(UsageStore& store, int64_t now_s) { flush_one(store, {uid_of(1), {}, {}}, now_s); }
    static UsageBatch unsent(UsageStore& store, int64_t now_s, size_t keys_max = 1000) {
        const Result<UsageBatch> batch = store.unsent(keys_max, now_s);
        if (!batch) {
            throw std::runtime_error(batch.error().message);
        }
        return *batch;
    }
    /// Everything, in batches of so many keys.
    static void send(UsageStore& store, Fleet& fleet, int64_t now_s, size_t keys_max = 1000) {
        for (int tries = 0;; ++tries) {
            ASSERT_LT(tries, 1000) << "it never ends";
            const UsageBatch batch = unsent(store, now_s, keys_max);
            if (batch.is_empty()) {
                return;
            }
            EXPECT_LE(batch.keys.size(), keys_max);
            const uint64_t number = fleet.take(batch);
            const Result<void> noted =
                batch.was_taken(number) ? store.note_sent(batch, number) : store.send_anew(batch, number);
            ASSERT_TRUE(noted) << noted.error().message;
        }
    }
    /// What the store has by the hour, but for recent rows.
    Sums kept() const {
        Sums sums;
        for (const std::string& row : query_texts(
                 path_,
                 "SELECT start_s || ' ' || key_id || '/' || allowed || '/' || denied "
                 "FROM key_rollups WHERE step_s = 3600 UNION ALL SELECT start_s || ' code ' || code || "
                 "'/' || total FROM code_rollups WHERE step_s = 3600")) {
            const size_t first = row.find('/');
            const size_t second = row.find('/', first + 1);
            std::vector<uint64_t>& counts = sums[row.substr(0, first)];
            counts.push_back(std::stoull(row.substr(first + 1)));
            if (second != std::string::npos) {
                counts.push_back(std::stoull(row.substr(second + 1)));
            }
        }
        return sums;
    }

    std::map<std::string, KeyCount> keys_;
    std::map<uint8_t, uint64_t> codes_;
};

TEST_F(UsageUnsentTest, WhatChangedIsSentOnceAndAgainWhenItChanges) {
    UsageStore store = open_sending();
    Fleet fleet;
    count(store, "a", 5, 1, kBegin_s);
    count(store, "b", 2, 0, kBegin_s + kMinute_s);
    send(store, fleet, kBegin_s + kMinute_s);
    EXPECT_EQ(fleet.sums, kept());
    EXPECT_TRUE(unsent(store, kBegin_s + 2 * kMinute_s).is_empty())
        << "b's row is recent, and no code changed";
    count(store, "a", 1, 0, kBegin_s + 2 * kMinute_s);
    fold(store, kBegin_s + 3 * kMinute_s);
    const UsageBatch batch = unsent(store, kBegin_s + 3 * kMinute_s);
    const int64_t hour_s = rollup_start_s(kBegin_s, kHour_s);
    EXPECT_EQ(batch.keys, (std::vector<KeyHour>{{hour_s, "a", 6, 1}, {hour_s, "b", 2, 0}})) << "whole sums";
    EXPECT_EQ(batch.codes, (std::vector<CodeHour>{{hour_s, 0, 8}, {hour_s, 4, 1}}));
    send(store, fleet, kBegin_s + 4 * kMinute_s);
    EXPECT_EQ(fleet.sums, kept());
    EXPECT_TRUE(unsent(store, kBegin_s + 5 * kMinute_s).is_empty());
}

TEST_F(UsageUnsentTest, WhatChangesBetweenABatchAndItsNoteIsStillUnsent) {
    UsageStore store = open_sending();
    Fleet fleet;
    count(store, "a", 5, 1, kBegin_s);
    count(store, "b", 5, 1, kBegin_s);
    fold(store, kBegin_s + kMinute_s);
    const UsageBatch batch = unsent(store, kBegin_s + kMinute_s);
    count(store, "a", 1, 1, kBegin_s + kMinute_s);
    fold(store, kBegin_s + 2 * kMinute_s);
    ASSERT_EQ(fleet.take(batch), 1U);
    ASSERT_TRUE(store.note_sent(batch, 1));
    send(store, fleet, kBegin_s + 2 * kMinute_s);
    EXPECT_EQ(fleet.sums, kept());
}

TEST_F(UsageUnsentTest, ANoteThatWasLostChangesNothing) {
    Fleet fleet;
    {
        UsageStore store = open_sending();
        count(store, "a", 5, 1, kBegin_s);
        fold(store, kBegin_s + kMinute_s);
        fleet.take(unsent(store, kBegin_s + kMinute_s));
    }
    EXPECT_EQ(fleet.sums, kept());
    UsageStore store = open_sending();
    const UsageBatch again = unsent(store, kBegin_s + kMinute_s);
    EXPECT_EQ(again.keys.size(), 1U);
    EXPECT_EQ(fleet.take(again), 2U);
    EXPECT_EQ(fleet.sums, kept());
    ASSERT_TRUE(store.note_sent(again, 2));
    ASSERT_TRUE(store.note_sent(again, 3)) << "a second time it is none of this number";
    EXPECT_EQ(query_int(path_, "SELECT batch FROM sending"), 2);
}

TEST_F(UsageUnsentTest, AllIsSentToADatabaseThatLacksWhatWasNoted) {
    UsageStore store = open_sending();
    Fleet fleet;
    int64_t now_s = kBegin_s;
    for (int hour = 0; hour < 250; ++hour, now_s += kHour_s) {
        count(store, "a", 1, 1, now_s);
        count(store, "b", 1, 0, now_s);
        fold(store, now_s + kMinute_s);
        send(store, fleet, now_s + kMinute_s);
    }
    ASSERT_EQ(fleet.sums, kept());
    Fleet other;
    count(store, "c", 1, 0, now_s);
    fold(store, now_s + kMinute_s);
    send(store, other, now_s + kMinute_s, 7);
    EXPECT_EQ(other.sums, kept());
    EXPECT_EQ(other.number, static_cast<uint64_t>(query_int(path_, "SELECT batch FROM sending")));
}

TEST_F(UsageUnsentTest, AStoreThatSentToNobodySendsAllOnceItShall) {
    Fleet fleet;
    {
        UsageStore store = open_sending();
        count(store, "a", 1, 1, kBegin_s);
        fold(store, kBegin_s + kMinute_s);
        send(store, fleet, kBegin_s + kMinute_s);
    }
    {
        UsageStore store = open_sending(false);
        count(store, "b", 1, 1, kBegin_s + kHour_s);
        fold(store, kBegin_s + 2 * kHour_s);
        EXPECT_TRUE(unsent(store, kBegin_s + 2 * kHour_s).is_empty());
    }
    EXPECT_EQ(query_int(path_, "SELECT count(*) FROM unsent"), 0);
    UsageStore store = open_sending();
    send(store, fleet, kBegin_s + 3 * kHour_s);
    EXPECT_EQ(fleet.sums, kept());
}

TEST_F(UsageUnsentTest, AStoreOfAnEarlierVersionSendsWhatItHas) {
    {
        UsageStore store = open_sending();
        count(store, "a", 1, 1, kBegin_s);
    }
    make_version(3, path_);
    UsageStore store = open_sending();
    Fleet fleet;
    send(store, fleet, kBegin_s + kHour_s);
    EXPECT_EQ(fleet.sums, kept());
    EXPECT_EQ(fleet.sums.size(), 3U);
}

TEST_F(UsageUnsentTest, StoresAreNotTheSame) {
    const auto uid = [&] { return query_texts(path_, "SELECT hex(uid) FROM sending").at(0); };
    { open_sending(); }
    const std::string first = uid();
    { open_sending(false); }
    EXPECT_EQ(uid(), first) << "it stays";
    std::filesystem::remove(path_);
    { open_sending(); }
    EXPECT_NE(uid(), first);
}

TEST_F(UsageUnsentTest, WhatIsForgottenIsNotWaitedFor) {
    Retention retention;
    retention.kept_s[1] = 2 * kHour_s;
    UsageStore store = open_sending(true, retention);
    for (int64_t now_s = kBegin_s; now_s < kBegin_s + 20 * kHour_s; now_s += kHour_s) {
        count(store, "a", 1, 0, now_s);
        fold(store, now_s + kMinute_s);
    }
    EXPECT_LE(query_int(path_, "SELECT count(*) FROM unsent"), 3);
    Fleet fleet;
    send(store, fleet, kBegin_s + 20 * kHour_s);
    EXPECT_EQ(fleet.sums, kept());
}

TEST_F(UsageUnsentTest, AClockThatIsAheadForAFlushForgetsNoHourThatIsKept) {
    Retention retention;
    retention.kept_s[1] = 10 * kHour_s;
    UsageStore store = open_sending(true, retention);
    Fleet fleet;
    count(store, "a", 1, 0, kBegin_s);
    send(store, fleet, kBegin_s + kMinute_s);  // from here on it is marked what is to be sent
    for (int64_t hour = 1; hour < 5; ++hour) {
        count(store, "a", 1, 0, kBegin_s + hour * kHour_s);
    }
    fold(store, kBegin_s + 5 * kHour_s);
    const Sums before = kept();
    fold(store, kBegin_s + 1000 * kHour_s);
    const Sums after = kept();
    ASSERT_LT(after.size(), before.size()) << "one hour a flush is forgotten";
    send(store, fleet, kBegin_s + 5 * kHour_s);
    for (const auto& [what, sums] : after) {
        EXPECT_EQ(fleet.sums[what], sums) << what;
    }
    EXPECT_GT(after.size(), 3U);
}

TEST_F(UsageUnsentTest, MarksGoOnWhereTheStoreIsOpenedOnceMore) {
    UsageStore store = open_sending();
    Fleet fleet;
    count(store, "a", 5, 1, kBegin_s);
    send(store, fleet, kBegin_s + kMinute_s);
    count(store, "a", 1, 0, kBegin_s + 2 * kMinute_s);
    fold(store, kBegin_s + 3 * kMinute_s);
    for (int i = 0; i < 5; ++i) {
        unsent(store, kBegin_s + 3 * kMinute_s);  // what is marked from then on has a higher mark
    }
    const UsageBatch batch = unsent(store, kBegin_s + 3 * kMinute_s);
    const std::string copy = path_ + ".copy";
    execute(path_, "VACUUM INTO '" + copy + "'");
    std::filesystem::rename(copy, path_);
    count(store, "a", 1, 0, kBegin_s + 4 * kMinute_s);
    fold(store, kBegin_s + 5 * kMinute_s);
    ASSERT_TRUE(store.note_sent(batch, fleet.take(batch)));
    send(store, fleet, kBegin_s + 6 * kMinute_s);
    EXPECT_EQ(fleet.sums, kept());
}

// A batch for one store, and another stands under its name when it is noted.
TEST_F(UsageUnsentTest, ANoteIsForTheStoreOfTheBatch) {
    UsageStore store = open_sending();
    count(store, "a", 1, 0, kBegin_s);
    fold(store, kBegin_s + kMinute_s);
    const UsageBatch batch = unsent(store, kBegin_s + kMinute_s);
    std::filesystem::remove(path_);
    count(store, "a", 1, 0, kBegin_s + kMinute_s);
    fold(store, kBegin_s + 2 * kMinute_s);
    ASSERT_TRUE(store.note_sent(batch, 1));
    ASSERT_TRUE(store.send_anew(batch, 77));
    EXPECT_EQ(query_int(path_, "SELECT batch FROM sending"), 0);
    Fleet fleet;
    send(store, fleet, kBegin_s + 3 * kMinute_s);
    EXPECT_EQ(fleet.sums, kept());
}

TEST_F(UsageUnsentTest, WhateverHappensTheSumsBecomeTheSame) {
    for (uint32_t seed = 1; seed <= 12; ++seed) {
        SCOPED_TRACE(seed);
        std::filesystem::remove(path_);
        keys_.clear();
        codes_.clear();
        std::minstd_rand random(seed);
        const auto one_of = [&](uint32_t count) { return random() / 7 % count; };
        Fleet fleet;
        Fleet copy;
        UsageStore store = open_sending();
        int64_t now_s = kBegin_s;
        for (int step = 0; step < 150; ++step) {
            now_s += one_of(4) == 0 ? static_cast<int64_t>(one_of(5000)) - 1000 : one_of(90);
            switch (one_of(12)) {
                case 0: {  // the end, before it is sent
                    (void)unsent(store, now_s, 3);
                    store = open_store(directory_ / "elsewhere.db");  // or the name is still locked
                    store = open_sending();
                    break;
                }
                case 1:  // sent, not noted
                    fleet.take(unsent(store, now_s, 3));
                    break;
                case 2: {  // sent and noted, with counts between
                    const UsageBatch batch = unsent(store, now_s, 3);
                    count(store, std::string(1, static_cast<char>('a' + one_of(6))), 1, 1, now_s);
                    fold(store, now_s + kMinute_s);
                    const uint64_t number = fleet.take(batch);
                    ASSERT_TRUE(batch.was_taken(number) ? store.note_sent(batch, number)
                                                        : store.send_anew(batch, number));
                    break;
                }
                case 3:
                    copy = fleet;
                    break;
                case 4:  // a copy of the database is put back
                    fleet = one_of(4) == 0 ? copy : fleet;
                    break;
                default:
                    count(store, std::string(1, static_cast<char>('a' + one_of(6))), one_of(3), one_of(3),
                          now_s);
            }
        }
        now_s += kHour_s;
        fold(store, now_s);
        fold(store, now_s + kMinute_s);
        // One more count tells a database that was put back since.
        count(store, "a", 1, 0, now_s + kMinute_s);
        fold(store, now_s + 2 * kMinute_s);
        fold(store, now_s + 3 * kMinute_s);
        send(store, fleet, now_s + 3 * kMinute_s, 3);
        send(store, fleet, now_s + 4 * kMinute_s, 3);
        const Sums wanted = kept();
        for (const auto& [what, counts] : wanted) {
            EXPECT_EQ(fleet.sums[what], counts) << what;
        }
        ASSERT_EQ(fleet.sums.size(), wanted.size());
    }
}

}  // namespace
}  // namespace apikeyd::test
