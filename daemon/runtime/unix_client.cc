#include "runtime/unix_client.h"

#include <fmt/core.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <limits>
#include <thread>
#include <utility>
#include <vector>

#include "base/errno_text.h"
#include "base/owned_fd.h"

namespace apikeyd {
namespace {

using Clock = std::chrono::steady_clock;
using Failure = tl::unexpected<RequestError>;

constexpr std::size_t kReadBytes = std::size_t{64} * 1024;
constexpr std::chrono::milliseconds kBacklogPause{5};

Failure failure(RequestFailure kind, const std::string& socket_path, std::string_view what) {
    return Failure(RequestError{kind, fmt::format("{}: {}", socket_path, what)});
}

/// Waits until `fd` is ready for `events`. False when the time is up.
bool wait_for(int fd, short events, Clock::time_point deadline) {
    while (true) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
        if (left <= 0) {
            return false;
        }
        pollfd entry{fd, events, 0};
        const int limit_ms = static_cast<int>(std::min<std::int64_t>(left, std::numeric_limits<int>::max()));
        if (::poll(&entry, 1, limit_ms) > 0) {
            return true;
        }  // else the time is up, or EINTR: the head of the loop tells
    }
}

tl::expected<OwnedFd, RequestError> connect_to(const std::string& path, Clock::time_point deadline) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof(address.sun_path)) {
        return failure(RequestFailure::usage, path,
                       fmt::format("a socket's path has 1 to {} bytes", sizeof(address.sun_path) - 1));
    }
    std::memcpy(address.sun_path, path.data(), path.size());
    OwnedFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd.is_open()) {
        return failure(RequestFailure::usage, path, errno_text(errno));
    }
    // A Unix socket connects at once or not at all; EAGAIN means that the daemon has more callers than it
    // accepts.
    while (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
        const int error_number = errno;
        if (error_number == EINTR) {
            continue;
        }
        if (error_number == EAGAIN) {
            if (Clock::now() >= deadline) {
                return failure(RequestFailure::timeout, path,
                               "the daemon is too busy to take the connection");
            }
            std::this_thread::sleep_for(kBacklogPause);
            continue;
        }
        if (error_number == ENOENT || error_number == ENOTDIR || error_number == ECONNREFUSED) {
            return failure(RequestFailure::not_running, path,
                           fmt::format("no daemon listens here ({})", errno_text(error_number)));
        }
        const bool forbidden = error_number == EACCES || error_number == EPERM;
        return failure(forbidden ? RequestFailure::forbidden : RequestFailure::usage, path,
                       fmt::format("cannot connect: {}", errno_text(error_number)));
    }
    return fd;
}

/// Sends all, or as much as the peer takes before it hangs up: it may have answered without reading
/// everything.
tl::expected<void, RequestError> send_all(int fd, const std::string& path, std::string_view text,
                                          Clock::time_point deadline) {
    while (!text.empty()) {
        const ssize_t bytes = ::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
        if (bytes >= 0) {
            text.remove_prefix(static_cast<std::size_t>(bytes));
        } else if (errno == EAGAIN) {
            if (!wait_for(fd, POLLOUT, deadline)) {
                return failure(RequestFailure::timeout, path, "the daemon did not take the request in time");
            }
        } else if (errno == EPIPE || errno == ECONNRESET) {
            return {};
        } else if (errno != EINTR) {
            return failure(RequestFailure::broken, path, fmt::format("cannot send: {}", errno_text(errno)));
        }
    }
    return {};
}

tl::expected<std::string, RequestError> receive_line(int fd, const std::string& path,
                                                     Clock::time_point deadline) {
    std::string answer;
    std::vector<char> chunk(kReadBytes);
    while (true) {
        const ssize_t bytes = ::recv(fd, chunk.data(), chunk.size(), 0);
        if (bytes > 0) {
            const std::string_view part(chunk.data(), static_cast<std::size_t>(bytes));
            const std::size_t end = part.find('\n');
            answer.append(part.substr(0, end));
            if (end != std::string_view::npos) {
                return answer;
            }
            if (answer.size() > kAnswerBytesMax) {
                return failure(RequestFailure::broken, path,
                               "the answer is longer than this program accepts");
            }
        } else if (bytes == 0) {
            return failure(RequestFailure::broken, path, "the daemon hung up before it had answered");
        } else if (errno == EAGAIN) {
            if (!wait_for(fd, POLLIN, deadline)) {
                return failure(RequestFailure::timeout, path, "the daemon did not answer in time");
            }
        } else if (errno != EINTR) {
            return failure(RequestFailure::broken, path,
                           fmt::format("cannot receive: {}", errno_text(errno)));
        }
    }
}

}  // namespace

tl::expected<std::string, RequestError> request(const std::string& socket_path, std::string_view line,
                                                std::int64_t timeout_ms) {
    if (line.find('\n') != std::string_view::npos) {
        return failure(RequestFailure::usage, socket_path, "a request is one line");
    }
    const auto deadline = Clock::now() + std::chrono::milliseconds(timeout_ms);
    auto fd = connect_to(socket_path, deadline);
    if (!fd) {
        return Failure(fd.error());
    }
    std::string text(line);
    text += '\n';
    if (auto sent = send_all(fd->get(), socket_path, text, deadline); !sent) {
        return Failure(sent.error());
    }
    return receive_line(fd->get(), socket_path, deadline);
}

}  // namespace apikeyd
