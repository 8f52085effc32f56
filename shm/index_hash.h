// Where a key's slot is looked for first: a seeded 64-bit hash of the id, or of the digest for foreign keys.
//
// The only home of xxHash. The hash spreads keys over the table and decides nothing: that a key is right is
// decided by its SHA-256. The seed is random for each generation, so that nobody can prepare ids that meet in
// one place; even full collisions (published ones exist for XXH3) would cost probes, never a wrong verdict.
//
// Source: XXH3_64bits, https://github.com/Cyan4973/xxHash, doc/xxhash_spec.md. Both functions are part of the
// layout: daemon and clients must agree on every bit, so changing them is a new ABI.

#pragma once

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstddef>
#include <cstdint>

#include "shm/key_form.h"

namespace apikey::shm {

inline constexpr size_t kIndexDigestLength = 16;  // as much of a digest as a slot holds in one piece

/// Told apart from the seed of the ids: without it an id and a digest would be hashed by one function, and
/// one's distribution could be probed with the other.
inline constexpr uint64_t kIndexDigestDomain =
    0x9e3779b97f4a7c15;  // 2^64 / golden ratio: no structure of XXH3's

/// Hash of the 12 bytes at `id`, whatever they hold; reads exactly those.
inline uint64_t index_hash_id(const char* id, uint64_t seed) {
    return XXH3_64bits_withSeed(id, kIdLength, seed);
}

/// Hash of the first 16 bytes of a SHA-256 digest; reads exactly those.
inline uint64_t index_hash_digest(const uint8_t* digest, uint64_t seed) {
    return XXH3_64bits_withSeed(digest, kIndexDigestLength, seed ^ kIndexDigestDomain);
}

}  // namespace apikey::shm
