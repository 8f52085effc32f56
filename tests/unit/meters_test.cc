// Meter words: rates and quotas against a slow, obvious bookkeeping, whatever the clock does.

#include "shm/meters.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace apikey::shm {
namespace {

constexpr uint64_t kTag = RateWord::kTagFirst + 7;  // one of a quota, too

/// Takes with a clock that stands where the caller's look at it was.
Taken take(Word& word, const Rate& rate, uint32_t cost, uint64_t now, RateTaking* taking) {
    return take_rate(
        word, rate, cost, now, [now] { return now; }, taking);
}
Taken take(Word& word, const Quota& quota, uint32_t cost, uint64_t period, QuotaTaking* taking) {
    return take_quota(
        word, quota, cost, period, [period] { return period; }, taking);
}

/// A token bucket by the book, in units of time.
struct Bucket {
    uint64_t window;
    uint64_t full_at = 0;

    bool take(uint64_t need, uint64_t now) {
        const uint64_t from = std::max(full_at, now);
        if (from - now + need > window) {
            return false;
        }
        full_at = from + need;
        return true;
    }
};

TEST(Meters, ARateIsATokenBucket) {
    std::mt19937_64 random(1);
    for (int round = 0; round < 200; ++round) {
        const uint64_t interval = 1 + random() % 1'000'000;
        const uint64_t burst = 1 + random() % 50;
        const Rate rate{kTag, interval, burst * interval};
        Bucket bucket{rate.window};
        Word word{0};
        uint64_t now = random() >> 9;
        bucket.full_at = now;
        for (int step = 0; step < 500; ++step) {
            now += random() % 3 == 0 ? 0 : random() % (2 * interval);
            const auto cost = static_cast<uint32_t>(1 + random() % (burst + 1));
            RateTaking taking;
            const Taken taken = take(word, rate, cost, now, &taking);
            ASSERT_EQ(taken == Taken::kYes, bucket.take(cost * interval, now)) << "step " << step;
            ASSERT_EQ(taking.ahead, bucket.full_at > now ? bucket.full_at - now : 0);
        }
    }
}

TEST(Meters, ARateNeverPassesMoreThanItsBurstAndWhatTimeAllows) {
    const Rate rate{kTag, 100, 1000};
    Word word{0};
    std::vector<uint64_t> passed;
    std::mt19937_64 random(2);
    for (uint64_t now = 1'000'000; now < 1'100'000; now += random() % 40) {
        RateTaking taking;
        if (take(word, rate, 1, now, &taking) == Taken::kYes) {
            passed.push_back(now);
        }
    }
    ASSERT_GT(passed.size(), 900u);
    for (size_t from = 0; from < passed.size(); ++from) {
        for (size_t to = from; to < passed.size(); ++to) {
            ASSERT_LE(to - from + 1, 10 + (passed[to] - passed[from]) / 100);
        }
    }
}

TEST(Meters, ACostThatNeverFitsIsRefusedAndTakesNothing) {
    const Rate rate{kTag, uint64_t{1} << 50, uint64_t{1} << 50};
    Word word{0};
    RateTaking taking;
    EXPECT_EQ(take(word, rate, UINT32_MAX, 1000, &taking), Taken::kNo);  // the product does not fit 64 bits
    EXPECT_EQ(word.load(), 0u);
    EXPECT_EQ(take(word, rate, 2, 1000, &taking), Taken::kNo);
    EXPECT_EQ(take(word, rate, 1, 1000, &taking), Taken::kYes);
}

TEST(Meters, AHaltedTakersOldTimeGivesNothingBack) {
    const Rate rate{kTag, 100, 1000};
    Word word{0};
    RateTaking taking;
    const uint64_t now = 1'000'000;
    for (int i = 0; i < 10; ++i) {
        ASSERT_EQ(take(word, rate, 1, now, &taking), Taken::kYes);
    }
    // It looked at the clock long ago, and finds the word far ahead of that.
    EXPECT_EQ(take_rate(
                  word, rate, 1, now - 500'000, [&] { return now; }, &taking),
              Taken::kNo);
    EXPECT_EQ(take(word, rate, 1, now, &taking), Taken::kNo) << "the burst was spent";
    EXPECT_EQ(take_rate(
                  word, rate, 1, now - 500'000, [&] { return now + 100; }, &taking),
              Taken::kYes);
}

TEST(Meters, NobodyIsRefusedByAnOldLookAtTheClock) {
    const Rate rate{kTag, 100, 1000};
    Word word{0};
    RateTaking taking;
    uint64_t left = 0;
    const uint64_t now = 1'000'000;
    // Half of the burst, taken by those who looked at the clock later.
    ASSERT_EQ(take(word, rate, 5, now, &taking), Taken::kYes);
    const auto clock = [&] { return now; };
    EXPECT_EQ(look_at_rate(word, rate, 5, now - 10, clock, &left), Taken::kYes);
    EXPECT_EQ(take_rate(word, rate, 5, now - 10, clock, &taking), Taken::kYes);
    EXPECT_EQ(take_rate(word, rate, 1, now - 10, clock, &taking), Taken::kNo);

    const Quota quota{kTag, 3};
    Word counted{0};
    QuotaTaking of_quota;
    ASSERT_EQ(take_quota(
                  counted, quota, 3, 7, [] { return uint64_t{7}; }, &of_quota),
              Taken::kYes);
    EXPECT_EQ(take_quota(
                  counted, quota, 1, 7, [] { return uint64_t{7}; }, &of_quota),
              Taken::kNo);
    EXPECT_EQ(take_quota(
                  counted, quota, 1, 7, [] { return uint64_t{8}; }, &of_quota),
              Taken::kYes)
        << "the next period has begun meanwhile";
}

TEST(Meters, AClockThatWasSetBackCostsOneWindow) {
    const Rate rate{kTag, 100, 1000};
    Word word{0};
    RateTaking taking;
    ASSERT_EQ(take(word, rate, 10, 10'000'000, &taking), Taken::kYes);
    const uint64_t now = 1'000'000;
    EXPECT_EQ(take(word, rate, 1, now, &taking), Taken::kNo) << "the burst is spent, whenever that was";
    EXPECT_EQ(take(word, rate, 10, now + 1000, &taking), Taken::kYes) << "a denial stored the clamp";
}

TEST(Meters, AnotherTagIsAnotherLimit) {
    const Rate rate{kTag, 100, 1000};
    const Rate other{kTag + 1, 100, 1000};
    Word word{0};
    RateTaking taking;
    ASSERT_EQ(take(word, rate, 10, 1000, &taking), Taken::kYes);
    EXPECT_EQ(take(word, other, 10, 1000, &taking), Taken::kYes);
    const Quota quota{kTag, 10};
    QuotaTaking used;
    Word counted{0};
    ASSERT_EQ(take(counted, quota, 10, 5, &used), Taken::kYes);
    EXPECT_EQ(take(counted, Quota{kTag + 1, 10}, 10, 5, &used), Taken::kYes);
}

TEST(Meters, AWordOfOneKindIsNeverOneOfTheOther) {
    for (uint64_t tag = RateWord::kTagFirst; tag < RateWord::kTagFirst + RateWord::kTags; ++tag) {
        EXPECT_GE(QuotaWord::tag(RateWord::make(tag, tag * 0x123456789ab)),
                  QuotaWord::kTagFirst + QuotaWord::kTags);
        EXPECT_EQ(RateWord::tag(RateWord::make(tag, ~uint64_t{0})), tag);
    }
    for (uint64_t tag = QuotaWord::kTagFirst; tag < QuotaWord::kTagFirst + QuotaWord::kTags; ++tag) {
        EXPECT_LT(RateWord::tag(QuotaWord::make(tag, tag * 31, tag * 0x1234567)), RateWord::kTagFirst);
        EXPECT_EQ(QuotaWord::tag(QuotaWord::make(tag, ~uint64_t{0}, QuotaWord::kUsedMask)), tag);
    }
}

TEST(Meters, AQuotaIsSpentExactlyAndBeginsAnewWithItsPeriod) {
    const Quota quota{kTag, 1000};
    Word word{0};
    std::mt19937_64 random(3);
    for (uint64_t period = 32'760; period < 32'780; ++period) {  // past the end of its 15 bits
        uint64_t used = 0;
        for (int i = 0; i < 2000; ++i) {
            const auto cost = static_cast<uint32_t>(1 + random() % 3);
            QuotaTaking taking;
            const bool fits = used + cost <= 1000;
            ASSERT_EQ(take(word, quota, cost, period, &taking), fits ? Taken::kYes : Taken::kNo);
            used += fits ? cost : 0;
            ASSERT_EQ(taking.used, used);
        }
        ASSERT_GE(used, 998u);
    }
}

TEST(Meters, APeriodNeverBeginsTwice) {
    const Quota quota{kTag, 10};
    Word word{0};
    QuotaTaking taking;
    ASSERT_EQ(take(word, quota, 10, 8, &taking), Taken::kYes);
    EXPECT_EQ(take(word, quota, 1, 7, &taking), Taken::kNo) << "another taker's clock is a tick ahead";
    EXPECT_EQ(take_quota(
                  word, quota, 1, 5, [] { return uint64_t{8}; }, &taking),
              Taken::kNo)
        << "a halted taker's old period is not believed";
    EXPECT_EQ(QuotaWord::period(word.load()), 8u);
    // The clock was set back: what was counted stays counted.
    EXPECT_EQ(take(word, quota, 1, 5, &taking), Taken::kNo);
    EXPECT_EQ(QuotaWord::period(word.load()), 5u);
    EXPECT_EQ(take(word, quota, 10, 6, &taking), Taken::kYes);
}

TEST(Meters, WhatWasTakenIsGivenBack) {
    const Quota quota{kTag, 10};
    Word word{0};
    QuotaTaking taking;
    ASSERT_EQ(take(word, quota, 4, 8, &taking), Taken::kYes);
    QuotaTaking others;
    ASSERT_EQ(take(word, quota, 6, 8, &others), Taken::kYes);
    EXPECT_TRUE(give_back_quota(word, quota, taking, 4));
    EXPECT_EQ(take(word, quota, 4, 8, &others), Taken::kYes);
    ASSERT_EQ(take(word, quota, 10, 9, &others), Taken::kYes);
    EXPECT_TRUE(give_back_quota(word, quota, taking, 4));  // of a period that is over
    EXPECT_EQ(take(word, quota, 1, 9, &others), Taken::kNo);

    const Rate rate{kTag, 100, 1000};
    Word timed{0};
    RateTaking first;
    ASSERT_EQ(take(timed, rate, 10, 1000, &first), Taken::kYes);
    EXPECT_TRUE(give_back_rate(timed, first));
    RateTaking second;
    ASSERT_EQ(take(timed, rate, 5, 1000, &second), Taken::kYes);
    RateTaking third;
    ASSERT_EQ(take(timed, rate, 5, 1000, &third), Taken::kYes);
    EXPECT_TRUE(give_back_rate(timed, second));  // somebody took since: it stays taken
    EXPECT_EQ(take(timed, rate, 1, 1000, &third), Taken::kNo);
}

TEST(Meters, AMovedWordGoesOnInTheNext) {
    const Quota quota{kTag, 10};
    Word from{0};
    Word to{0};
    QuotaTaking taking;
    ASSERT_EQ(take(from, quota, 4, 8, &taking), Taken::kYes);
    carry_over(from, to);
    QuotaTaking late;
    EXPECT_EQ(take(from, quota, 1, 8, &late), Taken::kMoved);
    EXPECT_FALSE(give_back_quota(from, quota, taking, 4));
    EXPECT_EQ(take(to, quota, 6, 8, &late), Taken::kYes);
    carry_over(from, to);  // once more, by whoever comes late
    EXPECT_EQ(take(to, quota, 1, 8, &late), Taken::kNo);
    EXPECT_TRUE(give_back_quota(to, quota, taking, 4));
    EXPECT_EQ(take(to, quota, 4, 8, &late), Taken::kYes);

    const Rate rate{kTag, 100, 1000};
    Word timed{0};
    RateTaking gone;
    ASSERT_EQ(take(timed, rate, 1, 1000, &gone), Taken::kYes);
    Word next{0};
    carry_over(timed, next);
    EXPECT_FALSE(give_back_rate(timed, gone));
    EXPECT_TRUE(give_back_rate(next, gone));
    EXPECT_EQ(take(next, rate, 10, 1000, &gone), Taken::kYes);
}

TEST(Meters, AScribbledWordIsNoTrap) {
    std::mt19937_64 random(4);
    for (int i = 0; i < 100'000; ++i) {
        const Rate rate{RateWord::kTagFirst + random() % RateWord::kTags, 1 + random() % 1000,
                        1000 + random() % 1'000'000};
        Word word{random() & ~kMovedBit};
        RateTaking taking;
        const uint64_t now = random() % (uint64_t{1} << 60);
        take(word, rate, 1, now, &taking);
        ASSERT_LE(taking.ahead, rate.window);
        ASSERT_EQ(take(word, rate, 1, now + rate.window, &taking), Taken::kYes) << "it lasts one window";
        const Quota quota{QuotaWord::kTagFirst + random() % QuotaWord::kTags, random() % 1'000'000};
        Word counted{random() & ~kMovedBit};
        QuotaTaking used;
        take(counted, quota, 1, now % 40'000, &used);
        ASSERT_LT(counted.load(), kMovedBit);
    }
}

}  // namespace
}  // namespace apikey::shm
