// SHA-256 in plain C++, for machines without SHA-2 instructions and as the reference for the kernels that use
// them. Source: FIPS 180-4, section 6.2. Correct on either byte order.

#include <bit>
#include <utility>

#include "shm/sha256_kernels.h"

namespace apikey::shm {
namespace {

constexpr size_t kBlockWords = 16;
constexpr size_t kLengthFieldOffset = 56;

/// Clears what held bytes of a key, in a way that the compiler must keep: the empty asm might read all
/// memory.
APIKEY_SHA256_INLINE void wipe(void* memory, size_t len) {
    memset(memory, 0, len);
    __asm__ volatile("" : : "r"(memory) : "memory");
}

APIKEY_SHA256_INLINE uint32_t load_big_endian(const uint8_t* at) {
    return uint32_t{at[0]} << 24 | uint32_t{at[1]} << 16 | uint32_t{at[2]} << 8 | uint32_t{at[3]};
}

APIKEY_SHA256_INLINE void store_big_endian(uint8_t* at, uint32_t value) {
    at[0] = static_cast<uint8_t>(value >> 24);
    at[1] = static_cast<uint8_t>(value >> 16);
    at[2] = static_cast<uint8_t>(value >> 8);
    at[3] = static_cast<uint8_t>(value);
}

/// One round. The roles A to H wander down the array by one place a round instead of the words being moved.
template <size_t kRound>
APIKEY_SHA256_INLINE void round(uint32_t* state, uint32_t word, uint32_t constant) {
    constexpr size_t kA = (8 - kRound % 8) % 8;
    const uint32_t a = state[kA];
    const uint32_t b = state[(kA + 1) % 8];
    const uint32_t c = state[(kA + 2) % 8];
    const uint32_t e = state[(kA + 4) % 8];
    const uint32_t f = state[(kA + 5) % 8];
    const uint32_t g = state[(kA + 6) % 8];
    const uint32_t choice = g ^ (e & (f ^ g));
    const uint32_t majority = (a & b) | (c & (a | b));
    const uint32_t sigma_e = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
    const uint32_t sigma_a = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
    const uint32_t first = state[(kA + 7) % 8] + sigma_e + choice + constant + word;
    state[(kA + 3) % 8] += first;
    state[(kA + 7) % 8] = first + sigma_a + majority;
}

/// The schedule's word 16 rounds on, kept in the place of the word just used.
APIKEY_SHA256_INLINE void extend(uint32_t* words, size_t at) {
    const uint32_t early = words[(at + 1) % kBlockWords];
    const uint32_t late = words[(at + 14) % kBlockWords];
    words[at] += (std::rotr(early, 7) ^ std::rotr(early, 18) ^ early >> 3) + words[(at + 9) % kBlockWords] +
                 (std::rotr(late, 17) ^ std::rotr(late, 19) ^ late >> 10);
}

template <size_t... kRound>
APIKEY_SHA256_INLINE void sixteen_rounds(uint32_t* state, uint32_t* words, const uint32_t* constants,
                                         bool last, std::index_sequence<kRound...> /*unused*/) {
    (round<kRound>(state, words[kRound], constants[kRound]), ...);
    if (!last) {
        (extend(words, kRound), ...);
    }
}

/// Adds one block to the hash state. `words` is the caller's scratch, which the caller wipes.
void compress(uint32_t* hash_state, const uint8_t* block, uint32_t* words) {
    uint32_t state[8];
    memcpy(state, hash_state, sizeof state);
    for (size_t i = 0; i < kBlockWords; ++i) {
        words[i] = load_big_endian(block + 4 * i);
    }
    for (size_t first = 0; first < kSha256Rounds; first += kBlockWords) {
        sixteen_rounds(state, words, kSha256RoundConstants + first, first + kBlockWords == kSha256Rounds,
                       std::make_index_sequence<kBlockWords>());
    }
    for (size_t i = 0; i < 8; ++i) {
        hash_state[i] += state[i];
    }
}

void hash(const void* message, size_t len, uint8_t* digest) {
    uint32_t state[8];
    memcpy(state, kSha256InitialState, sizeof state);
    struct {
        uint32_t words[kBlockWords];
        uint8_t block[kSha256BlockLength];
    } scratch;

    const auto* at = static_cast<const uint8_t*>(message);
    size_t left = len;
    for (; left >= kSha256BlockLength; left -= kSha256BlockLength, at += kSha256BlockLength) {
        compress(state, at, scratch.words);
    }
    memset(scratch.block, 0, sizeof scratch.block);
    if (left > 0) {  // memcpy from nullptr is undefined even for no bytes
        memcpy(scratch.block, at, left);
    }
    scratch.block[left] = 0x80;
    if (left > kSha256OneBlockMax) {
        compress(state, scratch.block, scratch.words);
        memset(scratch.block, 0, sizeof scratch.block);
    }
    const uint64_t bits = static_cast<uint64_t>(len) * 8;
    store_big_endian(scratch.block + kLengthFieldOffset, static_cast<uint32_t>(bits >> 32));
    store_big_endian(scratch.block + kLengthFieldOffset + 4, static_cast<uint32_t>(bits));
    compress(state, scratch.block, scratch.words);
    wipe(&scratch, sizeof scratch);

    for (size_t i = 0; i < 8; ++i) {
        store_big_endian(digest + 4 * i, state[i]);
    }
}

void hash_pair(const void* message_a, size_t len_a, uint8_t* digest_a, const void* message_b, size_t len_b,
               uint8_t* digest_b) {
    hash(message_a, len_a, digest_a);
    hash(message_b, len_b, digest_b);
}

}  // namespace

constinit const Sha256Kernel kSha256Portable = {"portable", hash, hash_pair};

}  // namespace apikey::shm
