// A fence that costs the frequent side nothing: each side's store is before its own load, as if both had a
// sequentially consistent fence in between. Readers keep the compiler from reordering; the rare side has
// every CPU that runs a thread of this process take a fence (membarrier(2), Linux 4.14).
//
// The models (tests/model) have their own in place of this.

#pragma once

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>

namespace apikey::client {

/// The frequent side's. No instruction.
inline void light_fence() {
    std::atomic_signal_fence(std::memory_order_seq_cst);
}

/// Once per process, before heavy_fence() is first needed; spares it a call.
inline void prepare_heavy_fence() {
    syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
}

/// The rare side's. A system call; false where the kernel cannot.
inline bool heavy_fence() {
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0) {
        return true;
    }
    // A child of a fork from before the registration, or a kernel that forgot: register and try once more.
    prepare_heavy_fence();
    return syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0;
}

}  // namespace apikey::client
