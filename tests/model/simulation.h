// What the models are made of: scenarios of a few threads that run the project's own code, and the operations
// of their shared words, which Relacy (relacy-dev, D. Vyukov) simulates under the C++ memory model: every
// load may return any value that the model allows, and threads are preempted at every operation.
//
// Relacy's headers define macros over new, malloc and std::memory_order_*: only simulation.cc sees them.

#pragma once

#include <atomic>  // std::memory_order
#include <cstddef>
#include <cstdint>
#include <memory>

#include "tests/support/call_place.h"

namespace apikey::model {

using Where = test::CallPlace;

/// One way to use the code. A new object for each run: made and prepared by one thread, whose work all others
/// see.
class Scenario {
  public:
    virtual ~Scenario() = default;
    virtual void before() {}
    virtual void thread(unsigned number) = 0;
    /// After all threads.
    virtual void after() {}
};

/// A promise of the scenario: that it does not hold ends the simulation.
void expect(bool holds, const char* promise);

/// Runs the model's scenario as the command line says, and returns the exit status; see simulation.cc.
int simulate(int argc, char** argv, unsigned threads, std::unique_ptr<Scenario> (*make)());

template <typename Made>
int simulate(int argc, char** argv, unsigned threads) {
    return simulate(argc, argv, threads,
                    []() -> std::unique_ptr<Scenario> { return std::make_unique<Made>(); });
}

/// Keeps a thread-local variable of the real code apart for each simulated thread. All of them run on one
/// thread of the system.
void keep_per_thread(void** variable);

/// Words in this memory are only read as they were before the threads began, and are no places to preempt.
void leave_out(const void* at, size_t bytes);
/// The memory at `alias` is the same as that at `memory`, mapped once more by this thread: its words are
/// those. Whoever touches it has to know of the mapping, and nobody may when it is gone.
void begin_alias(const void* alias, const void* memory, size_t bytes);
void end_alias(const void* alias);

/// True while no threads run: words are what memory holds.
bool in_memory();

// Operations of shared words, by address, while threads run; `before` is what memory holds. Used by
// shm/atomics.h of the models.
uint64_t load(const void* at, uint64_t before, std::memory_order order, const Where& where);
void store(const void* at, uint64_t before, uint64_t value, std::memory_order order, const Where& where);
uint64_t exchange(const void* at, uint64_t before, uint64_t value, std::memory_order order,
                  const Where& where);
uint64_t fetch_add(const void* at, uint64_t before, uint64_t value, std::memory_order order,
                   const Where& where);
bool compare_exchange(const void* at, uint64_t before, uint64_t* expected, uint64_t desired,
                      std::memory_order order, std::memory_order failure, const Where& where);
void plain_load(const void* at, const Where& where);
void plain_store(const void* at, const Where& where);
/// Sequentially consistent.
void fence(const Where& where);
void fence_of_all_threads(const Where& where);
/// How the asymmetric fence is to be read in this run.
bool membarrier();

}  // namespace apikey::model
