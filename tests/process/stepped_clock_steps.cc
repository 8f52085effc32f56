#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "stepped_clock.h"

namespace apikeyd::test {

SteppedClock& SteppedClock::get() {
    static SteppedClock clock;
    return clock;
}

SteppedClock::SteppedClock() {
    const int fd = memfd_create("clock", MFD_CLOEXEC);
    void* page = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, sizeof(int64_t)) == 0) {
        page = mmap(nullptr, sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    if (page == MAP_FAILED) {
        throw std::runtime_error("no memory for the clock's step");
    }
    step_ns_ = static_cast<std::atomic<int64_t>*>(page);
    // Open as long as this process lives, and so there for the others.
    const std::string path = "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(fd);
    setenv("APIKEYD_TEST_CLOCK", path.c_str(), 1);
    setenv("LD_PRELOAD", getenv("STEPPED_CLOCK"), 1);
}

}  // namespace apikeyd::test
