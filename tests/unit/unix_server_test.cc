#include "runtime/unix_server.h"

#include <grp.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/owned_fd.h"
#include "loop_fixture.h"
#include "runtime/unix_client.h"
#include "runtime/worker.h"

namespace apikeyd {
namespace {

using std::chrono::milliseconds;

constexpr std::int64_t kLongMs = 60'000;

/// A client whose every step the test chooses. Non-blocking, so that it shares the thread with the loop.
class RawClient {
  public:
    explicit RawClient(const std::string& path)
        : fd_(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::memcpy(address.sun_path, path.data(), path.size());
        EXPECT_EQ(::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0)
            << std::strerror(errno);
    }

    /// Sends what fits now.
    std::size_t send(std::string_view text) {
        const ssize_t bytes = ::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL);
        return bytes < 0 ? 0 : static_cast<std::size_t>(bytes);
    }
    void stop_sending() { EXPECT_EQ(::shutdown(fd_.get(), SHUT_WR), 0); }
    void hang_up() { fd_.reset(); }

    /// Takes what is there into received() and ended().
    void poll() {
        std::array<char, 65536> buffer;
        while (!ended_) {
            const ssize_t bytes = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
            if (bytes > 0) {
                received_.append(buffer.data(), static_cast<std::size_t>(bytes));
            } else if (bytes == 0 || errno != EAGAIN) {
                ended_ = true;
            } else {
                return;
            }
        }
    }
    bool has_line() {
        poll();
        return received_.find('\n') != std::string::npos;
    }
    const std::string& received() const { return received_; }
    bool ended() {
        poll();
        return ended_;
    }

  private:
    OwnedFd fd_;
    std::string received_;
    bool ended_ = false;
};

class UnixServerTest : public LoopFixture {
  protected:
    void listen(UnixServerOptions options, UnixServer::Handler handler) {
        auto server = UnixServer::listen(*loop_, path_, std::move(options), std::move(handler));
        ASSERT_TRUE(server.has_value()) << server.error().message;
        server_ = std::move(*server);
    }

    static void echo(const Peer& /*peer*/, const std::string& line, const Responder& responder) {
        EXPECT_TRUE(responder.send("echo " + line));
    }

    /// The tool's side, in a thread of its own while the loop runs.
    tl::expected<std::string, RequestError> ask(const std::string& line, std::int64_t timeout_ms = kLongMs) {
        std::optional<tl::expected<std::string, RequestError>> answer;
        std::atomic<bool> finished{false};
        std::thread client([&] {
            answer = request(path_, line, timeout_ms);
            finished = true;
        });
        run_until([&] { return finished.load(); });
        client.join();
        return *answer;
    }

    TemporaryDirectory directory_;
    const std::string path_ = (directory_ / "admin.sock").string();
    std::unique_ptr<UnixServer> server_;
};
INSTANTIATE_TEST_SUITE_P(BothLoops, UnixServerTest, both_loops(), loop_param_name);

TEST_P(UnixServerTest, AnswersALine) {
    listen({}, echo);
    const auto answer = ask("hello");
    ASSERT_TRUE(answer.has_value()) << answer.error().message;
    EXPECT_EQ(*answer, "echo hello");
    EXPECT_EQ(*ask(""), "echo ");
}

TEST_P(UnixServerTest, CarriesTheLongestRequestAndAnAnswerLargerThanTheSocketsBuffer) {
    const UnixServerOptions options;
    listen({}, [](const Peer&, const std::string& line, const Responder& responder) {
        EXPECT_TRUE(responder.send(line + line));
    });
    const std::string longest(options.request_bytes_max, 'x');
    const auto answer = ask(longest);
    ASSERT_TRUE(answer.has_value()) << answer.error().message;
    EXPECT_EQ(*answer, longest + longest);
    const auto refused = ask(longest + "x");
    ASSERT_TRUE(refused.has_value()) << refused.error().message;
    EXPECT_EQ(*refused, describe_fault(ServerFault::request_too_long));
}

TEST_P(UnixServerTest, AnswersPipelinedRequestsInOrder) {
    listen({}, echo);
    RawClient client(path_);
    std::string requests;
    std::string expected;
    for (int i = 0; i < 1000; ++i) {
        requests += std::to_string(i) + "\n";
        expected += "echo " + std::to_string(i) + "\n";
    }
    ASSERT_EQ(client.send(requests), requests.size());
    run_until([&] {
        client.poll();
        return client.received().size() >= expected.size();
    });
    EXPECT_EQ(client.received(), expected);
}

TEST_P(UnixServerTest, ARequestInPiecesIsOneRequest) {
    listen({}, echo);
    RawClient client(path_);
    for (const std::string_view piece : {"a", "b", "c\nd"}) {
        client.send(piece);
        run_for(milliseconds(2));
    }
    run_until([&] { return client.has_line(); });
    EXPECT_EQ(client.received(), "echo abc\n");
}

TEST_P(UnixServerTest, TellsWhoThePeerIs) {
    Peer seen;
    listen({}, [&](const Peer& peer, const std::string&, const Responder& responder) {
        seen = peer;
        responder.send("ok");
    });
    ASSERT_TRUE(ask("who").has_value());
    EXPECT_EQ(seen.uid, ::geteuid());
    EXPECT_EQ(seen.gid, ::getegid());
    EXPECT_EQ(seen.pid, ::getpid());
    std::vector<gid_t> groups(static_cast<std::size_t>(::getgroups(0, nullptr)));
    ASSERT_EQ(::getgroups(static_cast<int>(groups.size()), groups.data()), static_cast<int>(groups.size()));
    EXPECT_EQ(seen.groups, groups);
    EXPECT_TRUE(seen.in_group(::getegid()));
    EXPECT_FALSE(seen.in_group(0x7FFFFFF0));
    for (const gid_t group : groups) {
        EXPECT_TRUE(seen.in_group(group));
    }
}

TEST_P(UnixServerTest, AnswersLaterFromAWorker) {
    auto worker = Worker::start(*loop_);
    ASSERT_TRUE(worker.has_value());
    listen({}, [&](const Peer&, std::string line, const Responder& responder) {
        auto result = std::make_shared<std::string>();
        ASSERT_TRUE((*worker)->submit([result, line = std::move(line)] { *result = "built " + line; },
                                      [result, responder] { EXPECT_TRUE(responder.send(*result)); }));
    });
    EXPECT_EQ(*ask("table"), "built table");
}

TEST_P(UnixServerTest, OnlyTheFirstAnswerCounts) {
    std::optional<Responder> kept;
    listen({}, [&](const Peer&, const std::string&, const Responder& responder) { kept = responder; });
    RawClient client(path_);
    client.send("a\nb\n");
    run_until([&] { return kept.has_value(); });
    const Responder first = *kept;
    kept.reset();
    EXPECT_TRUE(first.send("A"));
    run_until([&] { return kept.has_value(); });  // the second request is being handled now
    EXPECT_FALSE(first.send("A again"));
    EXPECT_TRUE(kept->send("B"));
    client.poll();
    EXPECT_EQ(client.received(), "A\nB\n");
}

TEST_P(UnixServerTest, AnswersToNobodyWhenThePeerHasGone) {
    std::optional<Responder> kept;
    listen({}, [&](const Peer&, const std::string&, const Responder& responder) { kept = responder; });
    RawClient client(path_);
    client.send("a\n");
    run_until([&] { return kept.has_value(); });
    client.hang_up();
    EXPECT_FALSE(kept->send("A"));
    EXPECT_EQ(server_->connections(), 0U);
    EXPECT_FALSE(kept->send("A"));
}

TEST_P(UnixServerTest, AResponderOutlivesTheServer) {
    std::optional<Responder> kept;
    listen({}, [&](const Peer&, const std::string&, const Responder& responder) { kept = responder; });
    RawClient client(path_);
    client.send("a\n");
    run_until([&] { return kept.has_value(); });
    server_.reset();
    EXPECT_FALSE(kept->send("A"));
    EXPECT_TRUE(client.ended());
}

TEST_P(UnixServerTest, APeerThatStoppedSendingGetsItsAnswer) {
    std::optional<Responder> kept;
    listen({}, [&](const Peer&, const std::string&, const Responder& responder) { kept = responder; });
    RawClient client(path_);
    client.send("a\n");
    client.stop_sending();
    run_until([&] { return kept.has_value(); });
    run_for(milliseconds(5));
    EXPECT_TRUE(kept->send("A"));
    run_until([&] { return client.ended(); });
    EXPECT_EQ(client.received(), "A\n");
}

TEST_P(UnixServerTest, HalfARequestIsNotCarriedOut) {
    int handled = 0;
    listen({}, [&](const Peer&, const std::string&, const Responder&) { ++handled; });
    RawClient client(path_);
    client.send("revoke abc");
    client.stop_sending();
    run_until([&] { return client.ended(); });
    EXPECT_EQ(client.received(), describe_fault(ServerFault::request_incomplete) + "\n");
    EXPECT_EQ(handled, 0);
}

TEST_P(UnixServerTest, ASlowRequestAndAnIdleConnectionEnd) {
    listen({.idle_ms = 500}, echo);  // time enough for the bytes sent below to be seen
    RawClient half(path_);
    RawClient idle(path_);
    half.send("never finis");
    run_until([&] { return half.ended() && idle.ended(); });
    EXPECT_EQ(half.received(), describe_fault(ServerFault::request_too_slow) + "\n");
    EXPECT_EQ(idle.received(), "");
    EXPECT_EQ(server_->connections(), 0U);
}

TEST_P(UnixServerTest, AHandlerThatForgetsToAnswerDoesNotKeepTheConnection) {
    std::optional<Responder> kept;
    listen({.answer_ms = 5},
           [&](const Peer&, const std::string&, const Responder& responder) { kept = responder; });
    RawClient client(path_);
    client.send("a\n");
    run_until([&] { return client.ended(); });
    EXPECT_EQ(client.received(), describe_fault(ServerFault::not_answered) + "\n");
    EXPECT_FALSE(kept->send("late"));
}

TEST_P(UnixServerTest, APeerThatDoesNotReadHoldsUpNobodyElse) {
    listen({}, [](const Peer&, const std::string&, const Responder& responder) {
        responder.send(std::string(8 << 20, 'x'));
    });
    RawClient deaf(path_);
    deaf.send("a\n");
    const auto other = ask("b");
    ASSERT_TRUE(other.has_value()) << other.error().message;
    EXPECT_EQ(other->size(), std::size_t{8} << 20U);
    run_until([&] { return server_->connections() == 1; });
    deaf.poll();
    EXPECT_FALSE(deaf.ended());
}

TEST_P(UnixServerTest, APeerThatDoesNotReadLosesItsConnection) {
    int handled = 0;
    listen({.idle_ms = 500}, [&](const Peer&, const std::string&, const Responder& responder) {
        ++handled;
        responder.send(std::string(8 << 20, 'x'));
    });
    RawClient deaf(path_);
    deaf.send("a\n");
    run_until([&] { return handled == 1; });
    run_until([&] { return server_->connections() == 0; });
    EXPECT_EQ(server_->connections(), 0U);
    deaf.poll();
    EXPECT_EQ(deaf.received().find('\n'), std::string::npos);
}

TEST_P(UnixServerTest, OneConnectionTooManyGetsOneErrorLine) {
    std::vector<Responder> waiting;
    listen(
        {.connections_max = 2,
         .fault_line = [](ServerFault fault) { return "fault " + std::to_string(static_cast<int>(fault)); }},
        [&](const Peer&, const std::string&, const Responder& responder) { waiting.push_back(responder); });
    RawClient first(path_);
    RawClient second(path_);
    first.send("one\n");
    second.send("two\n");
    run_until([&] { return waiting.size() == 2; });
    RawClient third(path_);
    run_until([&] { return third.ended(); });
    EXPECT_EQ(third.received(), "fault 0\n");
    EXPECT_TRUE(waiting[1].send("done"));
    run_until([&] { return second.has_line(); });
    EXPECT_EQ(second.received(), "done\n");
    EXPECT_FALSE(first.ended());
}

TEST_P(UnixServerTest, HalfRequestsShutNobodyOut) {
    listen(
        {.connections_max = 2,
         .fault_line = [](ServerFault fault) { return "fault " + std::to_string(static_cast<int>(fault)); }},
        echo);
    RawClient first(path_);
    first.send("half a requ");
    run_until([&] { return server_->connections() == 1; });
    RawClient second(path_);
    run_until([&] { return server_->connections() == 2; });
    EXPECT_EQ(*ask("third"), "echo third");
    run_until([&] { return first.ended(); });
    EXPECT_EQ(first.received(), "fault 0\n");
    second.send("still here\n");
    run_until([&] { return second.has_line(); });
    EXPECT_EQ(second.received(), "echo still here\n");
}

TEST_P(UnixServerTest, OutOfDescriptorsItPausesAndRecovers) {
    int errors = 0;
    listen({.accept_pause_ms = 20,
            .on_accept_error =
                [&](const Error& error) {
                    ++errors;
                    EXPECT_NE(error.message.find(path_), std::string::npos);
                }},
           echo);
    // UBSan checks an object's type at the first call through it, and needs a descriptor for that: have it
    // done now.
    run_until([] { return true; });
    RawClient client(path_);
    client.send("a\n");
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
    rlimit none = before;
    none.rlim_cur = 3;  // every number that is free is above
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
    int turns = 0;
    const TimerId counter = loop_->every(milliseconds(1), [&] { ++turns; });
    run_until([&] { return errors >= 2; });
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
    loop_->cancel(counter);
    EXPECT_GE(turns, errors) << "the loop spun on the listener";
    run_until([&] { return client.has_line(); });
    EXPECT_EQ(client.received(), "echo a\n");
}

TEST_P(UnixServerTest, TheSocketHasItsModeWhateverTheUmaskAndGoesWithTheServer) {
    for (const mode_t mask : {0000U, 0777U}) {
        const mode_t before = ::umask(mask);
        listen({.mode = 0660, .gid = ::getegid()}, echo);
        ::umask(before);
        struct stat status {};
        ASSERT_EQ(::stat(path_.c_str(), &status), 0);
        EXPECT_TRUE(S_ISSOCK(status.st_mode));
        EXPECT_EQ(status.st_mode & 07777U, 0660U);
        EXPECT_EQ(status.st_gid, ::getegid());
        server_.reset();
        EXPECT_NE(::stat(path_.c_str(), &status), 0);
    }
}

TEST_P(UnixServerTest, ReplacesTheSocketOfADeadDaemonOnly) {
    // Bound and never unlinked: what SIGKILL leaves. It may even accept for a while: io_uring lets go of a
    // killed daemon's listener only after the process was reaped.
    const OwnedFd dead(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.data(), path_.size());
    ASSERT_EQ(::bind(dead.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    ASSERT_EQ(::listen(dead.get(), 1), 0);
    listen({}, echo);
    EXPECT_EQ(*ask("a"), "echo a");

    const std::string file = (directory_ / "file").string();
    std::ofstream(file) << "precious";
    EXPECT_FALSE(UnixServer::listen(*loop_, file, {}, echo).has_value());
    EXPECT_TRUE(std::filesystem::is_regular_file(file));
    EXPECT_FALSE(UnixServer::listen(*loop_, std::string(200, 'x'), {}, echo).has_value());
}

TEST_P(UnixServerTest, AServerLeavesTheSocketOfItsSuccessor) {
    listen({}, echo);
    ASSERT_EQ(::unlink(path_.c_str()), 0);
    auto first = std::move(server_);
    listen({}, echo);
    first.reset();
    EXPECT_EQ(*ask("a"), "echo a");
}

TEST_P(UnixServerTest, TheClientTellsWhyItFailed) {
    EXPECT_EQ(request(path_, "a", kLongMs).error().failure, RequestFailure::not_running);
    EXPECT_EQ(request(path_, "a\nb", kLongMs).error().failure, RequestFailure::usage);
    EXPECT_EQ(request(std::string(200, 'x'), "a", kLongMs).error().failure, RequestFailure::usage);
    std::vector<Responder> kept;
    listen({}, [&](const Peer&, const std::string& line, const Responder& responder) {
        kept.push_back(responder);
        if (line == "crash") {
            loop_->after(milliseconds(0), [&] { server_.reset(); });
        }
    });
    const auto late = ask("a", 5);
    ASSERT_FALSE(late.has_value());
    EXPECT_EQ(late.error().failure, RequestFailure::timeout);
    EXPECT_NE(late.error().message.find(path_), std::string::npos);
    const auto broken = ask("crash");
    ASSERT_FALSE(broken.has_value());
    EXPECT_EQ(broken.error().failure, RequestFailure::broken);
}

TEST_P(UnixServerTest, TheClientTellsThatItMayNot) {
    if (::geteuid() == 0) {
        // Root passes every mode: take the way of an unprivileged process, in a child.
        listen({.mode = 0600}, echo);
        ASSERT_EQ(::chmod(directory_.path().c_str(), 0755), 0);
        const pid_t child = ::fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            const bool dropped = ::setgroups(0, nullptr) == 0 && ::setgid(65534) == 0 && ::setuid(65534) == 0;
            const auto answer = request(path_, "a", 1000);
            ::_exit(dropped && !answer && answer.error().failure == RequestFailure::forbidden ? 0 : 1);
        }
        int status = 0;
        ASSERT_EQ(::waitpid(child, &status, 0), child);
        EXPECT_EQ(status, 0);
    } else {
        listen({.mode = 0000}, echo);
        EXPECT_EQ(request(path_, "a", 1000).error().failure, RequestFailure::forbidden);
    }
}

}  // namespace
}  // namespace apikeyd
