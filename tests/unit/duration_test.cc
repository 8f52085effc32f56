// Promise: a time on the command line is what it says, or is refused.

#include "tools/duration.h"

#include <gtest/gtest.h>

#include "source/key_row.h"

namespace apikeyd {
namespace {

constexpr int64_t kNow_s = 1'800'000'000;

TEST(Duration, Units) {
    EXPECT_EQ(parse_duration_s("15s"), 15);
    EXPECT_EQ(parse_duration_s("30m"), 1800);
    EXPECT_EQ(parse_duration_s("24h"), 86400);
    EXPECT_EQ(parse_duration_s("90d"), 7'776'000);
    EXPECT_EQ(parse_duration_s("0"), 0);
    EXPECT_EQ(parse_duration_s("0d"), 0);
}

TEST(Duration, RefusesWhatIsNone) {
    for (const char* text : {"", "1", "h", "-1h", "+1h", " 1h", "1h ", "1.5h", "1w", "1hh", "1H",
                             "99999999999999999999d", "9223372036854775807d", "36601d"}) {
        EXPECT_EQ(parse_duration_s(text), std::nullopt) << text;
    }
    EXPECT_EQ(parse_duration_s("36600d"), kDurationMax_s);
}

TEST(Expiry, IsATimeOrADurationFromNow) {
    EXPECT_EQ(parse_expiry("90d", kNow_s).value(), kNow_s + 7'776'000);
    EXPECT_EQ(parse_expiry("2027-12-01T00:00:00Z", kNow_s).value(), 1'827'619'200);
    EXPECT_EQ(parse_expiry("2027-12-01T01:00:00+01:00", kNow_s).value(), 1'827'619'200);
}

TEST(Expiry, LiesAheadAndWithinWhatASlotCanSay) {
    for (const char* text : {"0", "0s", "2020-01-01T00:00:00Z", "2300-01-01T00:00:00Z", "soon", ""}) {
        const Result<int64_t> parsed = parse_expiry(text, kNow_s);
        ASSERT_FALSE(parsed) << text;
        EXPECT_EQ(parsed.error().message.substr(0, 5), "want ") << text;
    }
    EXPECT_FALSE(parse_expiry("1s", kExpiresMax_s));
    EXPECT_EQ(parse_expiry("1s", kExpiresMax_s - 1).value(), kExpiresMax_s);
}

}  // namespace
}  // namespace apikeyd
