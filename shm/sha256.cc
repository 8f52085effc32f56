#include "shm/sha256.h"

#include <atomic>

#include "shm/sha256_kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace apikey::shm {
namespace {

/// The kernel written for this machine's own instructions, or nullptr when it lacks them.
const Sha256Kernel* native_kernel() {
#if defined(__x86_64__)
    // The registers are SSE's, which every x86-64 system saves; so no XGETBV is needed.
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    unsigned edx = 0;
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & bit_SSSE3) == 0 || (ecx & bit_SSE4_1) == 0) {
        return nullptr;
    }
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0 || (ebx & bit_SHA) == 0) {
        return nullptr;
    }
    return &kSha256ShaNi;
#elif defined(__aarch64__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return (getauxval(AT_HWCAP) & HWCAP_SHA2) != 0 ? &kSha256Armv8 : nullptr;
#else
    return nullptr;
#endif
}

// Constant-initialised; no guard. Threads that meet nullptr together all store the same value.
constinit std::atomic<const Sha256Kernel*> chosen_kernel{nullptr};
static_assert(std::atomic<const Sha256Kernel*>::is_always_lock_free);

const Sha256Kernel& choose_kernel() {
    const Sha256Kernel* native = native_kernel();
    const Sha256Kernel& kernel = native != nullptr ? *native : kSha256Portable;
    // Relaxed here and below: the kernels are constants of the program, nothing is published with the
    // pointer.
    chosen_kernel.store(&kernel, std::memory_order_relaxed);
    return kernel;
}

}  // namespace

const Sha256Kernel& sha256_kernel() {
    const Sha256Kernel* kernel = chosen_kernel.load(std::memory_order_relaxed);
    return kernel != nullptr ? *kernel : choose_kernel();
}

size_t sha256_kernels(const Sha256Kernel** out, size_t capacity) {
    size_t count = 0;
    const Sha256Kernel* native = native_kernel();
    if (native != nullptr && count < capacity) {
        out[count++] = native;
    }
    if (count < capacity) {
        out[count++] = &kSha256Portable;
    }
    return count;
}

}  // namespace apikey::shm
