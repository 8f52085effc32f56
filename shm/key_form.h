// The native form of a key: <prefix>_<id:12>_<secret:27><crc:6>, base62, 54 bytes with the prefix `ak_live`.
//
// The parts have fixed lengths and are found from the end, so parsing costs the same for every prefix and
// never searches. The checksum tells people and scanners a typo or a leak without the table; the hot path
// does not compute it, only a miss does (kMalformed instead of kNotFound).
//
// Base62 is digits, capitals, small letters, in ASCII's order: 0-9 A-Z a-z, so a digit's value grows with its
// byte.

#pragma once

#include <cstddef>
#include <cstdint>

namespace apikey::shm {

inline constexpr size_t kIdLength = 12;      // 71 random bits, public
inline constexpr size_t kSecretLength = 27;  // 160 random bits
inline constexpr size_t kCrcLength =
    6;  // CRC-32 (IEEE 802.3) of all before it, base62, most significant first
inline constexpr size_t kNativeTailLength = kIdLength + 1 + kSecretLength + kCrcLength;  // 46
inline constexpr size_t kPrefixLengthMax = 8;  // keeps a native key at 55 bytes: one SHA-256 block
inline constexpr size_t kNativeKeyLengthMax = kPrefixLengthMax + 1 + kNativeTailLength;
inline constexpr size_t kForeignKeyLengthMin = 16;
inline constexpr size_t kKeyLengthMax = 512;  // anything longer is malformed

/// Where the id of a native-looking key stands, or nullptr when `key` cannot be native: too short, too long,
/// or no `_` on both sides of the id. Looks at the length and those two bytes; O(1), touches no secret byte.
inline const char* native_key_id(const char* key, size_t key_len) {
    if (key_len < kNativeTailLength + 2 || key_len > kNativeKeyLengthMax) {
        return nullptr;
    }
    const char* id = key + (key_len - kNativeTailLength);
    return id[-1] == '_' && id[kIdLength] == '_' ? id : nullptr;
}

/// True when the last six characters are the checksum of all before them and every character of the tail but
/// its underscore is base62. Only for naming a miss; not constant time, not a proof of anything.
bool native_key_checksum_ok(const char* key, size_t key_len);

/// Writes a native key for `prefix` into `out` (prefix_len + 47 bytes, no NUL) from `random`, which must hold
/// enough fresh bytes (64 suffice nearly always) from the kernel. Each character is drawn without modulo bias
/// (rejection). The prefix's characters are the caller's to check. Returns the bytes written, or 0 when
/// prefix_len is out of range (`out` untouched) or `random` ran out of acceptable bytes (`out` cleared; draw
/// again). Wiping `random` and, in time, `out` is the caller's duty.
size_t native_key_make(const char* prefix, size_t prefix_len, const uint8_t* random, size_t random_len,
                       char* out);

}  // namespace apikey::shm
