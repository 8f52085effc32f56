// Why a request would pass or fail, check by check, for people. The checks are the ones that validate.cc and
// settle.cc make; nothing is spent and nothing is counted. Not part of libapikey's interface: apikeyctl links
// it with the static form.

#pragma once

#include "client/terms.h"

namespace apikey::client {

enum class Finding : uint8_t { kNotAsked, kPassed, kFailed };

/// What each check would come to, whatever those before it did. Where the key is not known only `known` says
/// something.
struct Explanation {
    apikey_code code;  ///< that the request would be answered with, by the first check that fails
    uint32_t flags;    ///< APIKEY_FLAG_...

    Finding known;
    Finding state;
    apikey_code state_code;  ///< APIKEY_VALID, APIKEY_REVOKED or APIKEY_DISABLED
    Finding expiry;
    int64_t expires_at;  ///< Unix seconds; 0: never
    Finding environment;
    char key_environment[shm::kEnvironmentNameBytes + 1];
    Finding address;
    uint32_t networks;  ///< that the key is bound to; 0: none
    Finding scopes;

    Spent metered;  ///< kNotMetered: there are limits, and this process cannot write their meters
    uint32_t limit_count;
    Bill::Look limits[2 * shm::kMeterWordsMax];
};

/// For the key with this id, of 12 characters, in the table that the client reads now. APIKEY_UNAVAILABLE
/// with `known` kNotAsked where there is none. May walk the whole table. Thread-safe, as apikey_validate();
/// makes system calls when the table has been replaced.
Explanation explain(apikey_client* client, const char* id, const Asked& asked);

}  // namespace apikey::client
