// How a denial is counted, and what it tells the daemon's log.

#pragma once

#include "client/request.h"

namespace apikey::client {

/// Adds it to its code's total; then, where the log has room for one more of the code, writes it into the
/// ring. `key`: nullptr when it was not hashed.
[[gnu::cold, gnu::noinline]] void count_denial(const Moment& moment, apikey_code code, const Presented* key,
                                               const Asked& asked);

}  // namespace apikey::client
