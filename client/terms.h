// What a key may do, beyond being valid: environment, address and scopes, in this order, after its state.

#pragma once

#include "client/metering.h"
#include "client/scopes.h"

namespace apikey::client {

/// What a request asks for.
struct Asked {
    apikey_scopes* scopes = nullptr;
    const apikey_address* address = nullptr;
    uint32_t cost = 1;
    apikey_limits* limits = nullptr;  ///< out, all zeroes; nullptr: not wanted
};

/// Whether the client takes keys of this one's environment.
bool environment_allowed(const apikey_client& client, const shm::TableView& table, uint64_t meta);
/// Whether a key that is bound to `addresses` (0: to none) may be used from this one (nullptr: not known).
bool address_allowed(const shm::TableView& table, uint32_t addresses, const apikey_address* address);

/// The code of a key that is valid up to here: APIKEY_VALID, or what its environment, addresses or scopes do
/// not allow. Nothing is spent.
apikey_code check_terms(const apikey_client& client, const shm::TableView& table, uint64_t meta,
                        const shm::Policy& policy, const Asked& asked);

/// Text to address; see apikey_address_parse().
bool parse_address(const char* text, size_t length, apikey_address* out);

}  // namespace apikey::client
