// Which period of the calendar a moment lies in: quotas are of an hour, a day or a month of UTC.

#pragma once

#include <chrono>

#include "shm/layout.h"

namespace apikey::shm {

namespace quota_period {

inline constexpr uint64_t kSecond_ns = 1'000'000'000;
inline constexpr uint64_t kHour_s = 3600;
inline constexpr uint64_t kDay_s = 86400;

inline std::chrono::sys_days day_of(uint64_t now_ns) {
    return std::chrono::sys_days(std::chrono::days(now_ns / kSecond_ns / kDay_s));
}

}  // namespace quota_period

/// The number of the period (`kind` is no rate's) that this moment of CLOCK_REALTIME lies in: hours or days
/// since 1970, or months since the year 0.
inline uint64_t period_of(LimitKind kind, uint64_t now_ns) {
    using namespace quota_period;
    const uint64_t seconds = now_ns / kSecond_ns;
    if (kind == LimitKind::kHour) {
        return seconds / kHour_s;
    }
    if (kind == LimitKind::kDay) {
        return seconds / kDay_s;
    }
    const std::chrono::year_month_day date(day_of(now_ns));
    return static_cast<uint64_t>(static_cast<int>(date.year())) * 12 + static_cast<unsigned>(date.month());
}

/// When that period ends.
inline uint64_t period_end_ns(LimitKind kind, uint64_t now_ns) {
    using namespace quota_period;
    const uint64_t seconds = now_ns / kSecond_ns;
    if (kind == LimitKind::kHour) {
        return (seconds / kHour_s + 1) * kHour_s * kSecond_ns;
    }
    if (kind == LimitKind::kDay) {
        return (seconds / kDay_s + 1) * kDay_s * kSecond_ns;
    }
    const std::chrono::year_month_day date(day_of(now_ns));
    const std::chrono::sys_days next =
        (date.year() / date.month() + std::chrono::months(1)) / std::chrono::day(1);
    return static_cast<uint64_t>(next.time_since_epoch().count()) * kDay_s * kSecond_ns;
}

}  // namespace apikey::shm
