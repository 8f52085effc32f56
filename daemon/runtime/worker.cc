#include "runtime/worker.h"

#include <fmt/core.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <system_error>
#include <utility>

#include "base/errno_text.h"

namespace apikeyd {

Result<std::unique_ptr<Worker>> Worker::start(Loop& loop, WorkerOptions options) {
    OwnedFd wake(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    if (!wake.is_open()) {
        return fail(fmt::format("worker: eventfd: {}", errno_text(errno)));
    }
    std::unique_ptr<Worker> worker(new Worker(loop, options, std::move(wake)));
    auto watch =
        loop.watch(worker->wake_.get(), Interest::readable, [raw = worker.get()](Ready) { raw->run_done(); });
    if (!watch) {
        return tl::unexpected<Error>(watch.error());
    }
    worker->watch_ = *watch;

    // The thread inherits the mask, so it is blocked from its first instruction on.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    // A fault raised by the thread's own instruction must reach its handler: blocked, it ends the process at
    // once.
    for (const int fault : {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGABRT}) {
        sigdelset(&all, fault);
    }
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    int error_number = 0;
    try {
        worker->thread_ = std::thread([raw = worker.get()] { raw->thread_main(); });
    } catch (const std::system_error& error) {
        error_number = error.code().value();
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (error_number != 0) {
        return fail(fmt::format("worker: cannot start a thread: {}", errno_text(error_number)));
    }
    return worker;
}

Worker::Worker(Loop& loop, WorkerOptions options, OwnedFd wake)
    : loop_(loop), options_(options), wake_(std::move(wake)) {}

Worker::~Worker() {
    stop();
}

bool Worker::submit(std::function<void()> job, std::function<void()> done) {
    {
        const std::lock_guard lock(mutex_);
        if (stopping_ || queue_.size() >= options_.queue_jobs_max) {
            return false;
        }
        queue_.push_back({std::move(job), std::move(done)});
    }
    changed_.notify_one();
    return true;
}

void Worker::stop() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    changed_.notify_one();
    if (thread_.joinable()) {
        thread_.join();
    }
    loop_.unwatch(watch_);
    // Out of the members first: what they hold may reach back here as it is destroyed. No lock: the thread
    // has gone.
    const auto queue = std::exchange(queue_, {});
    const auto finished = std::exchange(finished_, {});
}

void Worker::thread_main() {
    ::pthread_setname_np(::pthread_self(), "apikeyd-worker");
    std::unique_lock lock(mutex_);
    while (true) {
        changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
        if (stopping_) {
            return;
        }
        Task task = std::move(queue_.front());
        queue_.pop_front();
        lock.unlock();
        task.job();
        lock.lock();
        finished_.push_back(std::move(task));  // with its job: it is destroyed on the loop's thread
        // The counter cannot overflow and the loop reads it whole; EAGAIN would mean that it is awake anyway.
        const std::uint64_t one = 1;
        [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof(one));
    }
}

void Worker::run_done() {
    std::uint64_t count = 0;
    [[maybe_unused]] const ssize_t bytes = ::read(wake_.get(), &count, sizeof(count));
    std::deque<Task> finished;
    {
        const std::lock_guard lock(mutex_);
        finished.swap(finished_);
    }
    for (Task& task : finished) {
        {
            const std::lock_guard lock(mutex_);
            if (stopping_) {
                return;  // an earlier done called stop()
            }
        }
        task.done();
    }
}

}  // namespace apikeyd
