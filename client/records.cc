#include "client/records.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/asymmetric_fence.h"

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

namespace apikey::client {

constinit thread_local Record* t_record = nullptr;

namespace {

/// Zero is the state of all of it in a forked child.
struct Pages {
    alignas(64) shm::Atomic<uint64_t> in;
    shm::Atomic<uint64_t> out;
    shm::Atomic<uint32_t> switching;
    shm::Atomic<uint32_t> claim_hint;
    shm::Atomic<uint32_t> process;  ///< its number
    Record records[kRecords];
};

shm::Atomic<Pages*> g_pages{nullptr};
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

void note_process() {
    if (Pages* all = g_pages.load(std::memory_order_relaxed)) {
        all->process.store(static_cast<uint32_t>(getpid()), std::memory_order_relaxed);
    }
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
    prepare_heavy_fence();
    g_pages.store(static_cast<Pages*>(area), std::memory_order_relaxed);
    note_process();
    // A server that forks its workers after it opened: asking there would be a syscall of their first denial.
    // Without memory for it they go unnamed in a log.
    pthread_atfork(nullptr, nullptr, note_process);
}

Pages* pages() {
    // Relaxed: whoever asks has a client, and apikey_open() went through pthread_once() before it made one.
    return g_pages.load(std::memory_order_relaxed);
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
        // SYNC record-owner: acquire; pairs with give_back().
        if (record.owner.load(std::memory_order_relaxed) == 0 &&
            record.owner.compare_exchange_strong(free, this_thread(), std::memory_order_acquire,
                                                 std::memory_order_relaxed)) {
            if (pthread_setspecific(g_key, &record) != 0) {
                // Relaxed, as nothing was done with it: what give_back() released goes on through
                // read-modify-writes.
                record.owner.exchange(0, std::memory_order_relaxed);
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

uint32_t this_process() {
    const Pages* all = pages();
    return all != nullptr ? all->process.load(std::memory_order_relaxed) : 0;
}

bool switching_try_begin() {
    Pages* all = pages();
    // Relaxed, here and below: the flag spares threads the same work, and guards nothing.
    return all != nullptr && all->switching.exchange(1, std::memory_order_relaxed) == 0;
}

void switching_end() {
    if (Pages* all = pages()) {
        all->switching.store(0, std::memory_order_relaxed);
    }
}

}  // namespace apikey::client
