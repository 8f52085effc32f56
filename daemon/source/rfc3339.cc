#include "source/rfc3339.h"

#include <chrono>
#include <cstdio>

namespace apikeyd {

namespace {

constexpr int64_t kDay_s = 86400;

/// `count` digits at `at`, which moves behind them.
std::optional<int> digits(std::string_view text, size_t& at, size_t count) {
    int value = 0;
    for (size_t end = at + count; at < end; ++at) {
        if (at >= text.size() || text[at] < '0' || text[at] > '9') {
            return std::nullopt;
        }
        value = value * 10 + (text[at] - '0');
    }
    return value;
}

bool literal(std::string_view text, size_t& at, char upper) {
    if (at >= text.size() || (text[at] != upper && text[at] != (upper | 0x20))) {
        return false;
    }
    ++at;
    return true;
}

bool exactly(std::string_view text, size_t& at, char c) {
    if (at >= text.size() || text[at] != c) {
        return false;
    }
    ++at;
    return true;
}

/// Seconds east of UTC, and nothing behind them.
std::optional<int64_t> zone(std::string_view text, size_t at) {
    if (literal(text, at, 'Z')) {
        return at == text.size() ? std::optional<int64_t>(0) : std::nullopt;
    }
    const bool east = exactly(text, at, '+');
    if (!east && !exactly(text, at, '-')) {
        return std::nullopt;
    }
    const auto hours = digits(text, at, 2);
    if (!hours || !exactly(text, at, ':')) {
        return std::nullopt;
    }
    const auto minutes = digits(text, at, 2);
    if (!minutes || *hours > 23 || *minutes > 59 || at != text.size()) {
        return std::nullopt;
    }
    const int64_t offset_s = *hours * 3600 + *minutes * 60;
    return east ? offset_s : -offset_s;
}

}  // namespace

std::optional<int64_t> parse_rfc3339(std::string_view text) {
    namespace chr = std::chrono;
    size_t at = 0;
    const auto year = digits(text, at, 4);
    if (!year || !exactly(text, at, '-')) {
        return std::nullopt;
    }
    const auto month = digits(text, at, 2);
    if (!month || !exactly(text, at, '-')) {
        return std::nullopt;
    }
    const auto day = digits(text, at, 2);
    if (!day || !literal(text, at, 'T')) {
        return std::nullopt;
    }
    const auto hour = digits(text, at, 2);
    if (!hour || !exactly(text, at, ':')) {
        return std::nullopt;
    }
    const auto minute = digits(text, at, 2);
    if (!minute || !exactly(text, at, ':')) {
        return std::nullopt;
    }
    const auto second = digits(text, at, 2);
    if (!second || *hour > 23 || *minute > 59 || *second > 59) {
        return std::nullopt;
    }
    if (exactly(text, at, '.')) {
        if (!digits(text, at, 1)) {
            return std::nullopt;
        }
        while (at < text.size() && text[at] >= '0' && text[at] <= '9') {
            ++at;
        }
    }
    const auto east_s = zone(text, at);
    const chr::year_month_day date{chr::year{*year}, chr::month{static_cast<unsigned>(*month)},
                                   chr::day{static_cast<unsigned>(*day)}};
    if (!east_s || !date.ok()) {
        return std::nullopt;
    }
    const int64_t days = chr::sys_days{date}.time_since_epoch().count();
    return days * kDay_s + int64_t{*hour} * 3600 + int64_t{*minute} * 60 + *second - *east_s;
}

std::string format_rfc3339(int64_t unix_s) {
    namespace chr = std::chrono;
    const chr::year_month_day date{chr::sys_days{chr::days{unix_s / kDay_s}}};
    const auto rest_s = static_cast<int>(unix_s % kDay_s);
    char out[64];
    std::snprintf(out, sizeof out, "%04d-%02u-%02uT%02d:%02d:%02dZ", static_cast<int>(date.year()),
                  static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()), rest_s / 3600,
                  rest_s / 60 % 60, rest_s % 60);
    return out;
}

}  // namespace apikeyd
