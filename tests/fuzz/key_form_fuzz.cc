// The native key form against a slow and obvious reading of its definition, over arbitrary bytes.
//
// The input is what a client might present. Its first byte chooses how it is presented: as it stands, or with
// the underscores and a right checksum put in, because a random input would hardly ever have them.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "shm/key_form.h"

namespace {

constexpr char kAlphabet[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

std::string reference_checksum(const std::string& text) {
    uint32_t crc = 0xffffffff;
    for (const char c : text) {
        crc ^= static_cast<uint8_t>(c);
        for (int bit = 0; bit < 8; ++bit) {
            crc = (crc & 1) != 0 ? (crc >> 1) ^ 0xedb88320 : crc >> 1;
        }
    }
    crc = ~crc;
    std::string out(6, '0');
    for (size_t i = 6; i > 0; --i, crc /= 62) {
        out[i - 1] = kAlphabet[crc % 62];
    }
    return out;
}

/// The parts of a native key, or nothing.
struct Parts {
    bool native = false;
    size_t id_at = 0;
    std::string id;
    std::string secret;
    std::string crc;
};

Parts reference_parts(const std::string& key) {
    Parts parts;
    for (size_t prefix_len = 1; prefix_len <= 8; ++prefix_len) {
        if (key.size() != prefix_len + 1 + 12 + 1 + 27 + 6) {
            continue;
        }
        if (key[prefix_len] != '_' || key[prefix_len + 13] != '_') {
            continue;
        }
        parts.native = true;
        parts.id_at = prefix_len + 1;
        parts.id = key.substr(prefix_len + 1, 12);
        parts.secret = key.substr(prefix_len + 14, 27);
        parts.crc = key.substr(prefix_len + 41, 6);
    }
    return parts;
}

bool reference_ok(const std::string& key, const Parts& parts) {
    const std::string all = parts.id + parts.secret + parts.crc;
    return parts.native && all.find_first_not_of(kAlphabet) == std::string::npos &&
           parts.crc == reference_checksum(key.substr(0, key.size() - 6));
}

void require(bool condition) {
    if (!condition) {
        abort();  // libFuzzer keeps the input
    }
}

/// In a block of exactly its size, where the address sanitizer sees one byte too many in either direction.
void check_presented(const std::string& key) {
    const std::unique_ptr<char[]> exact(new char[key.size()]);
    memcpy(exact.get(), key.data(), key.size());
    const Parts parts = reference_parts(key);
    const char* id = apikey::shm::native_key_id(exact.get(), key.size());
    require((id != nullptr) == parts.native);
    require(id == nullptr || id == exact.get() + parts.id_at);
    require(apikey::shm::native_key_checksum_ok(exact.get(), key.size()) == reference_ok(key, parts));
}

/// The input as the random bytes of a new key.
void check_made(const std::string& random) {
    const size_t prefix_len = random.size() % 10;
    const std::string prefix(prefix_len, 'p');
    const size_t room = prefix_len + 1 + 46;
    const std::unique_ptr<char[]> out(new char[room]);
    const std::unique_ptr<uint8_t[]> exact(new uint8_t[random.size()]);
    memcpy(exact.get(), random.data(), random.size());
    std::string characters;
    for (const char c : random) {
        const auto byte = static_cast<uint8_t>(c);
        if (byte < 248 && characters.size() < 39) {
            characters += kAlphabet[byte % 62];
        }
    }
    const size_t len =
        apikey::shm::native_key_make(prefix.data(), prefix_len, exact.get(), random.size(), out.get());
    if (prefix_len < 1 || prefix_len > 8 || characters.size() < 39) {
        require(len == 0);
        return;
    }
    std::string expected = prefix + "_" + characters.substr(0, 12) + "_" + characters.substr(12);
    expected += reference_checksum(expected);
    require(std::string(out.get(), len) == expected);
    check_presented(expected);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size == 0) {
        check_presented("");
        return 0;
    }
    const uint8_t how = data[0];
    std::string key(reinterpret_cast<const char*>(data) + 1, size - 1);
    check_presented(key);
    check_made(key);
    if ((how & 1) != 0 && key.size() >= 47) {
        key[key.size() - 47] = '_';
        key[key.size() - 34] = '_';
        check_presented(key);
    }
    if ((how & 2) != 0 && key.size() >= 6) {
        key.replace(key.size() - 6, 6, reference_checksum(key.substr(0, key.size() - 6)));
        check_presented(key);
    }
    return 0;
}
