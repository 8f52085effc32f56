// The clocks in the unit that shared memory uses.

#pragma once

#include <cstdint>
#include <ctime>

namespace apikeyd {

/// Nanoseconds of CLOCK_REALTIME since 1970.
inline uint64_t realtime_now_ns() {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1000000000 + static_cast<uint64_t>(now.tv_nsec);
}

/// Nanoseconds of CLOCK_MONOTONIC: the same for all processes of the machine.
inline uint64_t monotonic_now_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1000000000 + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace apikeyd
