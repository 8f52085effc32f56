// Promise: a limit on the command line is what it says, or is refused; what is shown can be given again.

#include "source/limit_option.h"

#include <gtest/gtest.h>

namespace apikeyd {
namespace {

TEST(LimitOption, IsARateOrAQuota) {
    EXPECT_EQ(parse_limit_option("burst=100/s").value(),
              (LimitRow{"burst", LimitForm::kRate, 100, 1, 100, false}));
    EXPECT_EQ(parse_limit_option("burst=600/min,burst=50,shadow").value(),
              (LimitRow{"burst", LimitForm::kRate, 600, 60, 50, true}));
    EXPECT_EQ(parse_limit_option("a=5/d").value(), (LimitRow{"a", LimitForm::kRate, 5, 86400, 5, false}));
    EXPECT_EQ(parse_limit_option("a=5/day").value(),
              (LimitRow{"a", LimitForm::kQuotaPerDay, 5, 0, 0, false}));
    EXPECT_EQ(parse_limit_option("a=0/month,shadow").value(),
              (LimitRow{"a", LimitForm::kQuotaPerMonth, 0, 0, 0, true}));
}

TEST(LimitOption, WhatIsShownCanBeGiven) {
    for (const char* text : {"burst=100/s", "a=600/min,burst=50", "b=7/h,shadow", "c=9/d,burst=1,shadow",
                             "d=5/hour", "monthly=1000000/month", "e=3/day,shadow"}) {
        EXPECT_EQ(format_limit_option(parse_limit_option(text).value()), text);
    }
    EXPECT_EQ(format_limit_option(parse_limit_option("a=600/min,burst=600").value()), "a=600/min");
}

TEST(LimitOption, SaysWhatIsWrong) {
    const auto said = [](std::string_view text) {
        const Result<LimitRow> parsed = parse_limit_option(text);
        return parsed ? "nothing" : parsed.error().message;
    };
    const std::string no_name =
        " is no limit's name (want 1 to 15 characters a-z, 0-9, _ and -), as in "
        "burst=100/s,burst=200 or monthly=1000000/month";
    EXPECT_EQ(said(""), "''" + no_name);
    EXPECT_EQ(said("100/s"), "'100/s'" + no_name);
    EXPECT_EQ(said("Burst=1/s"), "'Burst'" + no_name);
    const std::string no_figure =
        " is no rate (want requests/unit with s, min, h or d, e.g. 100/s) and no "
        "quota (want requests/period with hour, day or month, e.g. 1000/day)";
    EXPECT_EQ(said("a"), "a: ''" + no_figure);
    EXPECT_EQ(said("a=100"), "a: '100'" + no_figure);
    EXPECT_EQ(said("a=100/fortnight"), "a: '100/fortnight'" + no_figure);
    EXPECT_EQ(said("a=0/s"), "a: '0/s' is an impossible rate (want 1 to 1000000000 requests)");
    EXPECT_EQ(said("a=-5/day"),
              "a: '-5/day' is no quota (want requests/period with hour, day or month, e.g. 1000/day)");
    EXPECT_EQ(said("a=2000000/s"), "a: is too fast (want at most 1250000 requests a second)");
    EXPECT_EQ(said("a=1250001/s"), said("a=2000000/s"));
    EXPECT_TRUE(parse_limit_option("a=1250000/s"));
    EXPECT_EQ(said("a=1/s,burst=0"),
              "a: burst: '0' is no burst (want 1 to 1000000000 requests that may come at once)");
    EXPECT_EQ(said("a=5/day,burst=1"), "a: burst: a quota has none (want it with a rate)");
    EXPECT_EQ(said("a=5/day,shadows"), "a: 'shadows' is neither burst=NUMBER nor shadow");
    EXPECT_EQ(said("a=99999999999999999999/s"),
              "a: '99999999999999999999/s' is an impossible rate (want 1 to 1000000000 requests)");
    EXPECT_EQ(said("a=99999999999999999999/day"),
              "a: '99999999999999999999/day' is out of range (want at most "
              "10000000000 requests a period)");
    EXPECT_EQ(said("a=5/s,burst=9,burst=7"), "a: 'burst=7' comes twice (want each word once)");
    EXPECT_EQ(said("a=5/day,shadow,shadow"), "a: 'shadow' comes twice (want each word once)");
    EXPECT_EQ(said("a=5/day,"), "a: '' is neither burst=NUMBER nor shadow");
}

}  // namespace
}  // namespace apikeyd
