// What the usage store keeps by the hour, to the database of the fleet.
//
// The store remembers what the database lacks, and the database what it has of the store: whatever ends in
// between, or is put back, what is sent next sets it right. Nothing waits for the database.

#pragma once

#include <chrono>
#include <memory>
#include <random>
#include <string>

#include "runtime/log.h"
#include "runtime/worker.h"
#include "usage/postgres_usage.h"
#include "usage/usage_store.h"

namespace apikeyd {

/// Lives on the loop's thread. The store is used on the thread of flushes, between these; the database is
/// waited for on a thread of its own. After a failure it waits, longer each time and with chance in it, up to
/// a minute.
class UsageSender {
  public:
    /// `store`: the one that `flushes` writes, opened to send.
    UsageSender(std::shared_ptr<UsageStore> store, Worker& flushes, Worker& worker, std::string place,
                ServingHost host, Log& log);

    /// After each flush: sends what is unsent, in batches one behind the other, unless that is under way.
    void send();
    /// What is under way on the worker gives up soon.
    void stop() { usage_->stop(); }

    /// Empty, or why the last batch could not be sent; it waits in the usage store meanwhile.
    [[nodiscard]] const std::string& last_error() const { return last_error_; }

  private:
    using Clock = std::chrono::steady_clock;
    struct Job;

    void take();
    void give(const std::shared_ptr<Job>& job);
    void note(const std::shared_ptr<Job>& job);
    void failed(const Error& error);

    std::shared_ptr<UsageStore> store_;     // shared with the jobs
    std::shared_ptr<PostgresUsage> usage_;  // the same
    Worker& flushes_;
    Worker& worker_;
    Log& log_;
    bool sending_ = false;
    std::string last_error_;
    Clock::time_point again_{};
    Clock::time_point told_{};  ///< when the database took the last one
    std::chrono::milliseconds pause_;
    std::minstd_rand chance_{std::random_device{}()};
};

}  // namespace apikeyd
