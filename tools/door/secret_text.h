// Text that may hold a plaintext key: its memory is wiped before it is given back.

#pragma once

#include <string.h>

#include <cstddef>
#include <memory>
#include <string>

namespace apikeyd {

/// Wipes what it frees, so that a container which grows, shrinks or ends leaves nothing behind.
template <typename T>
class WipingAllocator {
  public:
    using value_type = T;

    WipingAllocator() = default;
    template <typename Other>
    WipingAllocator(const WipingAllocator<Other>&) {}  // NOLINT: containers convert it

    T* allocate(size_t count) { return std::allocator<T>().allocate(count); }
    void deallocate(T* memory, size_t count) {
        explicit_bzero(memory, count * sizeof(T));
        std::allocator<T>().deallocate(memory, count);
    }

    friend bool operator==(const WipingAllocator&, const WipingAllocator&) { return true; }
};

/// No key is so short that it stands in the object itself.
using SecretText = std::basic_string<char, std::char_traits<char>, WipingAllocator<char>>;

}  // namespace apikeyd
