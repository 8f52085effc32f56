#include "core/bus_guard.h"

#include <signal.h>
#include <sys/mman.h>

#include <atomic>
#include <cstdint>

namespace apikeyd {
namespace {

constexpr int kAreas = 4096;

struct Area {
    std::atomic<uintptr_t> base;  // 0: free
    std::atomic<size_t> bytes;
};
Area g_areas[kAreas];

/// Runs on the faulting thread. mmap is a bare system call; nothing else is used.
void on_sigbus(int signal_number, siginfo_t* info, void*) {
    const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
    for (Area& area : g_areas) {
        // Relaxed, all words here: whoever touches an area was given it after it was noted, by the thread
        // that noted it, and does not look at one that is being noted or forgotten.
        const uintptr_t base = area.base.load(std::memory_order_relaxed);
        const size_t bytes = area.bytes.load(std::memory_order_relaxed);
        if (base == 0 || address < base || address >= base + bytes) {
            continue;
        }
        // NOLINTNEXTLINE(performance-no-int-to-ptr): the address is kept as a number
        void* zeros = mmap(reinterpret_cast<void*>(base), bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        if (zeros != MAP_FAILED) {
            return;
        }
    }
    signal(signal_number, SIG_DFL);  // not ours: the same instruction faults again and ends the process
}

}  // namespace

void install_bus_guard() {
    struct sigaction action {};
    action.sa_sigaction = on_sigbus;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, nullptr);
}

BusGuardedArea::BusGuardedArea(void* base, size_t bytes) : slot_(-1) {
    if (base == nullptr) {
        return;  // no cells to guard; and a slot with this base would be anyone's
    }
    for (int i = 0; i < kAreas && slot_ < 0; ++i) {
        if (g_areas[i].base.load(std::memory_order_relaxed) == 0) {
            g_areas[i].bytes.store(bytes, std::memory_order_relaxed);
            g_areas[i].base.store(reinterpret_cast<uintptr_t>(base), std::memory_order_relaxed);
            slot_ = i;
        }
    }
}

BusGuardedArea::~BusGuardedArea() {
    if (slot_ >= 0) {
        g_areas[slot_].base.store(0, std::memory_order_relaxed);
    }
}

}  // namespace apikeyd
