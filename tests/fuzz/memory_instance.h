// An instance whose files are blocks of memory, for fuzzers of the client: shm/attach.h's functions are
// defined for it in memory_instance.cc, in place of those that open files. What they hand out is checked as
// ever.
//
// One thread, one instance at a time.

#pragma once

#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#include "shm/layout.h"

namespace apikey::fuzz {

/// A block of exactly `bytes`, aligned as a mapping is: the address sanitizer sees one byte too many.
class Block {
  public:
    explicit Block(size_t bytes)
        : bytes_(bytes), data_(::operator new (bytes, std::align_val_t{shm::kPageBytes})) {
        std::memset(data_, 0, bytes);
    }
    explicit Block(const std::vector<uint8_t>& from) : Block(from.size()) {
        if (!from.empty()) {
            std::memcpy(data_, from.data(), from.size());
        }
    }
    ~Block() { ::operator delete (data_, std::align_val_t{shm::kPageBytes}); }
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;
    uint8_t* data() const { return static_cast<uint8_t*>(data_); }
    size_t bytes() const { return bytes_; }

  private:
    size_t bytes_;
    void* data_;
};

/// The files of a generation. Both must outlive every client that may have attached to them.
struct MemoryGeneration {
    uint32_t number;
    const Block* table;
    const Block* cells;  ///< nullptr: this process may not write them
};

/// The instance that clients find while this lives, under whatever name they look.
class MemoryInstance {
  public:
    MemoryInstance(uint32_t current, uint32_t next, std::vector<MemoryGeneration> generations);
    ~MemoryInstance();
    MemoryInstance(const MemoryInstance&) = delete;
    MemoryInstance& operator=(const MemoryInstance&) = delete;

    shm::Control& control() { return control_; }
    const MemoryGeneration* find(uint32_t generation) const;

  private:
    shm::Control control_{};
    std::vector<MemoryGeneration> generations_;
};

}  // namespace apikey::fuzz
