#include "postgres/listener.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <random>
#include <system_error>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/errno_text.h"
#include "base/owned_fd.h"
#include "postgres/connection.h"
#include "postgres/place.h"

namespace apikeyd {

namespace {

constexpr uint64_t kNsPerMs = 1'000'000;
constexpr uint32_t kConnectWait_ms = 5'000;
/// A server that is asked and says nothing for so long is not there.
constexpr uint32_t kAnswerWait_ms = 10'000;
/// The kernel's keepalives notice a machine that went; this notices a server that hangs.
constexpr uint32_t kAskInterval_ms = 30'000;
constexpr uint32_t kBackOffMin_ms = 100;
constexpr uint32_t kBackOffMax_ms = 10'000;
constexpr auto kEndWait = std::chrono::milliseconds(150);
constexpr std::string_view kDoing = "listening for changes";

}  // namespace

/// What the thread works on. It may outlive the listener.
class PostgresListener::Shared {
  public:
    Shared(std::string place, std::function<void()> heard, OwnedFd stop)
        : place_(std::move(place)), heard_(std::move(heard)), stop_(std::move(stop)) {}

    void thread_main();
    /// True when the thread has come to its end within kEndWait.
    bool stop();
    std::string problem() const {
        const std::lock_guard lock(mutex_);
        return problem_;
    }

  private:
    enum class Heard : uint8_t { kLost, kRefused, kStopped };

    Heard listen();
    Heard wait_for_changes(const PostgresConnection& connection);
    bool sleep(uint32_t wait_ms);
    void tell();
    void set_problem(std::string problem) {
        const std::lock_guard lock(mutex_);
        problem_ = std::move(problem);
    }
    Heard failed(std::string problem, Heard how) {
        set_problem(std::move(problem));
        return stopping_->load() ? Heard::kStopped : how;
    }

    const std::string place_;
    std::function<void()> heard_;  // empty once it ends; under mutex_
    const OwnedFd stop_;           // eventfd: readable when it ends
    const std::shared_ptr<std::atomic<bool>> stopping_ = std::make_shared<std::atomic<bool>>(false);

    uint64_t listens_since_ns_ = 0;  // the thread's

    mutable std::mutex mutex_;
    std::condition_variable changed_;  // ended_
    std::string problem_ = "not connected yet";
    bool ended_ = false;
};

void PostgresListener::Shared::thread_main() {
    ::pthread_setname_np(::pthread_self(), "apikeyd-listen");
    std::minstd_rand random(std::random_device{}());
    uint32_t bound_ms = kBackOffMin_ms;
    while (true) {
        listens_since_ns_ = UINT64_MAX;
        const Heard how = listen();
        if (how == Heard::kStopped) {
            break;
        }
        // One that was lost soon after it came about is no sign that the next one will stay.
        if (const uint64_t now_ns = monotonic_now_ns();
            now_ns > listens_since_ns_ && now_ns - listens_since_ns_ > kBackOffMax_ms * kNsPerMs) {
            bound_ms = kBackOffMin_ms;
        }
        uint32_t wait_ms = kBackOffMax_ms;  // who does not know LISTEN will not learn it soon
        if (how == Heard::kLost) {
            // Full jitter: the hosts of a service do not come back to their server in step.
            wait_ms = std::uniform_int_distribution<uint32_t>(0, bound_ms)(random);
            bound_ms = std::min(bound_ms * 2, kBackOffMax_ms);
        }
        if (!sleep(wait_ms)) {
            break;
        }
    }
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
}

/// One connection, from its begin to its end.
PostgresListener::Shared::Heard PostgresListener::Shared::listen() {
    auto connection = PostgresConnection::open(place_, {.connect_wait_ms_max = kConnectWait_ms,
                                                        .answer_wait_ms_max = kAnswerWait_ms,
                                                        .stopping = stopping_});
    if (!connection) {
        return failed(connection.error().message, Heard::kLost);
    }
    const PostgresConnection& listening = **connection;
    if (!listening.execute((std::string("LISTEN ") + kPostgresChannel).c_str())) {
        const bool broken = listening.broken();
        return failed(listening.last_error(kDoing).message, broken ? Heard::kLost : Heard::kRefused);
    }
    const Result<bool> direct = listening.is_direct(kDoing);
    if (!direct) {
        return failed(direct.error().message, Heard::kLost);
    }
    // In session mode a pooler lets all through; in transaction mode it says so too, and lets little through.
    set_problem(*direct ? ""
                        : listening.named() + ": " + std::string(kDoing) +
                              ": a connection pooler stands before the server, which may keep notifications "
                              "back; name the server itself in the URI to hear of each change at once");
    listens_since_ns_ = monotonic_now_ns();
    tell();
    return wait_for_changes(listening);
}

PostgresListener::Shared::Heard PostgresListener::Shared::wait_for_changes(
    const PostgresConnection& connection) {
    uint64_t ask_at_ns = monotonic_now_ns() + kAskInterval_ms * kNsPerMs;
    while (true) {
        const uint64_t now_ns = monotonic_now_ns();
        if (now_ns >= ask_at_ns) {
            // Empty, it does nothing, and still it is answered.
            if (!connection.execute("")) {
                return failed(connection.last_error(kDoing).message, Heard::kLost);
            }
            ask_at_ns = monotonic_now_ns() + kAskInterval_ms * kNsPerMs;
        } else {
            pollfd polled[] = {{.fd = connection.descriptor(), .events = POLLIN, .revents = 0},
                               {.fd = stop_.get(), .events = POLLIN, .revents = 0}};
            const uint64_t left_ms = (ask_at_ns - now_ns + kNsPerMs - 1) / kNsPerMs;
            if (::poll(polled, std::size(polled), static_cast<int>(left_ms)) < 0 && errno != EINTR) {
                return failed(std::string(kDoing) + ": poll: " + errno_text(errno), Heard::kLost);
            }
        }
        if (stopping_->load()) {
            return Heard::kStopped;
        }
        if (connection.take_notifications()) {
            tell();
        }
        if (connection.broken()) {
            return failed(connection.last_error(kDoing).message, Heard::kLost);
        }
    }
}

/// False: it ends.
bool PostgresListener::Shared::sleep(uint32_t wait_ms) {
    const uint64_t until_ns = monotonic_now_ns() + wait_ms * kNsPerMs;
    for (uint64_t now_ns = monotonic_now_ns(); now_ns < until_ns && !stopping_->load();
         now_ns = monotonic_now_ns()) {
        pollfd polled{.fd = stop_.get(), .events = POLLIN, .revents = 0};
        ::poll(&polled, 1, static_cast<int>((until_ns - now_ns + kNsPerMs - 1) / kNsPerMs));
    }
    return !stopping_->load();
}

void PostgresListener::Shared::tell() {
    const std::lock_guard lock(mutex_);  // or it could be called after the listener went
    if (heard_) {
        heard_();
    }
}

bool PostgresListener::Shared::stop() {
    std::unique_lock lock(mutex_);
    stopping_->store(true);
    heard_ = nullptr;  // what it holds belongs to the caller's thread
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(stop_.get(), &one, sizeof(one));
    return changed_.wait_for(lock, kEndWait, [this] { return ended_; });
}

Result<std::unique_ptr<PostgresListener>> PostgresListener::start(const std::string& place,
                                                                  std::function<void()> heard) {
    if (Result<void> checked = check_postgres_place(place); !checked) {
        return tl::unexpected(checked.error());
    }
    OwnedFd stop(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    if (!stop.is_open()) {
        return fail("key store listener: eventfd: " + errno_text(errno));
    }
    auto shared = std::make_shared<Shared>(place, std::move(heard), std::move(stop));
    std::unique_ptr<PostgresListener> listener(new PostgresListener(shared));

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
        listener->thread_ = std::thread([shared = std::move(shared)] { shared->thread_main(); });
    } catch (const std::system_error& error) {
        error_number = error.code().value();
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (error_number != 0) {
        return fail("key store listener: cannot start a thread: " + errno_text(error_number));
    }
    return listener;
}

PostgresListener::PostgresListener(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}

PostgresListener::~PostgresListener() {
    if (!thread_.joinable()) {
        return;
    }
    if (shared_->stop()) {
        thread_.join();
    } else {
        thread_.detach();
    }
}

std::string PostgresListener::problem() const {
    return shared_->problem();
}

}  // namespace apikeyd
