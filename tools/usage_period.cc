#include "tools/usage_period.h"

#include <algorithm>
#include <string_view>

#include "source/rfc3339.h"
#include "source/yaml_events.h"
#include "tools/duration.h"

namespace apikeyd {

namespace {

constexpr std::string_view kStepNames[] = {"minute", "hour", "day"};
static_assert(std::size(kStepNames) == kRollupSteps_s.size());

int64_t step_named(std::string_view name) {
    const auto* const found = std::find(std::begin(kStepNames), std::end(kStepNames), name);
    return kRollupSteps_s[static_cast<size_t>(found - std::begin(kStepNames))];
}

/// The longest step that begins at this time; 0 when none does.
int64_t longest_step_s(int64_t time_s) {
    int64_t longest_s = 0;
    for (const int64_t step_s : kRollupSteps_s) {
        longest_s = time_s % step_s == 0 ? step_s : longest_s;
    }
    return longest_s;
}

/// The start of the step that a duration leads back to: by its unit, of a day for `2d`.
int64_t start_before(int64_t duration_s, char unit, int64_t step_min_s, int64_t now_s) {
    const int64_t step_s = unit == 'd' ? 86400 : unit == 'h' ? 3600 : 60;
    return rollup_start_s(now_s - duration_s, std::max(step_s, step_min_s));
}

Result<int64_t> parse_moment(std::string_view option, const std::string& text, int64_t step_min_s,
                             int64_t now_s) {
    std::optional<int64_t> moment_s = parse_rfc3339(text);
    if (!moment_s) {
        moment_s = parse_rfc3339(text + "T00:00:00Z");
    }
    if (const auto duration_s = parse_duration_s(text); !moment_s && duration_s) {
        moment_s = start_before(*duration_s, text.back(), step_min_s, now_s);
    }
    if (!moment_s) {
        return fail(std::string(option) + ": " + yaml_quote(text) +
                    " is no time (want 2026-11-01, 2026-11-01T12:00:00Z, or as long ago as 90d, 24h, 30m)");
    }
    if (*moment_s < 0) {
        return fail(std::string(option) + ": " + yaml_quote(text) +
                    " is a time before 1970, where nothing can have been counted (want 1970-01-01 or later)");
    }
    if (*moment_s > now_s + kRollupSteps_s.back()) {
        return fail(std::string(option) + ": " + format_rfc3339(*moment_s) +
                    " has no counts yet (want a time up to now)");
    }
    return *moment_s;
}

constexpr int64_t kChartStepsMin = 12;

}  // namespace

std::string_view step_name(int64_t step_s) {
    return kStepNames[std::find(kRollupSteps_s.begin(), kRollupSteps_s.end(), step_s) -
                      kRollupSteps_s.begin()];
}

Result<RollupQuery> parse_usage_period(const UsagePeriodOptions& options, int64_t now_s) {
    RollupQuery query;
    query.step_s = !options.by.empty() ? step_named(options.by) : kRollupSteps_s.back();
    const struct {
        std::string_view option;
        const std::optional<std::string>& text;
        int64_t& moment_s;
    } moments[] = {{"--since", options.since, query.since_s}, {"--until", options.until, query.until_s}};
    for (const auto& [option, text, moment_s] : moments) {
        if (!text) {
            continue;
        }
        const Result<int64_t> parsed =
            parse_moment(option, *text, options.by.empty() ? 0 : query.step_s, now_s);
        if (!parsed) {
            return tl::unexpected(parsed.error());
        }
        moment_s = *parsed;
        const int64_t longest_s = longest_step_s(moment_s);
        if (longest_s == 0 || (!options.by.empty() && longest_s < query.step_s)) {
            return fail(std::string(option) + ": " + format_rfc3339(moment_s) +
                        " is not the start of a full " +
                        std::string(step_name(!options.by.empty() ? query.step_s : kRollupSteps_s.front())) +
                        ", by which counts are kept");
        }
        query.step_s = std::min(query.step_s, longest_s);
    }
    if (!options.until) {
        query.until_s = rollup_start_s(now_s, query.step_s) + query.step_s;
    }
    if (query.since_s > query.until_s) {
        return fail("--since: " + format_rfc3339(query.since_s) + " is after --until, " +
                    format_rfc3339(query.until_s));
    }
    return query;
}

Result<RollupQuery> parse_chart_period(const UsagePeriodOptions& options, int64_t now_s) {
    Result<RollupQuery> query = parse_usage_period(options, now_s);
    if (query && options.by.empty() && options.since) {
        for (size_t i = kRollupSteps_s.size(); i-- > 0;) {
            query->step_s = std::min(query->step_s, kRollupSteps_s[i]);
            if (query->until_s - query->since_s >= kChartStepsMin * query->step_s) {
                break;
            }
        }
    }
    return query;
}

}  // namespace apikeyd
