// SHA-256 with Intel's SHA extensions (SHA-NI). Only called where CPUID reports SHA, SSSE3 and SSE4.1.
//
// Sources: FIPS 180-4, section 6.2; Gulley, Gopal, Yap, Feghali, Guilford, Wolrich: Intel SHA Extensions
// (white paper, July 2013), which defines the order of the state (A B E F and C D G H) and of the message
// schedule's two helpers.
//
// Two rounds are one instruction that waits for the one before it, so one message leaves the unit idle half
// the time on current cores; hash_pair() runs a second message in the gaps.
//
// Message words live in registers from the first load on: there is no block buffer that would have to be
// wiped.

#include <immintrin.h>

#include <utility>

#include "shm/sha256_kernels.h"

namespace apikey::shm {
namespace {

/// The hash state in the order the instructions want, highest lane first.
struct State {
    __m128i abef;
    __m128i cdgh;
};

/// The newest 16 words of the message schedule, four a register; the schedule's group g stands at g % 4.
struct Schedule {
    __m128i group[4];
};

APIKEY_SHA256_INLINE __m128i swap_bytes_in_words(__m128i value) {
    return _mm_shuffle_epi8(value, _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203));
}

APIKEY_SHA256_INLINE __m128i load(const uint8_t* at) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i_u*>(at));
}

APIKEY_SHA256_INLINE State initial_state() {
    const uint32_t* h = kSha256InitialState;
    return {_mm_setr_epi32(static_cast<int>(h[5]), static_cast<int>(h[4]), static_cast<int>(h[1]),
                           static_cast<int>(h[0])),
            _mm_setr_epi32(static_cast<int>(h[7]), static_cast<int>(h[6]), static_cast<int>(h[3]),
                           static_cast<int>(h[2]))};
}

APIKEY_SHA256_INLINE void store_digest(const State& state, uint8_t* digest) {
    const __m128i feba = _mm_shuffle_epi32(state.abef, _MM_SHUFFLE(0, 1, 2, 3));
    const __m128i dchg = _mm_shuffle_epi32(state.cdgh, _MM_SHUFFLE(2, 3, 0, 1));
    const __m128i abcd = _mm_blend_epi16(feba, dchg, 0xf0);
    const __m128i efgh = _mm_alignr_epi8(dchg, feba, 8);
    _mm_storeu_si128(reinterpret_cast<__m128i_u*>(digest), swap_bytes_in_words(abcd));
    _mm_storeu_si128(reinterpret_cast<__m128i_u*>(digest + 16), swap_bytes_in_words(efgh));
}

APIKEY_SHA256_INLINE Schedule load_block(const uint8_t* block) {
    return {{swap_bytes_in_words(load(block)), swap_bytes_in_words(load(block + 16)),
             swap_bytes_in_words(load(block + 32)), swap_bytes_in_words(load(block + 48))}};
}

/// The last `left` (at most 63) bytes of a message of `total` bytes with the 1 bit and zeros after them; the
/// length field stays zero. Branches on lengths only.
APIKEY_SHA256_INLINE Schedule load_last_block(const uint8_t* at, size_t left, size_t total) {
    const Sha256Quarter end = sha256_end_of_message(at + left, left % 16, total);
    const __m128i last =
        swap_bytes_in_words(_mm_set_epi64x(static_cast<int64_t>(end.high), static_cast<int64_t>(end.low)));
    const __m128i zero = _mm_setzero_si128();
    switch (left / 16) {
        case 3:
            return {{swap_bytes_in_words(load(at)), swap_bytes_in_words(load(at + 16)),
                     swap_bytes_in_words(load(at + 32)), last}};
        case 2:
            return {{swap_bytes_in_words(load(at)), swap_bytes_in_words(load(at + 16)), last, zero}};
        case 1:
            return {{swap_bytes_in_words(load(at)), last, zero, zero}};
        default:
            return {{last, zero, zero, zero}};
    }
}

APIKEY_SHA256_INLINE void add_length_field(Schedule& schedule, size_t total) {
    const __m128i field = _mm_set_epi64x(static_cast<int64_t>(sha256_length_field(total)), 0);
    schedule.group[3] = _mm_or_si128(schedule.group[3], swap_bytes_in_words(field));
}

/// Adds the constants of four rounds. In assembler because compilers load all sixteen quadruples ahead, which
/// leaves no registers for the message: it would be spilled to the stack, where nobody could wipe it.
APIKEY_SHA256_INLINE __m128i add_constants(__m128i words, size_t group) {
    const auto* constants = reinterpret_cast<const __m128i*>(kSha256RoundConstants) + group;
    __asm__("paddd %1, %0" : "+x"(words) : "m"(*constants));
    return words;
}

/// Four rounds for each of `kLanes` messages, and the schedule's group that will be needed 16 rounds on.
template <size_t kGroup, size_t kLanes>
APIKEY_SHA256_INLINE void four_rounds(State* state, Schedule* schedule) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
        __m128i* group = schedule[lane].group;
        const __m128i sum = add_constants(group[kGroup % 4], kGroup);
        state[lane].cdgh = _mm_sha256rnds2_epu32(state[lane].cdgh, state[lane].abef, sum);
        const __m128i upper = _mm_shuffle_epi32(sum, _MM_SHUFFLE(0, 0, 3, 2));
        state[lane].abef = _mm_sha256rnds2_epu32(state[lane].abef, state[lane].cdgh, upper);
        if constexpr (kGroup < 12) {
            const __m128i seventh = _mm_alignr_epi8(group[(kGroup + 3) % 4], group[(kGroup + 2) % 4], 4);
            const __m128i partial = _mm_sha256msg1_epu32(group[kGroup % 4], group[(kGroup + 1) % 4]);
            group[kGroup % 4] =
                _mm_sha256msg2_epu32(_mm_add_epi32(partial, seventh), group[(kGroup + 3) % 4]);
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
        state[lane].abef = _mm_add_epi32(state[lane].abef, before[lane].abef);
        state[lane].cdgh = _mm_add_epi32(state[lane].cdgh, before[lane].cdgh);
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
        const __m128i zero = _mm_setzero_si128();
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

/// The block of a message of 48 to 55 bytes, as all native keys are: load_last_block() without its choices.
APIKEY_SHA256_INLINE Schedule load_native_length(const uint8_t* at, size_t len) {
    const uint64_t end = sha256_last_bytes(at + len, len - 48, len) | uint64_t{0x80} << (8 * (len - 48));
    return {{swap_bytes_in_words(load(at)), swap_bytes_in_words(load(at + 16)),
             swap_bytes_in_words(load(at + 32)),
             swap_bytes_in_words(
                 _mm_set_epi64x(static_cast<int64_t>(sha256_length_field(len)), static_cast<int64_t>(end)))}};
}

void hash_pair(const void* message_a, size_t len_a, uint8_t* digest_a, const void* message_b, size_t len_b,
               uint8_t* digest_b) {
    // Other lengths could be interleaved too, but the merging of their cases takes more registers than there
    // are.
    if (len_a / 8 != 6 || len_b / 8 != 6) {
        hash(message_a, len_a, digest_a);
        hash(message_b, len_b, digest_b);
        return;
    }
    State state[2] = {initial_state(), initial_state()};
    Schedule schedule[2] = {load_native_length(static_cast<const uint8_t*>(message_a), len_a),
                            load_native_length(static_cast<const uint8_t*>(message_b), len_b)};
    compress<2>(state, schedule);
    store_digest(state[0], digest_a);
    store_digest(state[1], digest_b);
}

}  // namespace

constinit const Sha256Kernel kSha256ShaNi = {"sha-ni", hash, hash_pair};

}  // namespace apikey::shm
