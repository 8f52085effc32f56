// SHA-256 with the SHA-2 instructions of ARMv8 (FEAT_SHA256). Only called where HWCAP reports SHA2.
//
// Sources: FIPS 180-4, section 6.2; Arm Architecture Reference Manual for A-profile, SHA256H, SHA256H2,
// SHA256SU0, SHA256SU1; Arm C Language Extensions, section on the SHA-256 intrinsics.
//
// Message words live in registers from the first load on: there is no block buffer that would have to be
// wiped.

#include <arm_neon.h>

#include <utility>

#include "shm/sha256_kernels.h"

namespace apikey::shm {
namespace {

struct State {
    uint32x4_t abcd;
    uint32x4_t efgh;
};

/// The newest 16 words of the message schedule, four a register; the schedule's group g stands at g % 4.
struct Schedule {
    uint32x4_t group[4];
};

APIKEY_SHA256_INLINE uint32x4_t words_of(uint8x16_t bytes) {
    return vreinterpretq_u32_u8(vrev32q_u8(bytes));
}

APIKEY_SHA256_INLINE uint32x4_t load(const uint8_t* at) {
    return words_of(vld1q_u8(at));
}

APIKEY_SHA256_INLINE uint32x4_t words_of(uint64_t low, uint64_t high) {
    return words_of(vreinterpretq_u8_u64(vcombine_u64(vcreate_u64(low), vcreate_u64(high))));
}

APIKEY_SHA256_INLINE State initial_state() {
    return {vld1q_u32(kSha256InitialState), vld1q_u32(kSha256InitialState + 4)};
}

APIKEY_SHA256_INLINE void store_digest(const State& state, uint8_t* digest) {
    vst1q_u8(digest, vrev32q_u8(vreinterpretq_u8_u32(state.abcd)));
    vst1q_u8(digest + 16, vrev32q_u8(vreinterpretq_u8_u32(state.efgh)));
}

APIKEY_SHA256_INLINE Schedule load_block(const uint8_t* block) {
    return {{load(block), load(block + 16), load(block + 32), load(block + 48)}};
}

/// The last `left` (at most 63) bytes of a message of `total` bytes with the 1 bit and zeros after them; the
/// length field stays zero. Branches on lengths only.
APIKEY_SHA256_INLINE Schedule load_last_block(const uint8_t* at, size_t left, size_t total) {
    const Sha256Quarter end = sha256_end_of_message(at + left, left % 16, total);
    const uint32x4_t last = words_of(end.low, end.high);
    const uint32x4_t zero = vdupq_n_u32(0);
    switch (left / 16) {
        case 3:
            return {{load(at), load(at + 16), load(at + 32), last}};
        case 2:
            return {{load(at), load(at + 16), last, zero}};
        case 1:
            return {{load(at), last, zero, zero}};
        default:
            return {{last, zero, zero, zero}};
    }
}

APIKEY_SHA256_INLINE void add_length_field(Schedule& schedule, size_t total) {
    schedule.group[3] = vorrq_u32(schedule.group[3], words_of(0, sha256_length_field(total)));
}

/// Four rounds for each of `kLanes` messages, and the schedule's group that will be needed 16 rounds on.
template <size_t kGroup, size_t kLanes>
APIKEY_SHA256_INLINE void four_rounds(State* state, Schedule* schedule) {
    const uint32x4_t constants = vld1q_u32(kSha256RoundConstants + 4 * kGroup);
    for (size_t lane = 0; lane < kLanes; ++lane) {
        uint32x4_t* group = schedule[lane].group;
        const uint32x4_t sum = vaddq_u32(group[kGroup % 4], constants);
        const uint32x4_t abcd = state[lane].abcd;
        state[lane].abcd = vsha256hq_u32(abcd, state[lane].efgh, sum);
        state[lane].efgh = vsha256h2q_u32(state[lane].efgh, abcd, sum);
        if constexpr (kGroup < 12) {
            const uint32x4_t partial = vsha256su0q_u32(group[kGroup % 4], group[(kGroup + 1) % 4]);
            group[kGroup % 4] = vsha256su1q_u32(partial, group[(kGroup + 2) % 4], group[(kGroup + 3) % 4]);
        }
    }
}

template <size_t kLanes, size_t... kGroup>
APIKEY_SHA256_INLINE void all_rounds(State* state, Schedule* schedule,
                                     std::index_sequence<kGroup...> /*unused*/) {
    (four_rounds<kGroup, kLanes>(state, schedule), ...);
}

/// Adds one block to each lane's state. The schedules are used up.
template <size_t kLanes>
APIKEY_SHA256_INLINE void compress(State* state, Schedule* schedule) {
    State before[kLanes];
    for (size_t lane = 0; lane < kLanes; ++lane) {
        before[lane] = state[lane];
    }
    all_rounds<kLanes>(state, schedule, std::make_index_sequence<kSha256Rounds / 4>());
    for (size_t lane = 0; lane < kLanes; ++lane) {
        state[lane].abcd = vaddq_u32(state[lane].abcd, before[lane].abcd);
        state[lane].efgh = vaddq_u32(state[lane].efgh, before[lane].efgh);
    }
}

[[gnu::noinline]] void hash_blocks(const uint8_t* at, size_t len, uint8_t* digest) {
    State state = initial_state();
    size_t left = len;
    for (; left >= kSha256BlockLength; left -= kSha256BlockLength, at += kSha256BlockLength) {
        Schedule schedule = load_block(at);
        compress<1>(&state, &schedule);
    }
    Schedule schedule = load_last_block(at, left, len);
    if (left > kSha256OneBlockMax) {
        compress<1>(&state, &schedule);
        const uint32x4_t zero = vdupq_n_u32(0);
        schedule = {{zero, zero, zero, zero}};
    }
    add_length_field(schedule, len);
    compress<1>(&state, &schedule);
    store_digest(state, digest);
}

void hash(const void* message, size_t len, uint8_t* digest) {
    const auto* at = static_cast<const uint8_t*>(message);
    if (len > kSha256OneBlockMax) {
        hash_blocks(at, len, digest);
        return;
    }
    State state = initial_state();
    Schedule schedule = load_last_block(at, len, len);
    add_length_field(schedule, len);
    compress<1>(&state, &schedule);
    store_digest(state, digest);
}

void hash_pair(const void* message_a, size_t len_a, uint8_t* digest_a, const void* message_b, size_t len_b,
               uint8_t* digest_b) {
    if (len_a > kSha256OneBlockMax || len_b > kSha256OneBlockMax) {
        hash(message_a, len_a, digest_a);
        hash(message_b, len_b, digest_b);
        return;
    }
    State state[2] = {initial_state(), initial_state()};
    Schedule schedule[2] = {load_last_block(static_cast<const uint8_t*>(message_a), len_a, len_a),
                            load_last_block(static_cast<const uint8_t*>(message_b), len_b, len_b)};
    add_length_field(schedule[0], len_a);
    add_length_field(schedule[1], len_b);
    compress<2>(state, schedule);
    store_digest(state[0], digest_a);
    store_digest(state[1], digest_b);
}

}  // namespace

constinit const Sha256Kernel kSha256Armv8 = {"armv8-sha2", hash, hash_pair};

}  // namespace apikey::shm
