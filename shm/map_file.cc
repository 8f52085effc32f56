#include "shm/map_file.h"

#include <sys/mman.h>

#include "shm/layout.h"

namespace apikey::shm {

void* map_file(int fd, uint64_t bytes, int protection) {
    if (bytes < kHugePageBytes) {
        return mmap(nullptr, bytes, protection, MAP_SHARED, fd, 0);
    }
    const uint64_t reserved = bytes + kHugePageBytes;
    void* area = mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED) {
        return area;
    }
    auto* start = static_cast<uint8_t*>(area);
    const uint64_t before =
        (kHugePageBytes - reinterpret_cast<uintptr_t>(area) % kHugePageBytes) % kHugePageBytes;
    void* mapped = mmap(start + before, bytes, protection, MAP_SHARED | MAP_FIXED, fd, 0);
    if (mapped == MAP_FAILED) {
        munmap(area, reserved);
        return mapped;
    }
    // What was reserved on both sides goes back.
    const uint64_t end = before + (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
    if (before != 0) {
        munmap(start, before);
    }
    if (end < reserved) {
        munmap(start + end, reserved - end);
    }
    return mapped;
}

}  // namespace apikey::shm
