// The clock of stepped_clock.cc, for the test that steps it.

#pragma once

#include <atomic>
#include <cstdint>

/// Of this process alone, beside the step that all have in common. Children begin with the same.
extern "C" std::atomic<int64_t> stepped_clock_own_ns;

namespace apikeyd::test {

inline constexpr int64_t kHour_s = 3600;

/// The step of this process's clock, and of those that it starts from its first use on. One for all tests of
/// a program; leaves no file behind.
class SteppedClock {
  public:
    static SteppedClock& get();
    void step_to(int64_t seconds) { step_ns_->store(seconds * 1'000'000'000); }

  private:
    SteppedClock();

    std::atomic<int64_t>* step_ns_;
};

}  // namespace apikeyd::test
