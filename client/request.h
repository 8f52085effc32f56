// A request on its way through validate.cc and settle.cc.

#pragma once

#include "client/metering.h"
#include "client/terms.h"

namespace apikey::client {

/// What a call knows before it looks at a key.
struct Moment {
    const Mapping* mapping;
    uint64_t now_ns;
    uint32_t cpu;
    uint32_t flags;
    bool current;  ///< the mapping was current when the call began
    bool asks;     ///< for more than a valid key
};

/// A presented key on its way to a verdict.
struct Presented {
    const char* data;
    size_t len;
    const char* id;  ///< in `data`; nullptr when not of the native form
    uint64_t hash;
    shm::Probe probe;  ///< from where `hash` leads
    uint8_t digest[shm::kDigestLength];
    shm::Found found;  ///< by `hash`, in this generation
};

/// How a key came out of one generation.
enum class Decided : uint8_t {
    kYes,
    kInCurrent,  ///< is to be looked up in the current generation
    kInNext,     ///< its meters have gone on to the next one
    kOwing,      ///< the same, where what was taken before is to be given back
    kAgain,      ///< is to be looked up again: its plan is another one now
};

/// Where a call goes on that this generation did not answer. What the current one cannot say, since it is on
/// its way out, the announced one does.
inline Target target_of(const Mapping& mapping, Decided decided) {
    // Relaxed: nothing is read on the strength of it.
    const uint64_t word = mapping.control.control->current_next.load(std::memory_order_relaxed);
    const bool from_current = shm::current_of(word) == mapping.generation.table.generation &&
                              shm::next_of(word) > mapping.generation.table.generation;
    return decided == Decided::kInCurrent && !from_current ? Target::kCurrent : Target::kNext;
}

/// The verdict that a slot's meta means. kDead and kElsewhere are for the caller.
APIKEY_INLINE apikey_code code_of(uint64_t meta, uint64_t now_ns) {
    switch (shm::Meta::state(meta)) {
        case shm::SlotState::kActive: {
            const uint64_t expires_s = shm::Meta::expires_s(meta);
            return expires_s != shm::Meta::kNever && now_ns / 1000000000 >= expires_s ? APIKEY_EXPIRED
                                                                                      : APIKEY_VALID;
        }
        case shm::SlotState::kRevoked:
            return APIKEY_REVOKED;
        case shm::SlotState::kDisabled:
            return APIKEY_DISABLED;
        case shm::SlotState::kDead:
            return APIKEY_NOT_FOUND;
        default:
            return APIKEY_UNAVAILABLE;
    }
}

APIKEY_INLINE void count_answers(const Moment& moment, apikey_code code, uint64_t answers) {
    const shm::CellsView& cells = moment.mapping->generation.cells;
    if (cells.base != nullptr) [[likely]] {
        shm::count_code(cells, static_cast<uint32_t>(code), moment.cpu, answers);
    }
}

/// Where a key stands, for its meters.
inline KeyPlace place_of(const Presented& key, const shm::Policy& policy) {
    return {key.found.index, key.digest, key.id, key.found.meta, &policy};
}

}  // namespace apikey::client
