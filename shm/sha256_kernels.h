// What the SHA-256 kernels share: constants, the end of a message, and each other's names. Private to
// shm/sha256*.cc.
//
// A kernel's file is compiled for instructions that this machine may not have. Nothing in this header may
// therefore become a function that the linker merges between files: everything is a constant or is inlined by
// force.
//
// Source: FIPS 180-4, Secure Hash Standard, sections 4.2.2 (constants), 5.1.1 (padding), 5.3.3 (initial
// value).

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "shm/sha256.h"

#define APIKEY_SHA256_INLINE [[gnu::always_inline]] static inline

namespace apikey::shm {

// All are constant-initialised, which the declarations alone do not tell clang-tidy.
// NOLINTBEGIN(bugprone-dynamic-static-initializers)
extern constinit const Sha256Kernel kSha256Portable;
extern constinit const Sha256Kernel kSha256ShaNi;  // x86-64 with SHA, SSSE3 and SSE4.1
extern constinit const Sha256Kernel kSha256Armv8;  // AArch64 with FEAT_SHA256
// NOLINTEND(bugprone-dynamic-static-initializers)

inline constexpr size_t kSha256BlockLength = 64;
inline constexpr size_t kSha256Rounds = 64;

/// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
alignas(64) inline constexpr uint32_t kSha256RoundConstants[kSha256Rounds] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/// The first 32 bits of the fractional parts of the square roots of the first 8 primes: A to H.
alignas(32) inline constexpr uint32_t kSha256InitialState[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

/// Sixteen bytes of a block in memory order; the byte at offset 0 is the lowest of `low`.
struct Sha256Quarter {
    uint64_t low;
    uint64_t high;
};

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
APIKEY_SHA256_INLINE uint64_t sha256_load64(const uint8_t* at) {
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/// The fewer than eight bytes before `end`, moved to the bottom of a word. `before` counts the message's
/// bytes before `end`, so that one load that reaches back does where there is something to reach back into.
APIKEY_SHA256_INLINE uint64_t sha256_last_bytes(const uint8_t* end, size_t count, size_t before) {
    if (before >= 8) {
        return (sha256_load64(end - 8) >> (63 - 8 * count)) >> 1;  // two steps: a shift by 64 is undefined
    }
    uint64_t value = 0;
    for (size_t i = count; i > 0; --i) {
        value = value << 8 | *(end - count + i - 1);
    }
    return value;
}

/// The `count` (at most 15) last bytes of a message of `total` bytes that ends at `end`, then the bit 1 that
/// ends every message, then zeros. Never reads outside the message; builds in registers, so no copy stays on
/// the stack.
APIKEY_SHA256_INLINE Sha256Quarter sha256_end_of_message(const uint8_t* end, size_t count, size_t total) {
    if (count < 8) {
        return {sha256_last_bytes(end, count, total) | uint64_t{0x80} << (8 * count), 0};
    }
    return {sha256_load64(end - count),
            sha256_last_bytes(end, count - 8, total) | uint64_t{0x80} << (8 * (count - 8))};
}

/// A message's length in bits as its last block ends with it: eight bytes, big-endian.
APIKEY_SHA256_INLINE uint64_t sha256_length_field(size_t len) {
    return __builtin_bswap64(static_cast<uint64_t>(len) * 8);
}
#endif

}  // namespace apikey::shm
