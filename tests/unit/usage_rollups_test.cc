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

TEST_F(UsageRollupsTest, AnOlderStoreHasNoneUntilADaemonHasOpenedIt) {
    {
        UsageStore store = open_store(path_);
        count(store, "one", 5, 0, kBegin_s);
    }
    make_version_1(path_);
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
