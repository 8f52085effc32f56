// The io_uring back end; the only home of liburing.
//
// Each watch is a one-shot IORING_OP_POLL_ADD that is armed again before the next wait, in the same
// io_uring_enter() that waits. One-shot rather than multishot, because a multishot poll tells of wake-ups,
// not of a level: a callback that leaves bytes unread would not be called again, and a busy descriptor could
// fill the completion queue.
//
// Every request has a serial number of its own, so that a late completion of a cancelled or replaced poll is
// known by its number and dropped.

#include <fmt/core.h>
#include <liburing.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <unordered_map>

#include "base/errno_text.h"
#include "runtime/loop_backends.h"

namespace apikeyd {
namespace {

constexpr unsigned kSubmissionEntries = 64;
constexpr unsigned kCompletionEntries = 512;  // more than the daemon's watches and their cancels together
constexpr std::uint64_t kNoRequest = 0;       // completions of cancels carry it; nobody waits for them

class UringLoop final : public Loop {
  public:
    UringLoop() = default;
    ~UringLoop() override {
        if (ready_) {
            io_uring_queue_exit(&ring_);
        }
    }

    /// 0, or the errno and the step that failed.
    RingRefused open() {
        io_uring_params params{};
        params.flags = IORING_SETUP_CQSIZE;
        params.cq_entries = kCompletionEntries;
        if (const int result = io_uring_queue_init_params(kSubmissionEntries, &ring_, &params); result < 0) {
            return {-result, "io_uring_setup"};
        }
        ready_ = true;
        if ((params.features & IORING_FEAT_EXT_ARG) == 0) {
            return {ENOSYS, "the kernel is older than 5.11: io_uring_enter with a time limit"};
        }
        // A sandbox may allow the set-up and refuse the use: one empty request through the whole path tells.
        io_uring_prep_nop(io_uring_get_sqe(&ring_));
        io_uring_cqe* completion = nullptr;
        int result = 0;
        do {
            result = io_uring_submit_and_wait_timeout(&ring_, &completion, 1, nullptr, nullptr);
        } while (result == -EINTR);
        if (result < 0 || completion == nullptr) {
            return {result < 0 ? -result : EINVAL, "io_uring_enter"};
        }
        io_uring_cqe_seen(&ring_, completion);
        return {0, ""};
    }

    std::string_view name() const override { return "io_uring"; }

  private:
    struct Poll {
        int fd;
        Interest interest;
        std::uint64_t request;  // its serial while the kernel has it, else kNoRequest
    };

    int add(WatchId id, int fd, Interest interest) override {
        polls_[id.value] = Poll{fd, interest, kNoRequest};
        to_arm_.push_back(id.value);
        return 0;
    }

    int modify(WatchId id, int /*fd*/, Interest interest) override {
        Poll& poll = polls_.at(id.value);
        poll.interest = interest;
        if (poll.request != kNoRequest) {
            cancel_request(poll.request);
            poll.request = kNoRequest;
            to_arm_.push_back(id.value);
        }  // else it stands in to_arm_, or in the batch being dispatched and then in to_arm_
        return 0;
    }

    void remove(WatchId id, int /*fd*/) override {
        const auto found = polls_.find(id.value);
        const std::uint64_t request = found->second.request;
        polls_.erase(found);
        if (request != kNoRequest) {
            cancel_request(request);
            // At once, not with the next wait: the request holds the open file, and until it is gone the
            // caller's close() is not seen by the other end. A failed submission leaves the cancel queued for
            // the next wait.
            io_uring_submit(&ring_);
        }
    }

    void cancel_request(std::uint64_t request) {
        requests_.erase(request);
        if (io_uring_sqe* entry = next_entry(); entry != nullptr) {
            io_uring_prep_poll_remove(entry, request);
            io_uring_sqe_set_data64(entry, kNoRequest);
        }
    }

    /// A free submission entry; makes room by submitting. Null only when the kernel takes nothing at all.
    io_uring_sqe* next_entry() {
        io_uring_sqe* entry = io_uring_get_sqe(&ring_);
        if (entry == nullptr) {
            io_uring_submit(&ring_);
            entry = io_uring_get_sqe(&ring_);
        }
        return entry;
    }

    void arm_polls() {
        std::size_t armed = 0;
        for (; armed < to_arm_.size(); ++armed) {
            const std::uint64_t watch = to_arm_[armed];
            const auto found = polls_.find(watch);
            if (found == polls_.end() || found->second.request != kNoRequest) {
                continue;
            }
            io_uring_sqe* entry = next_entry();
            if (entry == nullptr) {
                break;
            }
            Poll& poll = found->second;
            poll.request = ++last_request_;
            requests_.emplace(poll.request, watch);
            io_uring_prep_poll_add(entry, poll.fd, to_poll_mask(poll.interest));
            io_uring_sqe_set_data64(entry, poll.request);
        }
        to_arm_.erase(to_arm_.begin(), to_arm_.begin() + static_cast<std::ptrdiff_t>(armed));
    }

    Result<void> wait(Clock::time_point deadline, std::vector<Event>& events) override {
        arm_polls();
        // The interface has no bound on the past: a deadline that is over means "look, do not wait".
        __kernel_timespec limit{};
        __kernel_timespec* limit_or_null = nullptr;
        if (deadline != Clock::time_point::max()) {
            const auto left = std::max(deadline - Clock::now(), Clock::duration::zero());
            const auto seconds = std::chrono::floor<std::chrono::seconds>(left);
            limit.tv_sec = seconds.count();
            limit.tv_nsec = std::chrono::nanoseconds(left - seconds).count();
            limit_or_null = &limit;
        }
        io_uring_cqe* completion = nullptr;
        const int result = io_uring_submit_and_wait_timeout(&ring_, &completion, 1, limit_or_null, nullptr);
        // EAGAIN, EBUSY: the kernel is short of memory or of completion entries; reaping below is the cure.
        if (result < 0 && result != -ETIME && result != -EINTR && result != -EAGAIN && result != -EBUSY) {
            return fail(fmt::format("event loop: io_uring_enter: {}", errno_text(-result)));
        }
        while (io_uring_peek_cqe(&ring_, &completion) == 0) {
            take(*completion, events);
            io_uring_cqe_seen(&ring_, completion);
        }
        return {};
    }

    void take(const io_uring_cqe& completion, std::vector<Event>& events) {
        const auto request = requests_.find(completion.user_data);
        if (request == requests_.end()) {
            return;  // a cancel's answer, or a poll that was cancelled or replaced
        }
        const std::uint64_t watch = request->second;
        requests_.erase(request);
        Poll& poll = polls_.at(watch);
        poll.request = kNoRequest;
        to_arm_.push_back(watch);
        // A failed poll (no memory, a bad descriptor) is told as an error: the callback's read() finds out
        // more.
        const unsigned mask = completion.res < 0 ? unsigned{POLLERR} : static_cast<unsigned>(completion.res);
        events.push_back({WatchId{watch}, from_poll_mask(mask, poll.interest)});
    }

    io_uring ring_{};
    bool ready_ = false;
    std::unordered_map<std::uint64_t, Poll> polls_;  // by watch
    std::unordered_map<std::uint64_t, std::uint64_t>
        requests_;  // serial -> watch, as long as the kernel has it
    std::vector<std::uint64_t> to_arm_;
    std::uint64_t last_request_ = kNoRequest;
};

}  // namespace

tl::expected<std::unique_ptr<Loop>, RingRefused> make_uring_loop() {
    auto loop = std::make_unique<UringLoop>();
    if (const RingRefused refused = loop->open(); refused.error_number != 0) {
        return tl::unexpected<RingRefused>(refused);
    }
    return loop;
}

}  // namespace apikeyd
