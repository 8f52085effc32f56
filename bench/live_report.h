// The two ends of a run in the process that starts it: the keys that go in, and the figures that come out.

#pragma once

#include <string>

#include "base/result.h"
#include "bench/live_run.h"
#include "bench/tick_clock.h"

namespace apikey::bench {

/// Reads the key file and makes up the unknown keys.
apikeyd::Result<KeyRing> make_key_ring(const LiveOptions& options);

/// All that was measured, summed up.
struct LiveReport {
    size_t known_keys = 0;
    size_t switched_keys = 0;
    std::vector<double> per_process_per_s;  ///< keys validated, by process
    double total_per_s = 0;
    uint64_t codes[16] = {};
    Histogram sample_ticks{};
    double ns_per_tick = 1;
    uint64_t clock_step_ticks = 0;
    const char* clock = "";
    WriterTally writer{};
};

/// Only when every process that took part has ended.
LiveReport sum_up(const LiveOptions& options, const KeyRing& ring, const SharedArea& area,
                  const TickClock& clock);

std::string table_text(const LiveOptions& options, const LiveReport& report);
std::string json_text(const LiveOptions& options, const LiveReport& report);

}  // namespace apikey::bench
