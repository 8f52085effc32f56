// One thread beside the loop, for what would hold the loop up: parsing, hashing, building a table.

#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "base/owned_fd.h"
#include "base/result.h"
#include "runtime/loop.h"

namespace apikeyd {

struct WorkerOptions {
    std::size_t queue_jobs_max = 16;  ///< jobs waiting behind the running one; submit() refuses more
};

/// A thread with a bounded queue. submit(), stop() and the destructor are called on the loop's thread; the
/// loop outlives the worker. Its thread takes no signal but those of its own faults, and runs jobs one at a
/// time in order.
class Worker {
  public:
    /// Fails when the system has no thread or descriptor left.
    static Result<std::unique_ptr<Worker>> start(Loop& loop, WorkerOptions options = {});

    /// stop().
    ~Worker();
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    /// Queues `job` for the thread; `done` is then called on the loop's thread. Both are destroyed on the
    /// loop's thread, so they may hold objects that belong to it. What job leaves behind, done may read
    /// without a lock. Neither may throw. False, and nothing kept, when the queue is full or the worker has
    /// been stopped.
    [[nodiscard]] bool submit(std::function<void()> job, std::function<void()> done);

    /// Waits for the running job, then ends the thread. Jobs that had not begun are dropped, and so is every
    /// `done` that was not called yet, that of the job just finished included: nobody is told. May be called
    /// by a done, not by a job; a second call does nothing.
    void stop();

  private:
    struct Task {
        std::function<void()> job;
        std::function<void()> done;
    };

    Worker(Loop& loop, WorkerOptions options, OwnedFd wake);
    void thread_main();
    void run_done();

    Loop& loop_;
    const WorkerOptions options_;
    OwnedFd wake_;  // eventfd: something stands in finished_
    WatchId watch_;
    std::thread thread_;

    std::mutex mutex_;
    std::condition_variable changed_;  // queue_ or stopping_ changed
    std::deque<Task> queue_;
    std::deque<Task> finished_;
    bool stopping_ = false;
};

}  // namespace apikeyd
