// The system clock with a step in it, for programs that load this first (LD_PRELOAD) or link it:
// CLOCK_REALTIME as the kernel has it, and as many nanoseconds more as the file says that APIKEYD_TEST_CLOCK
// names, and as this process says. Other clocks are the kernel's.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <ctime>

extern "C" {
std::atomic<int64_t> stepped_clock_own_ns{0};
}

namespace {

constexpr int64_t kSecond_ns = 1000000000;

using Step = std::atomic<int64_t>;

const Step* map_step(const char* path) {
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    void* page = mmap(nullptr, sizeof(Step), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    return page != MAP_FAILED ? static_cast<const Step*>(page) : nullptr;
}

/// 0 until the file is named.
int64_t step_ns() {
    static std::atomic<const Step*> mapped{nullptr};
    const Step* step = mapped.load(std::memory_order_acquire);
    if (step == nullptr) {
        const char* path = getenv("APIKEYD_TEST_CLOCK");
        step = path != nullptr ? map_step(path) : nullptr;
        mapped.store(step, std::memory_order_release);
    }
    return (step != nullptr ? step->load(std::memory_order_relaxed) : 0) +
           stepped_clock_own_ns.load(std::memory_order_relaxed);
}

}  // namespace

extern "C" int clock_gettime(clockid_t clock, timespec* now) {
    const auto result = static_cast<int>(syscall(SYS_clock_gettime, clock, now));
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        const int64_t at_ns = now->tv_sec * kSecond_ns + now->tv_nsec + step_ns();
        *now = {at_ns / kSecond_ns, at_ns % kSecond_ns};
    }
    return result;
}

extern "C" time_t time(time_t* out) {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    if (out != nullptr) {
        *out = now.tv_sec;
    }
    return now.tv_sec;
}
