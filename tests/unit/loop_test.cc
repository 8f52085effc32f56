#include "runtime/loop.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <vector>

#include "base/owned_fd.h"
#include "loop_fixture.h"
#include "runtime/signals.h"

namespace apikeyd {
namespace {

using std::chrono::milliseconds;

struct SocketPair {
    SocketPair() {
        std::array<int, 2> fds{-1, -1};
        EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds.data()), 0);
        ours.reset(fds[0]);
        theirs.reset(fds[1]);
    }
    OwnedFd ours;
    OwnedFd theirs;
};

OwnedFd ready_eventfd() {
    return OwnedFd(::eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC));
}

using LoopTest = LoopFixture;
INSTANTIATE_TEST_SUITE_P(BothLoops, LoopTest, both_loops(), loop_param_name);

TEST_P(LoopTest, HasTheNameOfItsBackEnd) {
    EXPECT_EQ(loop_->name(), GetParam() == LoopKind::io_uring ? "io_uring" : "epoll");
}

TEST_P(LoopTest, ReadinessIsALevel) {
    SocketPair pair;
    ASSERT_EQ(::write(pair.theirs.get(), "abc", 3), 3);
    std::string seen;
    const auto watch = loop_->watch(pair.ours.get(), Interest::readable, [&](Ready ready) {
        EXPECT_TRUE(ready.readable);
        EXPECT_FALSE(ready.writable);
        EXPECT_FALSE(ready.closed);
        char byte = 0;  // one byte a call: the rest must be told again
        ASSERT_EQ(::read(pair.ours.get(), &byte, 1), 1);
        seen += byte;
        if (seen.size() == 3) {
            loop_->stop();
        }
    });
    ASSERT_TRUE(watch.has_value());
    run();
    EXPECT_EQ(seen, "abc");
}

TEST_P(LoopTest, InterestCanChangeAndPause) {
    SocketPair pair;
    std::vector<std::string> told;
    WatchId id;
    const auto watch = loop_->watch(pair.ours.get(), Interest::writable, [&](Ready ready) {
        told.emplace_back(ready.writable ? "writable" : "readable");
        if (told.size() == 1) {
            ASSERT_TRUE(loop_->change(id, Interest::readable));
            ASSERT_EQ(::write(pair.theirs.get(), "x", 1), 1);
        } else {
            ASSERT_TRUE(loop_->change(id, Interest::none));
            loop_->after(milliseconds(5), [&] { loop_->stop(); });
        }
    });
    ASSERT_TRUE(watch.has_value());
    id = *watch;
    run();
    EXPECT_EQ(told, (std::vector<std::string>{"writable", "readable"}));
    ASSERT_TRUE(loop_->change(id, Interest::readable));
    ASSERT_TRUE(loop_->change(id, Interest::readable_writable));
    run();  // the byte is still there
    EXPECT_EQ(told.size(), 3U);
}

TEST_P(LoopTest, HangUpCountsAsReadable) {
    SocketPair pair;
    pair.theirs.reset();
    Ready seen;
    ASSERT_TRUE(loop_->watch(pair.ours.get(), Interest::readable, [&](Ready ready) {
        seen = ready;
        loop_->stop();
    }));
    run();
    EXPECT_TRUE(seen.readable);
    EXPECT_TRUE(seen.closed);
    EXPECT_FALSE(seen.writable);
}

TEST_P(LoopTest, ACallbackMayRemoveItselfAndDieAfterwards) {
    const OwnedFd fd = ready_eventfd();
    auto captured = std::make_shared<int>(7);
    const std::weak_ptr<int> alive = captured;
    WatchId id;
    int calls = 0;
    const auto watch = loop_->watch(fd.get(), Interest::readable, [&, captured](Ready) {
        ++calls;
        loop_->unwatch(id);
        EXPECT_FALSE(alive.expired()) << "the callback died while it ran";
        EXPECT_EQ(*captured, 7);
        loop_->after(milliseconds(5), [&] { loop_->stop(); });
    });
    ASSERT_TRUE(watch.has_value());
    id = *watch;
    captured.reset();
    run();
    EXPECT_EQ(calls, 1);
    EXPECT_TRUE(alive.expired());
}

// Both descriptors are ready before the loop looks, so their events come in one batch; whichever is called
// first removes the other.
TEST_P(LoopTest, AnEventInTheBatchOfARemovedWatchIsDropped) {
    std::array<OwnedFd, 2> fds{ready_eventfd(), ready_eventfd()};
    std::array<WatchId, 2> ids;
    std::vector<std::size_t> called;
    for (std::size_t i = 0; i < 2; ++i) {
        const auto watch = loop_->watch(fds[i].get(), Interest::readable, [&, i](Ready) {
            called.push_back(i);
            loop_->unwatch(ids[1 - i]);
            fds[1 - i].reset();
            loop_->unwatch(ids[i]);
            loop_->after(milliseconds(5), [&] { loop_->stop(); });
        });
        ASSERT_TRUE(watch.has_value());
        ids[i] = *watch;
    }
    run();
    EXPECT_EQ(called.size(), 1U);
}

// The other watch's descriptor is closed and its number given to a new, unready one within the batch: the
// event that was meant for the old one must not reach the new one's callback.
TEST_P(LoopTest, AnEventInTheBatchDoesNotReachAWatchThatReusesTheDescriptor) {
    std::array<OwnedFd, 2> fds{ready_eventfd(), ready_eventfd()};
    std::array<WatchId, 2> ids;
    OwnedFd fresh;
    int fresh_calls = 0;
    for (std::size_t i = 0; i < 2; ++i) {
        const auto watch = loop_->watch(fds[i].get(), Interest::readable, [&, i](Ready) {
            const int number = fds[1 - i].get();
            loop_->unwatch(ids[0]);
            loop_->unwatch(ids[1]);
            fds[1 - i].reset();
            fresh.reset(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
            ASSERT_EQ(fresh.get(), number);
            ASSERT_TRUE(loop_->watch(fresh.get(), Interest::readable, [&](Ready) { ++fresh_calls; }));
            loop_->after(milliseconds(5), [&] { loop_->stop(); });
        });
        ASSERT_TRUE(watch.has_value());
        ids[i] = *watch;
    }
    run();
    EXPECT_EQ(fresh_calls, 0);
}

TEST_P(LoopTest, UnwatchLetsGoOfTheDescriptorAtOnce) {
    SocketPair pair;
    const auto watch = loop_->watch(pair.ours.get(), Interest::readable, [](Ready) {});
    ASSERT_TRUE(watch.has_value());
    run_for(milliseconds(1));  // the kernel has the poll now
    loop_->unwatch(*watch);
    pair.ours.reset();
    pollfd other_end{pair.theirs.get(), POLLIN, 0};
    ASSERT_EQ(::poll(&other_end, 1, 0), 1) << "the other end does not see the close";
    EXPECT_NE(other_end.revents & POLLHUP, 0);
}

TEST_P(LoopTest, RefusesWhatCannotBeWatched) {
    const OwnedFd fd = ready_eventfd();
    const auto first = loop_->watch(fd.get(), Interest::readable, [](Ready) {});
    ASSERT_TRUE(first.has_value());
    EXPECT_FALSE(loop_->watch(fd.get(), Interest::writable, [](Ready) {}).has_value());
    EXPECT_FALSE(loop_->watch(1 << 20, Interest::readable, [](Ready) {}).has_value());
    const TemporaryDirectory directory;
    const OwnedFd file(::open((directory / "file").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    ASSERT_TRUE(file.is_open());
    EXPECT_FALSE(loop_->watch(file.get(), Interest::readable, [](Ready) {}).has_value());
    loop_->unwatch(*first);
    EXPECT_FALSE(loop_->change(*first, Interest::writable).has_value());
    loop_->unwatch(*first);  // stale: harmless
    EXPECT_TRUE(loop_->watch(fd.get(), Interest::readable, [](Ready) {}).has_value());
}

TEST_P(LoopTest, ManyWatchesInOneTurn) {
    constexpr std::size_t kWatches = 300;  // more than one batch of either back end
    std::vector<OwnedFd> fds;
    std::vector<int> calls(kWatches, 0);
    std::size_t called = 0;
    for (std::size_t i = 0; i < kWatches; ++i) {
        fds.push_back(ready_eventfd());
        ASSERT_TRUE(loop_->watch(fds[i].get(), Interest::readable, [&, i](Ready) {
            std::uint64_t count = 0;
            ASSERT_EQ(::read(fds[i].get(), &count, sizeof(count)), ssize_t{sizeof(count)});
            ++calls[i];
            if (++called == kWatches) {
                loop_->stop();
            }
        }));
    }
    run();
    EXPECT_EQ(calls, std::vector<int>(kWatches, 1));
}

TEST_P(LoopTest, TimersFireInOrderAndNotEarly) {
    std::vector<int> order;
    const auto begin = std::chrono::steady_clock::now();
    loop_->after(milliseconds(20), [&] {
        EXPECT_GE(std::chrono::steady_clock::now() - begin, milliseconds(20));
        order.push_back(20);
        loop_->stop();
    });
    loop_->after(milliseconds(3), [&] { order.push_back(3); });
    loop_->after(milliseconds(0), [&] { order.push_back(0); });
    run();
    EXPECT_EQ(order, (std::vector<int>{0, 3, 20}));
}

TEST_P(LoopTest, APeriodicTimerGoesOnUntilItCancelsItself) {
    int ticks = 0;
    TimerId id;
    id = loop_->every(milliseconds(1), [&] {
        if (++ticks == 3) {
            loop_->cancel(id);
            loop_->after(milliseconds(10), [&] { loop_->stop(); });
        }
    });
    run();
    EXPECT_EQ(ticks, 3);
}

TEST_P(LoopTest, ATimerMayCancelAnotherThatIsDueInTheSameTurn) {
    int calls = 0;
    TimerId second;
    loop_->after(milliseconds(0), [&] {
        ++calls;
        loop_->cancel(second);
    });
    second = loop_->after(milliseconds(0), [&] { calls += 100; });
    run_for(milliseconds(5));
    EXPECT_EQ(calls, 1);
}

TEST_P(LoopTest, ATimerThatStartsItselfAgainDoesNotStarveDescriptors) {
    const OwnedFd fd = ready_eventfd();
    std::function<void()> again = [&] { loop_->after(milliseconds(0), again); };
    again();
    bool seen = false;
    ASSERT_TRUE(loop_->watch(fd.get(), Interest::readable, [&](Ready) {
        seen = true;
        loop_->stop();
    }));
    run();
    EXPECT_TRUE(seen);
}

TEST_P(LoopTest, StopLeavesTheRestOfTheBatchForTheNextRun) {
    std::array<OwnedFd, 2> fds{ready_eventfd(), ready_eventfd()};
    int calls = 0;
    for (const OwnedFd& fd : fds) {
        ASSERT_TRUE(loop_->watch(fd.get(), Interest::readable, [&](Ready) {
            std::uint64_t count = 0;
            ASSERT_EQ(::read(fd.get(), &count, sizeof(count)), ssize_t{sizeof(count)});
            ++calls;
            loop_->stop();
        }));
    }
    run();
    EXPECT_EQ(calls, 1);
    run();
    EXPECT_EQ(calls, 2);
}

TEST_P(LoopTest, StopLeavesTheTimersBehindItForTheNextRun) {
    int calls = 0;
    for (int i = 0; i < 2; ++i) {
        loop_->after(milliseconds(0), [&] {
            ++calls;
            loop_->stop();
        });
    }
    run();
    EXPECT_EQ(calls, 1);
    run();
    EXPECT_EQ(calls, 2);
}

TEST_P(LoopTest, SignalsAreToldOnceEachThoughSentTwice) {
    ASSERT_TRUE(block_daemon_signals());
    std::vector<Signal> told;
    auto signals = SignalWatch::create(*loop_, [&](Signal signal) {
        told.push_back(signal);
        if (signal == Signal::terminate) {
            loop_->stop();
        }
    });
    ASSERT_TRUE(signals.has_value()) << signals.error().message;
    for (const int number : {SIGTERM, SIGHUP, SIGHUP, SIGUSR1, SIGINT}) {
        ASSERT_EQ(::kill(::getpid(), number), 0);
    }
    run();
    EXPECT_EQ(told, (std::vector<Signal>{Signal::reload, Signal::reopen_logs, Signal::terminate}));
    // SIGPIPE: this would end the process.
    SocketPair pair;
    pair.theirs.reset();
    EXPECT_EQ(::write(pair.ours.get(), "x", 1), -1);
    EXPECT_EQ(errno, EPIPE);
}

// What a container profile does: the system call answers with an error.
int refuse_io_uring(int error_number, int system_call) {
    scmp_filter_ctx filter = ::seccomp_init(SCMP_ACT_ALLOW);
    if (filter == nullptr ||
        ::seccomp_rule_add(filter, SCMP_ACT_ERRNO(static_cast<std::uint32_t>(error_number)), system_call,
                           0) != 0 ||
        ::seccomp_load(filter) != 0) {
        return -1;
    }
    ::seccomp_release(filter);
    return 0;
}

enum ChildExit : int {
    kEpollChosen = 0,
    kFilterFailed = 10,
    kNoLoop = 11,
    kOtherLoop = 12,
    kNamedGivesNoError = 13
};

/// In the child: the loop that `automatic` makes must be epoll and work, and io_uring by name must fail.
ChildExit loop_under_filter(int error_number, int system_call) {
    if (refuse_io_uring(error_number, system_call) != 0) {
        return kFilterFailed;
    }
    auto loop = make_loop(LoopKind::automatic);
    if (!loop) {
        return kNoLoop;
    }
    bool fired = false;
    (*loop)->after(milliseconds(1), [&] {
        fired = true;
        (*loop)->stop();
    });
    if ((*loop)->name() != "epoll" || !(*loop)->run() || !fired) {
        return kOtherLoop;
    }
    return make_loop(LoopKind::io_uring) ? kNamedGivesNoError : kEpollChosen;
}

class ForbiddenRing : public testing::TestWithParam<std::pair<int, int>> {};
INSTANTIATE_TEST_SUITE_P(Refusals, ForbiddenRing,
                         testing::Values(std::pair{EPERM, SCMP_SYS(io_uring_setup)},
                                         std::pair{ENOSYS, SCMP_SYS(io_uring_setup)},
                                         std::pair{EACCES, SCMP_SYS(io_uring_setup)},
                                         std::pair{EPERM, SCMP_SYS(io_uring_enter)}));

TEST_P(ForbiddenRing, AutomaticFallsBackToEpoll) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        ::_exit(loop_under_filter(GetParam().first, GetParam().second));
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), kEpollChosen);
}

TEST(MakeLoop, AutomaticTakesIoUringWhereItIsAllowed) {
    const auto named = make_loop(LoopKind::io_uring);
    const auto chosen = make_loop(LoopKind::automatic);
    ASSERT_TRUE(chosen.has_value()) << chosen.error().message;
    EXPECT_EQ((*chosen)->name(), named ? "io_uring" : "epoll");
}

}  // namespace
}  // namespace apikeyd
