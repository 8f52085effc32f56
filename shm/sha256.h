// SHA-256 of presented keys, by the fastest kernel this machine has.
//
// The kernel is chosen once per process (SHA-NI on x86, the SHA-2 instructions of ARMv8, else portable C++)
// and is reached through one table of functions. No kernel branches or indexes on the message's bytes, reads
// outside the message, or leaves a copy of it in memory (what the compiler may spill from registers aside).
//
// Source: FIPS 180-4, Secure Hash Standard. The kernels' files name what their instructions are described in.

#pragma once

#include <cstddef>
#include <cstdint>

namespace apikey::shm {

inline constexpr size_t kDigestLength = 32;
inline constexpr size_t kSha256OneBlockMax = 55;  // longest message that is one compression

/// One implementation. All functions are pure and thread-safe.
struct Sha256Kernel {
    const char* name;
    /// Any length; `message` may be nullptr when it is 0. `digest` receives 32 bytes, big-endian words as
    /// FIPS 180-4 says.
    void (*hash)(const void* message, size_t len, uint8_t* digest);
    /// Two messages of any lengths. Interleaved, where that pays, when both have a native key's length (48 to
    /// 55 bytes; on ARM any up to kSha256OneBlockMax); others are hashed one after the other.
    void (*hash_pair)(const void* message_a, size_t len_a, uint8_t* digest_a, const void* message_b,
                      size_t len_b, uint8_t* digest_b);
};

/// The kernel for this machine. Decided at the first call by CPUID (x86) or HWCAP (ARM); never fails.
/// Takes no lock and makes no syscall (getauxval reads memory).
const Sha256Kernel& sha256_kernel();

/// All kernels this machine can run, for tests and benchmarks; the last entry is the portable one.
/// Returns how many were written to `out` (at most `capacity`).
size_t sha256_kernels(const Sha256Kernel** out, size_t capacity);

}  // namespace apikey::shm
