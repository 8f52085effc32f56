// What no validation on this machine can do without; see micro_floor.cc.

#pragma once

#include <vector>

#include "bench/private_set.h"

namespace apikey::bench {

/// Registers them for each set, which must live until the benchmarks have run.
void register_floor(const std::vector<PrivateSet*>& sets);

}  // namespace apikey::bench
