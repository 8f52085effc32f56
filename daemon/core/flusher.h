// From counters and quota words in shared memory to the usage store, and the end of generations nobody uses
// any more.
//
// The counters only grow, so a flush may come at any time and fail at any time: the next one brings the same
// sums. A generation is unlinked only when its last sums are committed.

#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/publisher.h"
#include "usage/usage_store.h"

namespace apikeyd {

/// Lives on the loop's thread; sweeping and writing run on the worker it is given.
class Flusher {
  public:
    Flusher(Publisher& publisher, Worker& worker, UsageStore store, Log& log);
    ~Flusher();

    using Done = std::function<void(Result<FlushSummary>)>;
    /// Sums up what was counted before this call and puts it into the store.
    void flush(Done done);
    /// The same on the calling thread, for the daemon's end. The worker must have been stopped.
    Result<FlushSummary> flush_now();
    /// What was taken of quotas, as the store has it: with what earlier generations still had to say, for a
    /// start that adopts none of them. No flush may be under way.
    Result<std::shared_ptr<const StoredQuotas>> stored_quotas();
    /// Harvests superseded generations that nobody maps any more.
    void retire_unused();
    /// Has `look` called with each of these before its files go; again when it could not be harvested.
    void before_retiring(std::function<void(const GenerationPtr&)> look) {
        before_retiring_ = std::move(look);
    }

    /// For jobs on the worker, between flushes.
    const std::shared_ptr<UsageStore>& store() const { return store_; }

    /// Empty, or why the last flush failed; counts wait in shared memory meanwhile.
    const std::string& last_error() const { return last_error_; }
    uint64_t quarantined() const { return quarantined_; }

  private:
    class Sweep;
    struct Job;

    static Result<FlushSummary> sweep_and_flush(UsageStore& store, Sweep& sweep, Job& job);
    void forget_vanished();
    void start();
    void finish(const std::shared_ptr<Job>& job);
    void retire(const GenerationPtr& generation);

    Publisher& publisher_;
    Worker& worker_;
    std::shared_ptr<UsageStore> store_;  // shared with the jobs on the worker
    std::shared_ptr<Sweep> sweep_;
    Log& log_;
    std::vector<Done> waiting_;  // for a flush that has not begun
    bool flushing_ = false;
    std::vector<GenerationPtr> retiring_;
    std::function<void(const GenerationPtr&)> before_retiring_ = [](const GenerationPtr&) {};
    std::string last_error_;
    std::string last_harvest_error_;  // tried every second: said once
    uint64_t quarantined_ = 0;
};

}  // namespace apikeyd
