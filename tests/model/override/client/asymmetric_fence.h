// In place of client/asymmetric_fence.h, for the models.
//
// Two readings of it, one a run (--membarrier): a sequentially consistent fence on both sides, which is what
// the language knows and the two come to; or what membarrier(2) is, one fence for all threads, and nothing on
// the frequent side.

#pragma once

#include "tests/model/simulation.h"

namespace apikey::client {

inline void light_fence(model::Where where = model::Where::current()) {
    if (!model::membarrier()) {
        model::fence(where);
    }
}
inline void prepare_heavy_fence() {}
inline bool heavy_fence(model::Where where = model::Where::current()) {
    if (model::membarrier()) {
        model::fence_of_all_threads(where);
    } else {
        model::fence(where);
    }
    return true;
}

}  // namespace apikey::client
