// Which mapping each thread of this process is reading, so that the thread that replaces a mapping knows when
// the old one may be unmapped.
//
// One record a thread, claimed by compare-and-swap at its first call and given back by a pthread key's
// destructor. All records stand in pages that the kernel wipes in a forked child (MADV_WIPEONFORK), so a
// child never sees records of threads it does not have. Threads that find no free record count themselves in
// and out instead.
//
// This is the hazard pointer scheme (M. Michael, "Hazard Pointers: Safe Memory Reclamation for Lock-Free
// Objects", 2004) with the reader's fence moved to the reclaiming side by membarrier(2).
//
// Thread safety: all functions, from any thread. Nothing here allocates after records_prepare(), but for
// pthread_setspecific() at a thread's first call in a process with more than 32 pthread keys.

#pragma once

#include <cstdint>

#include "shm/atomics.h"

namespace apikey::client {

struct alignas(64) Record {
    shm::Atomic<uintptr_t> owner;      ///< address of the owning thread's thread-local block; 0: free
    shm::Atomic<const void*> reading;  ///< the mapping in use, nullptr between calls
};

inline constexpr unsigned kRecords = 1022;

/// Maps the pages and makes the pthread key, once per process. False without memory for them.
bool records_prepare();

/// The thread's record, and by its address the thread's name. initial-exec: no allocation at the first touch.
// NOLINTNEXTLINE(bugprone-dynamic-static-initializers): constinit
extern constinit thread_local Record* t_record __attribute__((tls_model("initial-exec")));

inline uintptr_t this_thread() {
    return reinterpret_cast<uintptr_t>(&t_record);
}

/// Claims a record for this thread; nullptr when none is free or records_prepare() failed. Makes no syscall
/// of its own.
Record* claim_record();

/// This thread's record, claimed at its first call. The owner is compared since a fork wipes the records and
/// leaves the thread's pointer.
inline Record* record_of_this_thread() {
    Record* record = t_record;
    if (record != nullptr && record->owner.load(std::memory_order_relaxed) == this_thread()) [[likely]] {
        return record;
    }
    return claim_record();
}

/// For threads without a record.
void count_in();
void count_out();

/// True when some thread may still be reading `mapping`. To be called after a heavy_fence()
/// (asymmetric_fence.h) that came after the mapping was replaced; where that fails, nothing may be unmapped.
bool someone_reads(const void* mapping);

/// The process's number, for people to read: 0 in a child that was made by other means than fork(). No
/// syscall.
uint32_t this_process();

/// One thread of the process at a time switches mappings; the flag is free again in a forked child.
bool switching_try_begin();
void switching_end();

}  // namespace apikey::client
