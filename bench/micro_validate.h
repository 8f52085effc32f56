// Benchmarks of a whole validation; see micro_validate.cc.

#pragma once

#include <vector>

#include "bench/private_set.h"

namespace apikey::bench {

/// Registers them for these sets, which have to live until the benchmarks end. Call once, before they run.
void register_validate(const std::vector<PrivateSet*>& sets);

}  // namespace apikey::bench
