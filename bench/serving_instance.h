// The daemon without its source and its socket: the loop, the publisher with its builder, the flusher with
// its store, on the threads that apikeyd has, in this process.

#pragma once

#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <string>

#include "bench/serving_crew.h"
#include "core/flusher.h"
#include "core/publisher.h"
#include "runtime/loop.h"

namespace apikey::bench {

/// The budget within which the builder shards cells by CPU.
inline constexpr uint64_t kShardsBudgetBytes = uint64_t{16} << 20;
inline constexpr uint64_t kNoShards = 0;

/// What the source would say of key `number`.
apikeyd::KeyRow row_of_key(uint64_t number);

/// Not thread-safe. Whatever waits lets the loop run, looks after the crew, and throws as Crew::check() does.
class ServingInstance {
  public:
    /// Makes a table of the keys from 0 to `keys` - 1, as the builder would but straight from their numbers
    /// (10 million rows in memory take more than both tables), and starts on it as a restarted daemon does.
    ServingInstance(std::string base, uint64_t keys, uint64_t shards_budget_bytes, Crew& crew);
    ~ServingInstance();

    apikeyd::Publisher& publisher() { return *publisher_; }
    apikeyd::Flusher& flusher() { return *flusher_; }
    apikeyd::Worker& flush_worker() { return *flush_worker_; }
    apikeyd::Loop& loop() { return *loop_; }

    /// Until a callback calls loop().stop().
    void run();
    void run_for(double seconds);
    /// Until `condition`, looked at each millisecond: not while anything is timed.
    void run_until(const std::function<bool()>& condition);

    struct BuildTime {
        double seconds;      ///< from the asking to the telling
        double cpu_seconds;  ///< of the builder's thread
    };
    /// Has the next generation built and published, as for `keys` more keys that found no room.
    BuildTime publish_next(uint64_t keys);
    /// Gives key `number` a rate that passes whatever a host can ask for, so that what it costs shows. Takes
    /// a generation whose cells have meters.
    void limit_key(uint64_t number);
    /// Until every superseded generation was let go by all clients, and has gone. Not harvested: that takes
    /// time by what was counted in it, and is measured by itself (serving_sweep.cc).
    void drop_superseded();

  private:
    void start_timers();

    std::string base_;
    Crew& crew_;
    uint64_t next_key_;  ///< the number of the next key to be added
    std::unique_ptr<apikeyd::Log> log_;
    std::unique_ptr<apikeyd::Loop> loop_;
    std::unique_ptr<apikeyd::Worker> builder_;
    std::unique_ptr<apikeyd::Worker> flush_worker_;
    std::unique_ptr<apikeyd::Publisher> publisher_;
    std::unique_ptr<apikeyd::Flusher> flusher_;
    std::exception_ptr problem_;  ///< met in a callback, thrown by run()
};

/// CPU time that the calling thread has used.
double thread_cpu_s();

/// The value, or RunEnded with the error's words.
template <typename T>
T value_or_end(apikeyd::Result<T> result) {
    if (!result) {
        throw RunEnded(kUnreachable, result.error().message);
    }
    if constexpr (!std::is_void_v<T>) {
        return std::move(*result);
    }
}

}  // namespace apikey::bench
