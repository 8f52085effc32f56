// What is shared between threads or processes, in memory that is shared or not, is one of these; layout.h and
// the client's records are made of them.
//
// The models (tests/model) put a header of their own in this one's place: there each operation is a choice
// that is tried in every way the memory model allows, on the same code.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstring>

namespace apikey::shm {

/// A word that changes while others read it.
template <typename T>
using Atomic = std::atomic<T>;

/// A word that is written before the atomic store that makes it reachable, and not again.
template <typename T>
using Plain = T;

/// The same for bytes: writes and reads them where others are not.
inline void write_plain(void* to, const void* from, size_t bytes) {
    if (bytes != 0) {  // `from` may be nullptr then
        std::memcpy(to, from, bytes);
    }
}
inline void read_plain(void* to, const void* from, size_t bytes) {
    std::memcpy(to, from, bytes);
}

}  // namespace apikey::shm
