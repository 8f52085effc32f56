#include "client/records.h"

#include <linux/membarrier.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

namespace apikey::client {

constinit thread_local Record* t_record = nullptr;

namespace {

constexpr unsigned kRecords = 1022;

/// Zero is the state of all of it in a forked child.
struct Pages {
    alignas(64) std::atomic<uint64_t> in;
    std::atomic<uint64_t> out;
    std::atomic<uint32_t> switching;
    std::atomic<uint32_t> claim_hint;
    Record records[kRecords];
};

std::atomic<Pages*> g_pages{nullptr};
pthread_key_t g_key;
pthread_once_t g_once = PTHREAD_ONCE_INIT;

void give_back(void* value) {
    auto* record = static_cast<Record*>(value);
    t_record = nullptr;
    // In a forked child the record was wiped and may be another thread's by now.
    uintptr_t mine = this_thread();
    // SYNC record-owner: release; whoever claims it next (claim_record(), acquire) finds it without a
    // mapping.
    record->owner.compare_exchange_strong(mine, 0, std::memory_order_release, std::memory_order_relaxed);
}

void prepare_once() {
    void* area = mmap(nullptr, sizeof(Pages), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) {
        return;
    }
    if (madvise(area, sizeof(Pages), MADV_WIPEONFORK) != 0 || pthread_key_create(&g_key, give_back) != 0) {
        munmap(area, sizeof(Pages));
        return;
    }
    syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
    // SYNC records-ready: release; pairs with pages(). They are mapped, and membarrier is registered.
    g_pages.store(static_cast<Pages*>(area), std::memory_order_release);
}

Pages* pages() {
    // SYNC records-ready: acquire; pairs with prepare_once().
    return g_pages.load(std::memory_order_acquire);
}

}  // namespace

bool records_prepare() {
    pthread_once(&g_once, prepare_once);
    return pages() != nullptr;
}

Record* claim_record() {
    Pages* all = pages();
    if (all == nullptr) {
        return nullptr;
    }
    const uint32_t start = all->claim_hint.fetch_add(1, std::memory_order_relaxed);
    for (unsigned i = 0; i < kRecords; ++i) {
        Record& record = all->records[(start + i) % kRecords];
        uintptr_t free = 0;
        // SYNC record-owner: acquire; pairs with give_back(), and with the release below.
        if (record.owner.load(std::memory_order_relaxed) == 0 &&
            record.owner.compare_exchange_strong(free, this_thread(), std::memory_order_acquire,
                                                 std::memory_order_relaxed)) {
            if (pthread_setspecific(g_key, &record) != 0) {
                record.owner.store(0, std::memory_order_release);
                return nullptr;
            }
            t_record = &record;
            return &record;
        }
    }
    return nullptr;
}

void count_in() {
    if (Pages* all = pages()) {
        // SYNC reader-counted: seq_cst, before the mapping is loaded; pairs with someone_reads().
        all->in.fetch_add(1, std::memory_order_seq_cst);
    }
}

void count_out() {
    if (Pages* all = pages()) {
        // SYNC reader-counted: all reads of the mapping come before; pairs with someone_reads().
        all->out.fetch_add(1, std::memory_order_seq_cst);
    }
}

bool records_synchronise() {
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0) {
        return true;
    }
    // A child of a fork from before the registration, or a kernel that forgot: register and try once more.
    return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0 &&
           syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0;
}

bool someone_reads(const void* mapping) {
    Pages* all = pages();
    if (all == nullptr) {
        return true;
    }
    // SYNC reader-counted: seq_cst, `out` first. It never exceeds `in`, so if the `in` read later equals it,
    // nobody was inside at the first read, and who came in after that loads the mapping that was installed
    // before.
    const uint64_t out = all->out.load(std::memory_order_seq_cst);
    if (out != all->in.load(std::memory_order_seq_cst)) {
        return true;
    }
    for (const Record& record : all->records) {
        // SYNC record-reading: the reader's plain order 'store record, load installed again' is made total
        // against 'install, membarrier, load record' by the membarrier: either we see its record, or it sees
        // the new mapping.
        if (record.reading.load(std::memory_order_acquire) == mapping) {
            return true;
        }
    }
    return false;
}

bool switching_try_begin() {
    Pages* all = pages();
    // SYNC switching: acquire; pairs with switching_end(). What the last one installed is seen.
    return all != nullptr && all->switching.exchange(1, std::memory_order_acquire) == 0;
}

void switching_end() {
    if (Pages* all = pages()) {
        // SYNC switching: release; pairs with switching_try_begin().
        all->switching.store(0, std::memory_order_release);
    }
}

}  // namespace apikey::client
