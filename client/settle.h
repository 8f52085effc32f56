// What a key that is valid up to here comes to by its terms, and what its request spends.

#pragma once

#include "client/request.h"

namespace apikey::client {

struct Terms {
    apikey_code code;
    uint32_t flags;  ///< APIKEY_FLAG_..., besides the call's own
};

/// All that the key's policy and the request have to say, in the order of the verdict codes. Only for a key
/// that has a policy, or a request that asks. kYes: `out` says how; else nothing was spent, but for what
/// kOwing has put into `owed`.
Decided settle_terms(const apikey_client& client, const Moment& moment, const Presented& key,
                     const Asked& asked, Bill::Owed* owed, Terms* out);

}  // namespace apikey::client
