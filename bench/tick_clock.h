// A clock for intervals of tens of nanoseconds: the processor's time stamp counter where it runs at one rate,
// else CLOCK_MONOTONIC. Thread-safe.

#pragma once

#include <cstdint>
#include <ctime>

#if defined(__x86_64__)
#include <cpuid.h>
#include <x86intrin.h>
#endif

namespace apikey::bench {

inline uint64_t monotonic_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1000000000 + static_cast<uint64_t>(now.tv_nsec);
}

class TickClock {
  public:
    TickClock() : counter_(has_counter()), first_ticks_(now()), first_ns_(monotonic_ns()) {}

    /// Not ordered against the instructions around it: time groups of calls, not one.
    uint64_t now() const {
#if defined(__x86_64__)
        if (counter_) {
            return __rdtsc();
        }
#endif
        return monotonic_ns();
    }
    const char* name() const {
        return counter_ ? "tsc" : "clock_monotonic";
    }

    /// Measured from construction until now; the longer, the better.
    double ns_per_tick() const {
        const uint64_t ticks = now() - first_ticks_;
        return counter_ && ticks != 0
                   ? static_cast<double>(monotonic_ns() - first_ns_) / static_cast<double>(ticks)
                   : 1.0;
    }

    /// The smallest difference that two readings one after the other have shown, in ticks: the step of the
    /// clock and the cost of reading it. Nothing shorter can be told apart.
    uint64_t step_ticks() const {
        constexpr int kReadings = 100000;
        uint64_t smallest = ~uint64_t{0};
        uint64_t before = now();
        for (int i = 0; i < kReadings; ++i) {
            const uint64_t after = now();
            if (after > before && after - before < smallest) {
                smallest = after - before;
            }
            before = after;
        }
        return smallest;
    }

  private:
    static bool has_counter() {
#if defined(__x86_64__)
        // CPUID 80000007, EDX bit 8: the counter has one rate in all states and on all cores.
        unsigned eax = 0;
        unsigned ebx = 0;
        unsigned ecx = 0;
        unsigned edx = 0;
        return __get_cpuid(0x80000007, &eax, &ebx, &ecx, &edx) != 0 && (edx & 1U << 8) != 0;
#else
        return false;
#endif
    }

    bool counter_;
    uint64_t first_ticks_;
    uint64_t first_ns_;
};

}  // namespace apikey::bench
