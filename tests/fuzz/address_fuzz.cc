// Addresses of requests: what inet_pton() takes for one is one, with the same bytes, and nothing else is. The
// key set's addresses are read by other code, which has to agree.

#include <arpa/inet.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "apikey/apikey.h"
#include "source/limit_text.h"

namespace {

void require(bool condition) {
    if (!condition) {
        abort();  // libFuzzer keeps the input
    }
}

/// IPv4 as ::ffff:a.b.c.d; false for what is no address.
bool reference(const std::string& text, uint8_t (&bytes)[16]) {
    if (text.find('\0') != std::string::npos) {
        return false;
    }
    if (inet_pton(AF_INET6, text.c_str(), bytes) == 1) {
        return true;
    }
    std::memset(bytes, 0, sizeof bytes);
    bytes[10] = bytes[11] = 0xff;
    return inet_pton(AF_INET, text.c_str(), bytes + 12) == 1;
}

void check(const std::string& text) {
    const std::unique_ptr<char[]> exact(new char[text.size()]);
    std::memcpy(exact.get(), text.data(), text.size());
    apikey_address address;
    std::memset(&address, 0xa5, sizeof address);
    const apikey_result result = apikey_address_parse(exact.get(), text.size(), &address);
    uint8_t expected[16] = {};
    const bool is_address = reference(text, expected);
    require(result == (is_address ? APIKEY_OK : APIKEY_BAD_ARGUMENT));
    constexpr uint8_t kNothing[16] = {};
    require(std::memcmp(address.bytes, is_address ? expected : kNothing, sizeof kNothing) == 0);

    const auto range = apikeyd::parse_address_range(text);
    if (text.find('/') == std::string::npos) {
        require(range.has_value() == is_address);
        require(!range || (std::memcmp(range->address.data(), expected, sizeof expected) == 0 &&
                           range->prefix_bits == 128));
    }
}

/// As people and kernels write it.
void check_written(int family, const uint8_t* bytes) {
    char text[INET6_ADDRSTRLEN];
    require(inet_ntop(family, bytes, text, sizeof text) != nullptr);
    check(text);
    check(std::string(text) + "%0");
    check(" " + std::string(text));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    check(std::string(reinterpret_cast<const char*>(data), size));
    if (size >= 16) {
        check_written(AF_INET6, data);
        check_written(AF_INET, data);
        uint8_t mapped[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
        std::memcpy(mapped + 12, data, 4);
        check_written(AF_INET6, mapped);
    }
    return 0;
}
