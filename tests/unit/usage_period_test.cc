// Promise: the stretch of time that is counted is the one that was asked for, or there is an error.

#include "tools/usage_period.h"

#include <gtest/gtest.h>

#include "source/rfc3339.h"

namespace apikeyd {
namespace {

int64_t at(const char* text) {
    return parse_rfc3339(text).value();
}

const int64_t kNow_s = at("2026-11-27T10:42:33Z");

RollupQuery parsed(const UsagePeriodOptions& options) {
    const Result<RollupQuery> query = parse_usage_period(options, kNow_s);
    EXPECT_TRUE(query) << query.error().message;
    return query.value_or(RollupQuery{});
}

void expect(const UsagePeriodOptions& options, int64_t step_s, const char* since, const char* until) {
    const RollupQuery query = parsed(options);
    EXPECT_EQ(query.step_s, step_s);
    EXPECT_EQ(format_rfc3339(query.since_s), since);
    EXPECT_EQ(format_rfc3339(query.until_s), until);
    EXPECT_FALSE(query.key_id);
}

std::string error(const UsagePeriodOptions& options) {
    const Result<RollupQuery> query = parse_usage_period(options, kNow_s);
    return query ? "none" : query.error().message;
}

TEST(UsagePeriod, EndsWithTheStepUnderWay) {
    expect({.by = "minute"}, 60, "1970-01-01T00:00:00Z", "2026-11-27T10:43:00Z");
    expect({.by = "hour"}, 3600, "1970-01-01T00:00:00Z", "2026-11-27T11:00:00Z");
    expect({.by = "day"}, 86400, "1970-01-01T00:00:00Z", "2026-11-28T00:00:00Z");
    expect({}, 86400, "1970-01-01T00:00:00Z", "2026-11-28T00:00:00Z");
}

TEST(UsagePeriod, IsSummedUpByTheLongestStepThatFits) {
    expect({.since = "2026-11-01", .until = "2026-11-27"}, 86400, "2026-11-01T00:00:00Z",
           "2026-11-27T00:00:00Z");
    expect({.since = "2026-11-01", .until = "2026-11-26T05:00:00+01:00"}, 3600, "2026-11-01T00:00:00Z",
           "2026-11-26T04:00:00Z");
    expect({.since = "2026-11-26T04:01:00Z", .until = "2026-11-27"}, 60, "2026-11-26T04:01:00Z",
           "2026-11-27T00:00:00Z");
    expect({.since = "2026-11-26", .until = "2026-11-27", .by = "minute"}, 60, "2026-11-26T00:00:00Z",
           "2026-11-27T00:00:00Z");
}

TEST(UsagePeriod, ADurationLeadsToTheStartOfItsUnit) {
    expect({.since = "2d"}, 86400, "2026-11-25T00:00:00Z", "2026-11-28T00:00:00Z");
    expect({.since = "24h"}, 3600, "2026-11-26T10:00:00Z", "2026-11-27T11:00:00Z");
    expect({.since = "90m", .until = "30s"}, 60, "2026-11-27T09:12:00Z", "2026-11-27T10:42:00Z");
    expect({.since = "24h", .by = "day"}, 86400, "2026-11-26T00:00:00Z", "2026-11-28T00:00:00Z");
}

TEST(UsagePeriod, OfAChartHasSomeBars) {
    const auto expect_chart = [](const UsagePeriodOptions& options, int64_t step_s, const char* since) {
        const Result<RollupQuery> query = parse_chart_period(options, kNow_s);
        ASSERT_TRUE(query) << query.error().message;
        EXPECT_EQ(query->step_s, step_s) << since;
        EXPECT_EQ(format_rfc3339(query->since_s), since);
    };
    expect_chart({.since = "30d"}, 86400, "2026-10-28T00:00:00Z");
    expect_chart({.since = "2d"}, 3600, "2026-11-25T00:00:00Z");
    expect_chart({.since = "2h"}, 60, "2026-11-27T08:00:00Z");
    expect_chart({.since = "5m"}, 60, "2026-11-27T10:37:00Z");
    expect_chart({.since = "2d", .by = "day"}, 86400, "2026-11-25T00:00:00Z");
    EXPECT_FALSE(parse_chart_period({.since = "soon"}, kNow_s));
}

TEST(UsagePeriod, WhatIsNoStretchOfStepsIsRefusedByItsOption) {
    EXPECT_EQ(
        error({.since = "yesterday"}),
        "--since: 'yesterday' is no time (want 2026-11-01, 2026-11-01T12:00:00Z, or as long ago as 90d, "
        "24h, 30m)");
    EXPECT_EQ(error({.until = "2026-02-30"}).substr(0, 27), "--until: '2026-02-30' is no");
    EXPECT_EQ(error({.since = "2026-11-26T04:01:30Z"}),
              "--since: 2026-11-26T04:01:30Z is not the start of a full minute, by which counts are kept");
    EXPECT_EQ(error({.until = "2026-11-26T04:01:00Z", .by = "hour"}),
              "--until: 2026-11-26T04:01:00Z is not the start of a full hour, by which counts are kept");
    EXPECT_EQ(error({.since = "2026-12-01"}),
              "--since: 2026-12-01T00:00:00Z has no counts yet (want a time up to now)");
    EXPECT_EQ(error({.since = "2026-11-02", .until = "2026-11-01"}),
              "--since: 2026-11-02T00:00:00Z is after --until, 2026-11-01T00:00:00Z");
    EXPECT_EQ(
        error({.since = "36600d"}),
        "--since: '36600d' is a time before 1970, where nothing can have been counted (want 1970-01-01 or "
        "later)");
    EXPECT_EQ(error({.until = "1969-12-31"}).substr(0, 50),
              "--until: '1969-12-31' is a time before 1970, where");
}

}  // namespace
}  // namespace apikeyd
