// How a denial is counted, and what it tells the daemon's log.

#pragma once

#include "client/request.h"
#include "shm/denials.h"

namespace apikey::client {

/// Writes it into the ring; see count_denial().
[[gnu::cold, gnu::noinline]] void tell_denial(const Moment& moment, apikey_code code, const Presented* key,
                                              const Asked& asked);

/// Adds it to its code's total; then, where the log has room for one more of the code, tells it. `key`:
/// nullptr when it was not hashed.
APIKEY_INLINE void count_denial(const Moment& moment, apikey_code code, const Presented* key,
                                const Asked& asked) {
    const shm::CellsView& cells = moment.mapping->generation.cells;
    if (cells.base == nullptr) [[unlikely]] {
        return;
    }
    shm::count_code(cells, static_cast<uint32_t>(code), moment.cpu);
    if (shm::take_denial_room(cells, static_cast<uint32_t>(code))) [[unlikely]] {
        tell_denial(moment, code, key, asked);
    }
}

}  // namespace apikey::client
