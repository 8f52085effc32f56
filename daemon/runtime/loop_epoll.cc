#include <fmt/core.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>
#include <unordered_map>

#include "base/errno_text.h"
#include "base/owned_fd.h"
#include "runtime/loop_backends.h"

namespace apikeyd {
namespace {

constexpr int kBatchEvents = 64;

class EpollLoop final : public Loop {
  public:
    explicit EpollLoop(OwnedFd epoll) : epoll_(std::move(epoll)) {}

    std::string_view name() const override { return "epoll"; }

  private:
    int control(int operation, WatchId id, int fd, Interest interest) {
        epoll_event event{};
        event.events = to_poll_mask(interest);
        event.data.u64 = id.value;
        return ::epoll_ctl(epoll_.get(), operation, fd, &event) == 0 ? 0 : errno;
    }

    int add(WatchId id, int fd, Interest interest) override {
        const int error_number = control(EPOLL_CTL_ADD, id, fd, interest);
        if (error_number == 0) {
            interests_[id.value] = interest;
        }
        return error_number;
    }

    int modify(WatchId id, int fd, Interest interest) override {
        const int error_number = control(EPOLL_CTL_MOD, id, fd, interest);
        if (error_number == 0) {
            interests_[id.value] = interest;
        }
        return error_number;
    }

    void remove(WatchId id, int fd) override {
        interests_.erase(id.value);
        control(EPOLL_CTL_DEL, id, fd,
                Interest::none);  // can only fail if the caller closed it before unwatch()
    }

    Result<void> wait(Clock::time_point deadline, std::vector<Event>& events) override {
        std::array<epoll_event, kBatchEvents> batch;
        const int count = ::epoll_wait(epoll_.get(), batch.data(), kBatchEvents, timeout_ms(deadline));
        if (count < 0) {
            if (errno == EINTR) {
                return {};
            }
            return fail(fmt::format("event loop: epoll_wait: {}", errno_text(errno)));
        }
        for (int i = 0; i < count; ++i) {
            const epoll_event& event = batch[static_cast<std::size_t>(i)];
            const auto interest = interests_.find(event.data.u64);
            if (interest != interests_.end()) {
                events.push_back({WatchId{event.data.u64}, from_poll_mask(event.events, interest->second)});
            }
        }
        return {};
    }

    /// Rounded up: a timer never fires early, and the loop does not spin through its last millisecond.
    static int timeout_ms(Clock::time_point deadline) {
        if (deadline == Clock::time_point::max()) {
            return -1;
        }
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
        return static_cast<int>(std::clamp<std::int64_t>(left, 0, std::numeric_limits<int>::max()));
    }

    OwnedFd epoll_;
    std::unordered_map<std::uint64_t, Interest> interests_;
};

}  // namespace

Result<std::unique_ptr<Loop>> make_epoll_loop() {
    OwnedFd epoll(::epoll_create1(EPOLL_CLOEXEC));
    if (!epoll.is_open()) {
        return fail(fmt::format("event loop: epoll_create1: {}", errno_text(errno)));
    }
    return std::make_unique<EpollLoop>(std::move(epoll));
}

}  // namespace apikeyd
