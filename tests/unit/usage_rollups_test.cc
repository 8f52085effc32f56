// What is kept by minute, hour and day is what was flushed in each, and goes when it is too old.

#include <map>
#include <random>
#include <stdexcept>

#include "usage_fixture.h"

namespace apikeyd::test {
namespace {

constexpr int64_t kBegin_s = 1'700'000'000;  // 14 November 2023, 22:13:20
constexpr int64_t kHour_s = 3600;
constexpr int64_t kDay_s = 86400;

class UsageRollupsTest : public UsageTest {
  protected:
    UsageStore open_to_keep(const Retention& retention) const {
        Result<UsageStore> store = UsageStore::open(path_, retention);
        if (!store) {
            throw std::runtime_error(store.error().message);
        }
        return std::move(*store);
    }
    /// Flushes sums that have grown by so much.
    void count(UsageStore& store, const std::string& id, uint64_t allowed, uint64_t denied, int64_t now_s) {
        const auto [entry, is_new] = sums_.try_emplace(id);
        KeyCount& key = entry->second;
        if (is_new) {
            key.digest = digest_of(sums_.size());
            key.key_id = entry->first;
        }
        key.allowed += allowed;
        key.denied += denied;
        codes_[0] += allowed;
        codes_[4] += denied;
        Generation generation{uid_of(1), {key}, {{0, codes_[0]}, {4, codes_[4]}}};
        flush_one(store, generation, now_s);
    }

    std::vector<KeyRollup> rollups(const RollupQuery& query) const {
        std::vector<KeyRollup> all;
        const auto read =
            open_reader(path_).for_each_rollup(query, [&](const KeyRollup& one) { all.push_back(one); });
        EXPECT_TRUE(read) << read.error().message;
        return all;
    }
    std::vector<KeyRollup> sums(const RollupQuery& query) const {
        std::vector<KeyRollup> all;
        const auto read =
            open_reader(path_).for_each_sum(query, [&](const KeyRollup& one) { all.push_back(one); });
        EXPECT_TRUE(read) << read.error().message;
        return all;
    }
    std::vector<CodeRollup> codes(const RollupQuery& query) const {
        std::vector<CodeRollup> all;
        const auto read = open_reader(path_).for_each_code_rollup(
            query, [&](const CodeRollup& one) { all.push_back(one); });
        EXPECT_TRUE(read) << read.error().message;
        return all;
    }

    std::map<std::string, KeyCount> sums_;
    std::map<uint8_t, uint64_t> codes_;
};

TEST_F(UsageRollupsTest, EachStepHasWhatWasFlushedInIt) {
    struct Count {
        uint64_t allowed = 0;
        uint64_t denied = 0;
    };
    std::map<int64_t, std::map<std::pair<int64_t, std::string>, Count>> model;
    std::mt19937 random(3);
    UsageStore store = open_to_keep({{100 * kDay_s, 100 * kDay_s, 100 * kDay_s}});
    int64_t now_s = kBegin_s;
    for (int i = 0; i < 400; ++i) {
        now_s += static_cast<int64_t>(random() % 1800);
        now_s -= random() % 8 == 0 ? 3 * kHour_s : 0;  // counts of steps whose rows were moved long ago
        const std::string id = "key" + std::to_string(random() % 5);
        const uint64_t allowed = 1 + random() % 9;
        const uint64_t denied = random() % 2;
        count(store, id, allowed, denied, now_s);
        for (const int64_t step_s : kRollupSteps_s) {
            Count& step = model[step_s][{now_s / step_s * step_s, id}];
            step.allowed += allowed;
            step.denied += denied;
        }
    }
    EXPECT_TRUE(times_agree(path_));
    for (const int64_t step_s : kRollupSteps_s) {
        const int64_t middle_s = (kBegin_s + now_s) / 2 / step_s * step_s;
        for (const auto& [since_s, until_s] :
             {std::pair{int64_t{0}, middle_s}, {middle_s, now_s + kDay_s}, {middle_s, middle_s}}) {
            std::vector<KeyRollup> wanted;
            std::vector<KeyRollup> of_one;
            std::map<std::string, KeyRollup> summed;
            for (const auto& [at, one] : model[step_s]) {
                if (at.first >= since_s && at.first < until_s) {
                    wanted.push_back({at.first, at.second, one.allowed, one.denied});
                    KeyRollup& sum =
                        summed.try_emplace(at.second, KeyRollup{since_s, at.second, 0, 0}).first->second;
                    sum.allowed += one.allowed;
                    sum.denied += one.denied;
                    if (at.second == "key3") {
                        of_one.push_back(wanted.back());
                    }
                }
            }
            EXPECT_TRUE(rollups({step_s, since_s, until_s}) == wanted) << step_s;
            EXPECT_TRUE(rollups({step_s, since_s, until_s, "key3"}) == of_one) << step_s;
            std::vector<KeyRollup> wanted_sums;
            for (const auto& [id, sum] : summed) {
                wanted_sums.push_back(sum);
            }
            EXPECT_TRUE(sums({step_s, since_s, until_s}) == wanted_sums) << step_s;
            summed.try_emplace("key3", KeyRollup{since_s, "key3", 0, 0});
            EXPECT_TRUE(sums({step_s, since_s, until_s, "key3"}) == std::vector<KeyRollup>{summed["key3"]})
                << step_s;
        }
    }
}

TEST_F(UsageRollupsTest, CodesOfTheHostByTime) {
    UsageStore store = open_store(path_);
    count(store, "one", 5, 0, kBegin_s);
    count(store, "two", 1, 2, kBegin_s + 30);
    count(store, "two", 0, 1, kBegin_s + 60);
    const int64_t minute_s = rollup_start_s(kBegin_s, 60);
    EXPECT_EQ(codes({60, 0, kBegin_s + kDay_s}),
              (std::vector<CodeRollup>{{minute_s, {0, 6}}, {minute_s, {4, 2}}, {minute_s + 60, {4, 1}}}));
    EXPECT_EQ(codes({kHour_s, 0, kBegin_s + kDay_s}).size(), 2U);
    EXPECT_TRUE(codes({60, 0, minute_s}).empty());
}

TEST_F(UsageRollupsTest, WhatAStretchLacksIsTold) {
    const int64_t begin_s = rollup_start_s(kBegin_s, kDay_s);
    UsageStore store = open_to_keep({{2 * kHour_s, kDay_s, 3 * kDay_s}});
    EXPECT_EQ(open_reader(path_).kept({60, 0, begin_s}).value().first_s, std::nullopt);
    for (int64_t hour = 0; hour < 2 * 24; ++hour) {
        count(store, "one", 1, 1, begin_s + hour * kHour_s);
    }
    UsageReader reader = open_reader(path_);
    const int64_t end_s = begin_s + 2 * kDay_s;
    const auto lost = [&](int64_t step_s, int64_t since_s) {
        return reader.kept({step_s, since_s, end_s}).value().lost;
    };
    EXPECT_EQ(reader.kept({kHour_s, 0, end_s}).value().first_s, end_s - kDay_s - kHour_s);
    EXPECT_TRUE(lost(60, begin_s));
    EXPECT_TRUE(lost(kHour_s, begin_s));
    EXPECT_FALSE(lost(kHour_s, end_s - kDay_s)) << "of that day all hours are there";
    EXPECT_FALSE(lost(kDay_s, 0));
    count(store, "one", 1, 1, end_s + 3 * kDay_s);
    EXPECT_TRUE(lost(kDay_s, 0));
}

TEST_F(UsageRollupsTest, WhatIsOlderThanIsKeptGoesAStepAtATime) {
    UsageStore store = open_to_keep({{2 * kHour_s, 2 * kDay_s, 5 * kDay_s}});
    const int64_t begin_s = rollup_start_s(kBegin_s, kDay_s);
    for (int64_t hour = 0; hour < 8 * 24; ++hour) {
        count(store, "one", 1, 1, begin_s + hour * kHour_s);
    }
    const int64_t end_s = begin_s + 8 * kDay_s;
    const auto kept = [&](int64_t step_s) { return rollups({step_s, 0, end_s}); };
    EXPECT_EQ(kept(60).size(), 3U) << "of the last two hours, and the one under way";
    EXPECT_EQ(kept(kHour_s).size(), 49U);
    EXPECT_EQ(kept(kDay_s).size(), 6U);
    EXPECT_EQ(kept(60).back().start_s, end_s - kHour_s);
    EXPECT_EQ(codes({kDay_s, 0, end_s}).size(), 12U);
    EXPECT_EQ(open_reader(path_).total("one").value(), (KeyTotal{"one", 192, 192, end_s - kHour_s}));
    // A pause leaves many that are too old; each flush takes one.
    count(store, "one", 1, 1, end_s + 10 * kDay_s);
    EXPECT_EQ(rollups({kDay_s, 0, end_s + 20 * kDay_s}).size(), 6U);
    count(store, "one", 1, 1, end_s + 10 * kDay_s);
    EXPECT_EQ(rollups({kDay_s, 0, end_s + 20 * kDay_s}).size(), 5U);
}

/// A store with more keys than a flush moves rows of, and all that can be read of it.
class UsageRecentTest : public UsageRollupsTest {
  protected:
    static constexpr uint64_t kKeys = 20'000;

    void SetUp() override {
        UsageRollupsTest::SetUp();
        for (uint64_t i = 0; i < kKeys; ++i) {
            ids_.push_back("key" + std::to_string(i * 7919 % kKeys));
        }
    }
    /// One more of each key from `first` on, of so many.
    void count_keys(UsageStore& store, uint64_t first, uint64_t keys, int64_t now_s) {
        Generation generation{uid_of(1), {}, {}};
        for (uint64_t i = first; i < first + keys; ++i) {
            generation.keys.push_back({digest_of(i), ids_[i], ++counted_[i], 0});
        }
        generation.codes.push_back({0, valid_ += keys});
        flush_one(store, generation, now_s);
    }
    [[nodiscard]] int64_t recent() const { return query_int(path_, "SELECT count(*) FROM recent"); }

    struct Seen {
        Recorded totals;
        std::vector<std::vector<KeyRollup>> rollups;
        friend bool operator==(const Seen&, const Seen&) = default;
    };
    [[nodiscard]] Seen see() const {
        Seen seen{recorded(path_), {}};
        for (const int64_t step_s : kRollupSteps_s) {
            const int64_t end_s = rollup_start_s(kBegin_s, kDay_s) + 2 * kDay_s;
            const RollupQuery all{step_s, 0, end_s};
            const RollupQuery one{step_s, 0, end_s, ids_[17]};
            for (std::vector<KeyRollup> rows : {rollups(all), rollups(one), sums(all), sums(one)}) {
                seen.rollups.push_back(std::move(rows));
            }
            const KeptSteps kept = open_reader(path_).kept(all).value();
            seen.rollups.push_back({{kept.first_s.value_or(-1), "", kept.lost ? 1U : 0U, 0}});
        }
        EXPECT_EQ(open_reader(path_).total(ids_[17]).value()->allowed, counted_.at(17));
        return seen;
    }

    std::vector<std::string> ids_;
    std::map<uint64_t, uint64_t> counted_;
    uint64_t valid_ = 0;
};

TEST_F(UsageRecentTest, NothingThatIsReadChangesWhenRowsMove) {
    const int64_t begin_s = rollup_start_s(kBegin_s, kHour_s);
    UsageStore store = open_store(path_);
    count_keys(store, 0, 100, begin_s - 120);
    count_keys(store, 50, 100, begin_s - 60);
    count_keys(store, 0, kKeys, begin_s);
    count_keys(store, 10, 20, begin_s + 5);
    const Seen before = see();
    EXPECT_TRUE(times_agree(path_));
    std::vector<int64_t> rows = {recent()};
    ASSERT_EQ(rows[0], static_cast<int64_t>(kKeys));
    while (rows.back() != 0 && rows.size() < 10) {
        ASSERT_TRUE(store.flush({}, begin_s + 60));
        rows.push_back(recent());
        EXPECT_TRUE(see() == before) << "with " << rows.back() << " rows left";
    }
    EXPECT_EQ(rows.size(), 4U) << "three steps";
    EXPECT_EQ(rows.back(), 0);
    // A clock that was set back brings more to hours that were moved.
    count_keys(store, 17, 1, begin_s - 30);
    EXPECT_EQ(rollups({60, begin_s - 60, begin_s, ids_[17]}).size(), 1U);
    EXPECT_EQ(rollups({kHour_s, begin_s - kHour_s, begin_s, ids_[17]}).at(0).allowed, 2U);
    const Seen later = see();
    ASSERT_TRUE(store.flush({}, begin_s));
    EXPECT_EQ(recent(), 0);
    EXPECT_TRUE(see() == later);
    EXPECT_TRUE(times_agree(path_));
}

TEST_F(UsageRecentTest, MovingKeepsPaceWithFlushes) {
    UsageStore store = open_store(path_);
    const int64_t begin_s = rollup_start_s(kBegin_s, 60);
    constexpr uint64_t kInMinute = kKeys;
    int64_t most = 0;
    for (int64_t minute = 0; minute < 6; ++minute) {
        for (int64_t flush = 0; flush < 2; ++flush) {
            count_keys(store, static_cast<uint64_t>(flush) * kInMinute / 2, kInMinute / 2,
                       begin_s + 60 * minute + 30 * flush);
        }
        most = std::max(most, recent());
    }
    EXPECT_LE(most, static_cast<int64_t>(kInMinute)) << "no row of an earlier minute is left";
    EXPECT_TRUE(times_agree(path_));
}

TEST_F(UsageRecentTest, ARestartGoesOnInTheMiddleOfTheMoves) {
    const int64_t begin_s = rollup_start_s(kBegin_s, kHour_s);
    {
        UsageStore store = open_store(path_);
        count_keys(store, 0, kKeys, begin_s);
        ASSERT_TRUE(store.flush({}, begin_s + 60));
    }
    ASSERT_GT(recent(), 0);
    ASSERT_LT(recent(), static_cast<int64_t>(kKeys));
    UsageStore store = open_store(path_);
    const Seen before = see();
    Generation same{uid_of(1), {}, {{0, valid_}}};
    for (uint64_t i = 0; i < kKeys; ++i) {
        same.keys.push_back({digest_of(i), ids_[i], counted_[i], 0});
    }
    const FlushSummary summary = flush_one(store, same, begin_s + 61);
    EXPECT_EQ(summary.keys_changed + summary.quarantined, 0U) << "baselines are in both places";
    EXPECT_TRUE(see() == before);
    ASSERT_TRUE(store.forget(uid_of(1)));
    EXPECT_EQ(recent(), 0);
    EXPECT_TRUE(see() == before);
}

// Of the version before: its rows are whole, and what comes is added to them.
TEST_F(UsageRecentTest, AStoreWithoutRecentRowsIsReadAndGoesOn) {
    const int64_t begin_s = rollup_start_s(kBegin_s, kHour_s);
    {
        UsageStore store = open_store(path_);
        count_keys(store, 0, 100, begin_s);
    }
    const Seen before = see();
    make_version(3, path_);
    EXPECT_TRUE(see() == before) << "as it is";
    UsageStore store = open_store(path_);
    EXPECT_TRUE(see() == before) << "brought up";
    count_keys(store, 0, 100, begin_s + 30);
    const auto sums_of_17 = [&] { return rollups({60, begin_s, begin_s + 60, ids_[17]}); };
    EXPECT_EQ(sums_of_17(), (std::vector<KeyRollup>{{begin_s, ids_[17], 2, 0}}));
    ASSERT_TRUE(store.flush({}, begin_s + 60));
    EXPECT_EQ(recent(), 0);
    EXPECT_EQ(sums_of_17(), (std::vector<KeyRollup>{{begin_s, ids_[17], 2, 0}}));
    EXPECT_TRUE(times_agree(path_));
}

TEST_F(UsageRollupsTest, AnOlderStoreHasNoneUntilADaemonHasOpenedIt) {
    {
        UsageStore store = open_store(path_);
        count(store, "one", 5, 0, kBegin_s);
    }
    make_version(1, path_);
    const auto read = open_reader(path_).for_each_rollup({60, 0, kBegin_s + 60}, [](const KeyRollup&) {});
    ASSERT_FALSE(read);
    EXPECT_NE(read.error().message.find(path_), std::string::npos);
    EXPECT_NE(read.error().message.find("has no counts by time"), std::string::npos) << read.error().message;
    UsageStore store = open_store(path_);
    count(store, "one", 2, 0, kBegin_s);
    EXPECT_EQ(rollups({60, 0, kBegin_s + 60}),
              (std::vector<KeyRollup>{{rollup_start_s(kBegin_s, 60), "one", 2, 0}}));
}

}  // namespace
}  // namespace apikeyd::test
