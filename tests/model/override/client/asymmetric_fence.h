// In place of client/asymmetric_fence.h, for the models: the rare side's fence is one for all threads, as
// membarrier(2) is; the frequent side's holds the compiler, which no simulation reorders.

#pragma once

#include "tests/model/simulation.h"

namespace apikey::client {

inline void light_fence() {}
inline void prepare_heavy_fence() {}
inline bool heavy_fence(std::source_location where = std::source_location::current()) {
    model::fence_of_all_threads(where);
    return true;
}

}  // namespace apikey::client
