// Promise: what top shows as a rate is what was counted between two looks, whatever became of the table
// meanwhile: never negative, never absurd.

#include "tools/top/model.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "apikey/apikey.h"

namespace apikeyd::top {
namespace {

Look look(uint64_t at_s, uint32_t current, std::vector<GenerationCounts> generations) {
    Look look;
    look.attached = apikey::shm::AttachResult::kOk;
    look.monotonic_ns = at_s * 1'000'000'000;
    look.health.generation = current;
    for (const GenerationCounts& one : generations) {
        look.newest = std::max(look.newest, one.number);
    }
    look.generations = std::move(generations);
    return look;
}

TEST(TopModel, ARateIsWhatWasCountedBetweenTwoLooks) {
    const CodeRates rates = rates_between(look(10, 7, {{7, {100, 5}}}), look(12, 7, {{7, {160, 5, 0, 8}}}));
    EXPECT_EQ(rates.note, RateNote::kNone);
    EXPECT_DOUBLE_EQ(rates.seconds, 2);
    EXPECT_DOUBLE_EQ(rates.by_code[0], 30);
    EXPECT_DOUBLE_EQ(rates.by_code[1], 0);
    EXPECT_DOUBLE_EQ(rates.by_code[3], 4);
    EXPECT_DOUBLE_EQ(rates.total, 34);
}

TEST(TopModel, ShadowCodesAreNoAnswersOfTheirOwn) {
    GenerationCounts counts{7, {10}};
    counts.codes[APIKEY_SHADOW_RATE_LIMITED] = 10;
    const CodeRates rates = rates_between(look(10, 7, {{7, {}}}), look(11, 7, {counts}));
    EXPECT_DOUBLE_EQ(rates.by_code[APIKEY_SHADOW_RATE_LIMITED], 10);
    EXPECT_DOUBLE_EQ(rates.total, 10);
}

TEST(TopModel, TheFirstLookHasNoRates) {
    EXPECT_EQ(rates_between(std::nullopt, look(10, 7, {{7, {100}}})).note, RateNote::kFirst);
    EXPECT_EQ(rates_between(std::nullopt, look(10, 7, {{7, {100}}})).total, 0);
}

TEST(TopModel, ANewGenerationCountsFromZeroAndTheOldOneOn) {
    const CodeRates rates = rates_between(look(10, 7, {{7, {100}}}), look(12, 8, {{7, {110}}, {8, {30}}}));
    EXPECT_EQ(rates.note, RateNote::kGeneration);
    EXPECT_DOUBLE_EQ(rates.total, 20);
}

TEST(TopModel, AGenerationThatWasThereUnreadCountsNothingYet) {
    Look before = look(10, 7, {{7, {100}}});
    before.newest = 8;
    EXPECT_DOUBLE_EQ(rates_between(before, look(12, 7, {{7, {100}}, {8, {5000}}})).total, 0);
}

TEST(TopModel, AGenerationThatIsGoneTakesNothingAway) {
    const CodeRates rates = rates_between(look(10, 8, {{7, {1000}}, {8, {10}}}), look(11, 8, {{8, {15}}}));
    EXPECT_DOUBLE_EQ(rates.total, 5);
}

TEST(TopModel, AnotherInstanceBeginsAnew) {
    Look other = look(12, 9, {{9, {50}}});
    other.instance[3] = 1;
    const CodeRates rates = rates_between(look(10, 7, {{7, {100}}}), other);
    EXPECT_EQ(rates.note, RateNote::kReplaced);
    EXPECT_DOUBLE_EQ(rates.seconds, 0);
    EXPECT_DOUBLE_EQ(rates.total, 0);
    Look away = look(10, 7, {});
    away.attached = apikey::shm::AttachResult::kWaiting;
    EXPECT_EQ(rates_between(away, look(12, 7, {{7, {100}}})).note, RateNote::kReplaced);
}

TEST(TopModel, ScribbledCountersMakeNoAbsurdRate) {
    const CodeRates rates =
        rates_between(look(10, 7, {{7, {100, 100}}}), look(11, 7, {{7, {5, UINT64_MAX, 3}}}));
    EXPECT_DOUBLE_EQ(rates.by_code[0], 0);
    EXPECT_DOUBLE_EQ(rates.by_code[1], 0);
    EXPECT_DOUBLE_EQ(rates.total, 3);
}

TEST(TopModel, AKeyInTwoGenerationsIsOneAndTheBusiestStandFirst) {
    std::vector<KeyRate> keys = {
        {"b", "", "", "", 1, 0}, {"a", "", "", "", 2, 3}, {"b", "", "", "", 5, 1}, {"c", "", "", "", 0, 4}};
    std::vector<KeyRate> by_denied = keys;
    keep_busiest(&keys, Sort::kTotal, 2);
    ASSERT_EQ(keys.size(), 2u);
    EXPECT_EQ(keys[0].id, "b");
    EXPECT_DOUBLE_EQ(keys[0].allowed, 6);
    EXPECT_EQ(keys[1].id, "a");
    keep_busiest(&by_denied, Sort::kDenied, 10);
    EXPECT_EQ(by_denied[0].id, "c");
}

TEST(TopModel, TheWalkTakesItsShareOfTheCpuAndNoMore) {
    WalkPace pace;
    EXPECT_TRUE(pace.due(0));
    pace.walked(1'000'000'000, 100'000'000);  // 100 ms: 2% of 5 s
    EXPECT_FALSE(pace.due(5'999'999'999));
    EXPECT_TRUE(pace.due(6'000'000'000));
}

TEST(TopModel, ADaemonThatBeatsNoMoreIsSilent) {
    Look at = look(10, 7, {});
    at.realtime_ns = 100'000'000'000;
    at.health.heartbeat_ns = 99'000'000'000;
    at.health.state = apikey::shm::ControlState::kServing;
    EXPECT_STREQ(daemon_word(at), "serving");
    at.realtime_ns += 20'000'000'000;
    EXPECT_STREQ(daemon_word(at), "silent");
    at.health.state = apikey::shm::ControlState::kStopped;
    EXPECT_STREQ(daemon_word(at), "stopped");
}

TEST(TopModel, MappingsAreReadLocksOnTheTable) {
    const std::string locks =
        "1: OFDLCK ADVISORY  READ -1 00:19:1234 0 EOF\n"
        "2: OFDLCK ADVISORY  READ -1 00:19:1234 0 EOF\n"
        "3: OFDLCK ADVISORY  WRITE -1 00:19:1234 0 EOF\n"
        "4: OFDLCK ADVISORY  READ -1 00:19:12345 0 EOF\n"
        "5: POSIX  ADVISORY  READ 77 00:19:1234 0 EOF\n"
        "5: -> OFDLCK ADVISORY  READ -1 00:19:1234 0 EOF\n";
    EXPECT_EQ(count_mappings(locks, 0x19, 1234), 2u);
    EXPECT_EQ(count_mappings("", 0x19, 1234), 0u);
}

}  // namespace
}  // namespace apikeyd::top
