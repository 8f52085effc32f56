// Mapping a segment's file so that 2 MiB pages can back it.

#pragma once

#include <cstdint>

namespace apikey::shm {

/// Maps the whole file, shared; at a 2 MiB boundary when it is large enough to be backed by huge pages.
/// MAP_FAILED and errno as mmap(2). The caller unmaps `bytes`.
void* map_file(int fd, uint64_t bytes, int protection);

}  // namespace apikey::shm
