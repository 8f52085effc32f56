// An instance without files: a control, and generations that are named, locked and unlinked as files are.
//
// shm/attach.h's functions are defined for it in generation_memory.cc, in place of those that open files: a
// name is a word, an open file description's lock is one, and each mapping has addresses of its own.

#pragma once

#include "shm/attach.h"
#include "shm/control_writer.h"
#include "tests/model/table_memory.h"

namespace apikey::model {

class GenerationMemory {
  public:
    GenerationMemory() : cells_(kCellsBytes) {}

    /// Empty and complete under its names, for a run or while one goes on.
    void create(uint32_t generation);
    TableMemory& table() { return table_; }
    /// The next attach fails for want of a descriptor.
    void refuse_an_attach() { refused_ = true; }
    uint32_t number() { return table_.view().generation; }

    /// The daemon's harvest: false while somebody maps it; else its last counts were taken and the files are
    /// gone.
    bool harvest(shm::CellSums* sums, uint64_t* answers);
    /// What was counted here, by whoever may.
    void count(shm::CellSums* sums, uint64_t* answers);

    /// As the daemon has them.
    shm::Word& meter(const KeyRow& row, uint32_t word);
    shm::Word& owner_meter(uint32_t owner);
    shm::CellsView cells() { return cells_view(cells_.data()); }

    /// As attach_generation() and detach_generation().
    shm::AttachResult attach(const shm::Control& control, shm::GenerationMapping* out);
    void detach(shm::GenerationMapping* mapping);

  private:
    shm::CellsView cells_view(uint8_t* base);

    static constexpr size_t kOwnersOffset = 512;
    static constexpr size_t kCellsOffset = 1024;
    static constexpr size_t kRingOffset = 2 * shm::kPageBytes;  // closed: denials_model has an open one
    static constexpr size_t kCellsBytes = 3 * shm::kPageBytes;
    TableMemory table_;
    SharedMemory cells_;
    shm::Atomic<int> lock_{0};  ///< -1: the daemon's write lock, else the number of read locks
    shm::Atomic<uint32_t> named_{0};
    bool refused_ = false;
};

/// The next call of pthread_setspecific() fails.
void fail_setspecific();

/// Calls the destructor of the one pthread key, when `value` is not nullptr.
void end_of_thread(void* value);

struct InstanceMemory {
    static constexpr uint32_t kGenerations = 3;

    /// One for all runs; a run begins with reset().
    static InstanceMemory& get();
    void reset();

    /// From 1.
    GenerationMemory& generation(uint32_t number) { return generations[number - 1]; }

    GenerationMemory generations[kGenerations];
    shm::ControlWriter control;
};

}  // namespace apikey::model
