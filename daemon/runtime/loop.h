// The daemon's event loop: descriptors that became ready, timers, and nothing else. Signals, inotify,
// wake-ups from other threads and sockets all arrive as descriptors (signalfd, inotify, eventfd), so this is
// all the daemon needs.
//
// Two back ends stand behind one class: io_uring, and epoll where io_uring is forbidden (container profiles
// answer its system calls with EPERM or ENOSYS). The loop tells of readiness and callers read() and write()
// themselves. Submitting the reads and writes to io_uring too would need buffers that outlive a cancelled
// request, a second code path under epoll, and would save nothing here: the daemon's sockets carry a few
// short lines a second. Under io_uring the polls, their cancelling, the waiting and its time limit are
// requests to the ring: one system call per turn of the loop.
//
// Shape learnt from two others: as in sd-event a source that is removed while it is dispatched stays alive
// until its callback has returned; as in libuv an event that is already in the batch is dropped when its
// watch has gone, and the kernel forgets a descriptor before unwatch() returns, so that the caller may close
// it (libuv issue 4323 tells what happens otherwise).

#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/result.h"
#include "runtime/loop_kind.h"

namespace apikeyd {

/// What a watch waits for.
enum class Interest : std::uint8_t {
    none,  ///< paused: nothing is told, not even that the other end hung up
    readable,
    writable,
    readable_writable,
};

/// What happened. A hang-up or an error counts as readable and writable as far as those are waited for, so
/// that the read() or write() that follows meets it; `closed` says that it was one.
struct Ready {
    bool readable = false;
    bool writable = false;
    bool closed = false;
};

/// Names one watch. Never used twice by one loop: a stale id is harmless everywhere. The default names
/// nothing.
struct WatchId {
    std::uint64_t value = 0;
    bool operator==(const WatchId&) const = default;
};

/// Names one timer, under the same rules.
struct TimerId {
    std::uint64_t value = 0;
    bool operator==(const TimerId&) const = default;
};

/// Not thread-safe: everything, stop() too, is called on the thread that calls run(). Other threads wake it
/// through an eventfd that is watched (see worker.h).
class Loop {
  public:
    using WatchCallback = std::function<void(Ready)>;
    using TimerCallback = std::function<void()>;

    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;
    virtual ~Loop() = default;

    /// "io_uring" or "epoll".
    virtual std::string_view name() const = 0;

    /// Calls `callback` on each turn of the loop as long as `fd` is ready (level-triggered). The descriptor
    /// stays the caller's, who calls unwatch() before closing it. One descriptor has at most one watch. Fails
    /// when it has one already, when it cannot be polled (a regular file), or when the kernel is out of
    /// memory or watches.
    Result<WatchId> watch(int fd, Interest interest, WatchCallback callback);

    /// Changes what is waited for. Fails only as watch() does; a stale id is an error.
    Result<void> change(WatchId id, Interest interest);

    /// Ends the watch; its callback is not called again, even when an event for it is waiting in this turn's
    /// batch. Allowed in any callback, the watch's own included. The callback object dies at once, or when it
    /// returns.
    void unwatch(WatchId id);

    /// Calls `callback` once, not before `delay` has passed on CLOCK_MONOTONIC.
    TimerId after(std::chrono::milliseconds delay, TimerCallback callback);

    /// Calls `callback` each `interval` (at least 1 ms). Ticks that a busy loop missed are left out, not made
    /// up for.
    TimerId every(std::chrono::milliseconds interval, TimerCallback callback);

    /// Ends the timer; same rules as unwatch().
    void cancel(TimerId id);

    /// Dispatches until stop() is called. Fails only when the kernel refuses to wait at all.
    Result<void> run();

    /// Makes run() return after the callback that is running; what is left of the batch is seen by the next
    /// run(), as readiness is a level.
    void stop() { stopping_ = true; }

  protected:
    using Clock = std::chrono::steady_clock;  // CLOCK_MONOTONIC in libstdc++

    struct Event {
        WatchId watch;
        Ready ready;
    };

    Loop() = default;

    // What a back end does. add/modify answer 0 or an errno; interest is never `none` in add and modify.
    virtual int add(WatchId id, int fd, Interest interest) = 0;
    virtual int modify(WatchId id, int fd, Interest interest) = 0;
    /// The kernel has forgotten the descriptor when this returns.
    virtual void remove(WatchId id, int fd) = 0;
    /// Appends what is ready; waits for it no longer than until `deadline` (max(): for ever).
    virtual Result<void> wait(Clock::time_point deadline, std::vector<Event>& events) = 0;

    static bool wants_read(Interest interest) {
        return interest == Interest::readable || interest == Interest::readable_writable;
    }
    static bool wants_write(Interest interest) {
        return interest == Interest::writable || interest == Interest::readable_writable;
    }
    /// poll(2) bits (epoll's are the same) from and to our own words.
    static unsigned to_poll_mask(Interest interest);
    static Ready from_poll_mask(unsigned mask, Interest interest);

  private:
    struct Watch {
        int fd;
        Interest interest;
        std::shared_ptr<WatchCallback> callback;  // shared with the dispatch under way
    };
    struct Timer {
        Clock::time_point deadline;
        Clock::duration interval;  // zero: one-shot
        std::shared_ptr<TimerCallback> callback;
    };

    TimerId start_timer(Clock::duration delay, Clock::duration interval, TimerCallback callback);
    void run_due_timers();
    void dispatch(const Event& event);

    std::unordered_map<std::uint64_t, Watch> watches_;
    std::unordered_map<int, std::uint64_t> watch_by_fd_;
    std::unordered_map<std::uint64_t, Timer> timers_;
    std::map<std::pair<Clock::time_point, std::uint64_t>, std::uint64_t> deadlines_;  // (when, id) -> id
    std::uint64_t last_id_ = 0;
    bool stopping_ = false;
};

/// Makes a loop. `automatic` takes epoll where the kernel or a sandbox refuses io_uring (ENOSYS, EPERM,
/// EACCES), is too old for what is used here (5.11) or charges rings to a locked-memory limit that is used up
/// (ENOMEM). Asking for io_uring by name makes those an error. Other failures (EMFILE) are errors either way.
Result<std::unique_ptr<Loop>> make_loop(LoopKind kind);

}  // namespace apikeyd
