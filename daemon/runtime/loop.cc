#include "runtime/loop.h"

#include <fmt/core.h>
#include <poll.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "base/errno_text.h"
#include "runtime/loop_backends.h"

namespace apikeyd {

unsigned Loop::to_poll_mask(Interest interest) {
    return (wants_read(interest) ? unsigned{POLLIN} : 0U) | (wants_write(interest) ? unsigned{POLLOUT} : 0U);
}

Ready Loop::from_poll_mask(unsigned mask, Interest interest) {
    Ready ready;
    ready.closed = (mask & (POLLHUP | POLLERR | POLLNVAL)) != 0;
    ready.readable = wants_read(interest) && ((mask & POLLIN) != 0 || ready.closed);
    ready.writable = wants_write(interest) && ((mask & POLLOUT) != 0 || ready.closed);
    return ready;
}

Result<WatchId> Loop::watch(int fd, Interest interest, WatchCallback callback) {
    if (watch_by_fd_.contains(fd)) {
        return fail(fmt::format("event loop: descriptor {} is watched already", fd));
    }
    // Checked here so that both back ends refuse alike: to io_uring a regular file is always ready, and would
    // spin.
    struct stat status {};
    if (::fstat(fd, &status) != 0) {
        return fail(fmt::format("event loop: cannot watch descriptor {}: {}", fd, errno_text(errno)));
    }
    if (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode)) {
        return fail(
            fmt::format("event loop: descriptor {} is a file or directory, which has no readiness", fd));
    }
    const WatchId id{++last_id_};
    if (interest != Interest::none) {
        if (const int error_number = add(id, fd, interest); error_number != 0) {
            return fail(
                fmt::format("event loop: cannot watch descriptor {}: {}", fd, errno_text(error_number)));
        }
    }
    watches_.emplace(id.value, Watch{fd, interest, std::make_shared<WatchCallback>(std::move(callback))});
    watch_by_fd_.emplace(fd, id.value);
    return id;
}

Result<void> Loop::change(WatchId id, Interest interest) {
    const auto found = watches_.find(id.value);
    if (found == watches_.end()) {
        return fail("event loop: change of a watch that has ended");
    }
    Watch& watch = found->second;
    if (watch.interest == interest) {
        return {};
    }
    int error_number = 0;
    if (interest == Interest::none) {
        remove(id, watch.fd);
    } else if (watch.interest == Interest::none) {
        error_number = add(id, watch.fd, interest);
    } else {
        error_number = modify(id, watch.fd, interest);
    }
    if (error_number != 0) {
        return fail(
            fmt::format("event loop: cannot watch descriptor {}: {}", watch.fd, errno_text(error_number)));
    }
    watch.interest = interest;
    return {};
}

void Loop::unwatch(WatchId id) {
    const auto found = watches_.find(id.value);
    if (found == watches_.end()) {
        return;
    }
    // Out of the tables first: the callback's captures may call unwatch() again as they are destroyed.
    const Watch watch = std::move(found->second);
    watches_.erase(found);
    watch_by_fd_.erase(watch.fd);
    if (watch.interest != Interest::none) {
        remove(id, watch.fd);
    }
}

TimerId Loop::after(std::chrono::milliseconds delay, TimerCallback callback) {
    return start_timer(std::max(delay, std::chrono::milliseconds{0}), Clock::duration::zero(),
                       std::move(callback));
}

TimerId Loop::every(std::chrono::milliseconds interval, TimerCallback callback) {
    const auto at_least = std::max(interval, std::chrono::milliseconds{1});
    return start_timer(at_least, at_least, std::move(callback));
}

TimerId Loop::start_timer(Clock::duration delay, Clock::duration interval, TimerCallback callback) {
    const TimerId id{++last_id_};
    const auto deadline = Clock::now() + delay;
    timers_.emplace(id.value,
                    Timer{deadline, interval, std::make_shared<TimerCallback>(std::move(callback))});
    deadlines_.emplace(std::pair{deadline, id.value}, id.value);
    return id;
}

void Loop::cancel(TimerId id) {
    const auto found = timers_.find(id.value);
    if (found == timers_.end()) {
        return;
    }
    const Timer timer =
        std::move(found->second);  // destroyed after the tables are consistent, as in unwatch()
    deadlines_.erase({timer.deadline, id.value});
    timers_.erase(found);
}

void Loop::run_due_timers() {
    // The list is fixed before the first call: a timer that starts another one due at once cannot hold the
    // loop.
    const auto now = Clock::now();
    std::vector<std::uint64_t> due;
    for (auto next = deadlines_.begin(); next != deadlines_.end() && next->first.first <= now; ++next) {
        due.push_back(next->second);
    }
    for (const std::uint64_t id : due) {
        const auto found = timers_.find(id);
        if (stopping_ || found == timers_.end()) {
            continue;
        }
        Timer& timer = found->second;
        const auto callback = timer.callback;  // keeps it alive while it runs, whatever it cancels
        deadlines_.erase({timer.deadline, id});
        if (timer.interval == Clock::duration::zero()) {
            timers_.erase(found);
        } else {
            timer.deadline += timer.interval;
            if (timer.deadline <= now) {
                timer.deadline = now + timer.interval;
            }
            deadlines_.emplace(std::pair{timer.deadline, id}, id);
        }
        (*callback)();
    }
}

void Loop::dispatch(const Event& event) {
    const auto found = watches_.find(event.watch.value);
    if (found == watches_.end()) {
        return;  // ended by an earlier callback of this batch
    }
    // An earlier callback may have changed the interest since the kernel answered.
    const Interest interest = found->second.interest;
    Ready ready = event.ready;
    ready.readable = ready.readable && wants_read(interest);
    ready.writable = ready.writable && wants_write(interest);
    if (!ready.readable && !ready.writable) {
        return;
    }
    const auto callback = found->second.callback;  // keeps it alive while it runs, whatever it removes
    (*callback)(ready);
}

Result<void> Loop::run() {
    stopping_ = false;
    std::vector<Event> events;
    while (true) {
        run_due_timers();
        if (stopping_) {
            return {};
        }
        events.clear();
        const auto deadline = deadlines_.empty() ? Clock::time_point::max() : deadlines_.begin()->first.first;
        if (auto waited = wait(deadline, events); !waited) {
            return waited;
        }
        for (const Event& event : events) {
            if (stopping_) {
                return {};
            }
            dispatch(event);
        }
        if (stopping_) {
            return {};
        }
    }
}

Result<std::unique_ptr<Loop>> make_loop(LoopKind kind) {
    if (kind == LoopKind::epoll) {
        return make_epoll_loop();
    }
    auto uring = make_uring_loop();
    if (uring) {
        return std::move(*uring);
    }
    const int refused = uring.error().error_number;
    const bool not_to_be_had =
        refused == ENOSYS || refused == EPERM || refused == EACCES || refused == EINVAL || refused == ENOMEM;
    if (kind == LoopKind::automatic && not_to_be_had) {
        return make_epoll_loop();
    }
    return fail(fmt::format("event loop: io_uring: {}: {}{}", uring.error().step, errno_text(refused),
                            not_to_be_had ? "; choose the epoll loop" : ""));
}

}  // namespace apikeyd
