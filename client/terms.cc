#include "client/terms.h"

#include <arpa/inet.h>

#include <cstring>

namespace apikey::client {
namespace {

bool is_in(const shm::AddressRange& range, const apikey_address& address) {
    const unsigned bits = range.prefix_bits <= 128 ? range.prefix_bits : 128;
    const unsigned bytes = bits / 8;
    if (std::memcmp(range.address, address.bytes, bytes) != 0) {
        return false;
    }
    const unsigned rest = bits % 8;
    return rest == 0 || (range.address[bytes] ^ address.bytes[bytes]) >> (8 - rest) == 0;
}

}  // namespace

bool address_allowed(const shm::TableView& table, uint32_t addresses, const apikey_address* address) {
    if (addresses == 0) {
        return true;
    }
    const shm::ListReader<shm::AddressRange> ranges(table, addresses);
    for (uint32_t i = 0; address != nullptr && i < ranges.count(); ++i) {
        if (is_in(ranges.get(i), *address)) {
            return true;
        }
    }
    return false;
}

bool environment_allowed(const apikey_client& client, const shm::TableView& table, uint64_t meta) {
    if (client.required_environment[0] == '\0') {
        return true;
    }
    char environment[shm::kEnvironmentNameBytes + 1];
    shm::read_environment(table, shm::Meta::environment(meta), environment);
    return std::strcmp(environment, client.required_environment) == 0;
}

apikey_code check_terms(const apikey_client& client, const shm::TableView& table, uint64_t meta,
                        const shm::Policy& policy, const Asked& asked) {
    if (!environment_allowed(client, table, meta)) {
        return APIKEY_INSUFFICIENT_PERMISSIONS;
    }
    if (!address_allowed(table, policy.addresses, asked.address)) {
        return APIKEY_IP_NOT_ALLOWED;
    }
    if (asked.scopes != nullptr && !grants(table, policy.scopes, asked.scopes)) {
        return APIKEY_INSUFFICIENT_PERMISSIONS;
    }
    return APIKEY_VALID;
}

bool parse_address(const char* text, size_t length, apikey_address* out) {
    char terminated[INET6_ADDRSTRLEN + 1];
    std::memset(out, 0, sizeof *out);
    if (text == nullptr || length >= sizeof terminated || std::memchr(text, '\0', length) != nullptr) {
        return false;
    }
    std::memcpy(terminated, text, length);
    terminated[length] = '\0';
    if (inet_pton(AF_INET6, terminated, out->bytes) == 1) {
        return true;
    }
    std::memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET, terminated, out->bytes + 12) != 1) {
        return false;
    }
    out->bytes[10] = out->bytes[11] = 0xff;
    return true;
}

}  // namespace apikey::client
