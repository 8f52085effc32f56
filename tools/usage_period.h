// The stretch of time that counts are wanted of, as the command line says it.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "usage/usage_reader.h"

namespace apikeyd {

struct UsagePeriodOptions {
    std::optional<std::string> since = std::nullopt;
    std::optional<std::string> until = std::nullopt;
    std::string by = {};  ///< minute, hour, day; empty: as one

    [[nodiscard]] bool given() const { return since || until || !by.empty(); }
};

/// The query for all keys. A moment is RFC 3339, a date, or a duration before `now_s`, which begins with the
/// minute, hour or day (`30m`, `24h`, `90d`; at least the step `by`) that it leads to; without an end the
/// stretch ends with the step under way. Without `by` the step is the longest that the moments allow. Errors
/// are worded for the operator and name the option.
Result<RollupQuery> parse_usage_period(const UsagePeriodOptions& options, int64_t now_s);

/// The same for a chart: without `by` the step is the longest that gives it some bars.
Result<RollupQuery> parse_chart_period(const UsagePeriodOptions& options, int64_t now_s);

/// minute, hour or day, for one of kRollupSteps_s.
std::string_view step_name(int64_t step_s);

}  // namespace apikeyd
