// How large the files of a generation are made: for keys that are there, and for keys that are only expected.

#pragma once

#include <cstdint>

#include "shm/generation.h"

namespace apikeyd {

/// What there is to make room for.
struct PlannedKeys {
    uint64_t keys;
    uint64_t details_bytes;  ///< of them and of what stands beside them
    uint64_t capacity_keys;  ///< room for at least so many that are like them
};

/// As every generation of this daemon is made; whose it is and its number are the caller's.
apikey::shm::GenerationPlan plan_generation(const PlannedKeys& planned,
                                            const apikey::shm::TableGeometry::Policies& entries,
                                            uint32_t meter_words);

/// Keys of which only this is known.
struct ExpectedKeys {
    uint64_t keys = 0;
    uint64_t text_bytes = 0;  ///< of a key's name and metadata, on the average
    uint64_t owners = 0;      ///< that share the keys
    uint64_t limits = 0;      ///< of the plan that has the most, at most kLimitsMax
};

/// The generation that a first load of them builds; `capacity_keys` as the configuration has it.
apikey::shm::GenerationPlan expected_generation(const ExpectedKeys& expected, uint64_t capacity_keys);

}  // namespace apikeyd
