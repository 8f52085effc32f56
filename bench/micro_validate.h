// Benchmarks of a whole validation; see micro_validate.cc.

#pragma once

#include <cstdint>
#include <vector>

namespace apikey::bench {

/// Registers them for key sets of these sizes. Call once, before the benchmarks run.
void register_validate(const std::vector<uint64_t>& key_counts);

}  // namespace apikey::bench
