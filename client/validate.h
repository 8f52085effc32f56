// Deciding keys; see apikey_validate() and apikey_validate_many() for the contract.

#pragma once

#include "client/client.h"
#include "client/terms.h"

namespace apikey::client {

apikey_code validate(apikey_client* client, const char* key, size_t key_len, const Asked& asked,
                     apikey_verdict* verdict);
size_t validate_many(apikey_client* client, const apikey_key* keys, size_t count, apikey_verdict* verdicts);
/// 1 known, 0 unknown, -1 buffer too small.
int describe(apikey_client* client, const apikey_verdict& verdict, char* buffer, size_t buffer_bytes,
             apikey_description* out);

}  // namespace apikey::client
