#include "runtime/unix_server.h"

#include <fmt/core.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "base/errno_text.h"
#include "runtime/unix_connection.h"

namespace apikeyd {
namespace {

constexpr std::size_t kReadBytes = std::size_t{64} * 1024;
constexpr int kAcceptsPerTurn = 16;
constexpr std::size_t kGroupsFirstGuess = 32;

sockaddr_un address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    return address;
}

}  // namespace

Result<Peer> peer_of(int fd) {
    ucred credentials{};
    socklen_t bytes = sizeof(credentials);
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &bytes) != 0) {
        return fail(fmt::format("SO_PEERCRED: {}", errno_text(errno)));
    }
    Peer peer{credentials.pid, credentials.uid, credentials.gid, {}};
    peer.groups.resize(kGroupsFirstGuess);
    while (true) {
        bytes = static_cast<socklen_t>(peer.groups.size() * sizeof(gid_t));
        if (::getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, peer.groups.data(), &bytes) == 0) {
            peer.groups.resize(bytes / sizeof(gid_t));
            return peer;
        }
        if (errno != ERANGE) {
            return fail(fmt::format("SO_PEERGROUPS: {}", errno_text(errno)));
        }
        peer.groups.resize(bytes / sizeof(gid_t));  // the kernel has said how many there are
    }
}

bool Peer::in_group(gid_t group) const {
    return gid == group || std::find(groups.begin(), groups.end(), group) != groups.end();
}

Result<OwnedFd> listen_on(const std::string& path, mode_t mode, std::optional<gid_t> gid) {
    OwnedFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!listener.is_open()) {
        return fail(fmt::format("{}: socket: {}", path, errno_text(errno)));
    }
    // Linux makes the file with the socket's own mode less the umask (unix_bind()): owner only, until group
    // and mode are right. umask() would be felt by the other threads.
    const sockaddr_un address = address_of(path);
    if (::fchmod(listener.get(), 0600) != 0 ||
        ::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
        return fail(fmt::format("{}: cannot create the socket: {}", path, errno_text(errno)));
    }
    std::string problem;
    if (gid && ::lchown(path.c_str(), static_cast<uid_t>(-1), *gid) != 0) {
        problem = fmt::format("{}: cannot give it to group {}: {}", path, *gid, errno_text(errno));
    } else if (::chmod(path.c_str(), mode) != 0) {
        problem = fmt::format("{}: cannot set mode {:04o}: {}", path, mode, errno_text(errno));
    } else if (::listen(listener.get(), SOMAXCONN) != 0) {
        problem = fmt::format("{}: listen: {}", path, errno_text(errno));
    }
    if (!problem.empty()) {
        ::unlink(path.c_str());
        return fail(problem);
    }
    return listener;
}

std::string describe_fault(ServerFault fault) {
    switch (fault) {
        case ServerFault::too_many_connections:
            return "error: too many connections; try again";
        case ServerFault::request_too_long:
            return "error: the request is too long";
        case ServerFault::request_incomplete:
            return "error: the request does not end in a line feed; nothing was done";
        case ServerFault::request_too_slow:
            return "error: the rest of the request did not come in time; nothing was done";
        case ServerFault::not_answered:
            return "error: no answer in time; the request may still be carried out";
    }
    return "error";
}

Result<std::unique_ptr<UnixServer>> UnixServer::listen(Loop& loop, const std::string& path,
                                                       UnixServerOptions options, Handler handler) {
    if (path.empty() || path.size() >= sizeof(sockaddr_un::sun_path)) {
        return fail(fmt::format("{}: a socket's path has 1 to {} bytes, this one has {}", path,
                                sizeof(sockaddr_un::sun_path) - 1, path.size()));
    }
    std::unique_ptr<UnixServer> server(new UnixServer(loop, path, std::move(options), std::move(handler)));
    if (auto bound = server->bind_and_listen(); !bound) {
        return tl::unexpected<Error>(bound.error());
    }
    auto watch = loop.watch(server->listener_.get(), Interest::readable,
                            [raw = server.get()](Ready) { raw->accept_some(); });
    if (!watch) {
        return tl::unexpected<Error>(watch.error());
    }
    server->watch_ = *watch;
    return server;
}

UnixServer::UnixServer(Loop& loop, std::string path, UnixServerOptions options, Handler handler)
    : loop_(loop),
      path_(std::move(path)),
      options_(std::move(options)),
      handler_(std::move(handler)),
      read_buffer_(kReadBytes) {}

UnixServer::~UnixServer() {
    loop_.unwatch(watch_);
    loop_.cancel(pause_timer_);
    const auto connections = connections_;  // keeps them alive while each leaves connections_
    for (const auto& [raw, connection] : connections) {
        connection->close();
    }
    struct stat status {};
    if (socket_inode_ != 0 && ::lstat(path_.c_str(), &status) == 0 && status.st_dev == socket_device_ &&
        status.st_ino == socket_inode_) {
        ::unlink(path_.c_str());
    }
}

Result<void> UnixServer::remove_stale_socket() const {
    struct stat status {};
    if (::lstat(path_.c_str(), &status) != 0) {
        if (errno == ENOENT) {
            return {};
        }
        return fail(fmt::format("{}: {}", path_, errno_text(errno)));
    }
    if (!S_ISSOCK(status.st_mode)) {
        return fail(fmt::format("{}: is there and is no socket; move it away or choose another path", path_));
    }
    // The caller's instance lock says that no live daemon listens here. Asking the socket would not: io_uring
    // lets go of a killed daemon's listener only some time after the process was reaped, and until then it
    // accepts.
    if (::unlink(path_.c_str()) != 0) {
        return fail(
            fmt::format("{}: cannot remove the socket of a dead daemon: {}", path_, errno_text(errno)));
    }
    return {};
}

Result<void> UnixServer::bind_and_listen() {
    if (auto removed = remove_stale_socket(); !removed) {
        return removed;
    }
    auto listener = listen_on(path_, options_.mode, options_.gid);
    if (!listener) {
        return tl::unexpected<Error>(listener.error());
    }
    listener_ = std::move(*listener);
    struct stat status {};
    if (::lstat(path_.c_str(), &status) != 0) {
        return fail(fmt::format("{}: {}", path_, errno_text(errno)));
    }
    socket_device_ = status.st_dev;
    socket_inode_ = status.st_ino;
    return {};
}

void UnixServer::accept_some() {
    for (int accepted = 0; accepted < kAcceptsPerTurn; ++accepted) {
        OwnedFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (fd.is_open()) {
            admit(std::move(fd));
        } else if (errno == EAGAIN) {
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            pause_accepting(errno);
            return;
        }
    }
}

/// Out of descriptors or memory: the connection stays in the queue and the listener stays ready, so without a
/// pause the loop would spin.
void UnixServer::pause_accepting(int error_number) {
    if (!loop_.change(watch_, Interest::none)) {
        return;
    }
    pause_timer_ = loop_.after(std::chrono::milliseconds(options_.accept_pause_ms), [this] {
        if (!loop_.change(watch_, Interest::readable)) {
            pause_accepting(ENOMEM);
        }
    });
    if (options_.on_accept_error) {
        options_.on_accept_error(
            {fmt::format("{}: cannot accept a connection: {}", path_, errno_text(error_number))});
    }
}

void UnixServer::admit(OwnedFd fd) {
    if (connections_.size() >= options_.connections_max && !make_room()) {
        const std::string line = options_.fault_line(ServerFault::too_many_connections) + "\n";
        // One try: a fresh socket has room for a line, and a peer that has gone needs none.
        [[maybe_unused]] const ssize_t bytes = ::send(fd.get(), line.data(), line.size(), MSG_NOSIGNAL);
        return;
    }
    auto peer = peer_of(fd.get());
    if (!peer) {
        if (options_.on_accept_error) {
            options_.on_accept_error({fmt::format("{}: {}", path_, peer.error().message)});
        }
        return;
    }
    auto connection = std::make_shared<UnixConnection>(*this, std::move(fd), std::move(*peer));
    connections_.emplace(connection.get(), connection);
    if (auto started = connection->start(); !started) {
        connection->close();
    }
}

/// Ends the connection that has owed its request longest. False when every peer waits for an answer.
bool UnixServer::make_room() {
    UnixConnection* slowest = nullptr;
    for (const auto& [raw, connection] : connections_) {
        if (raw->owes_request() && (slowest == nullptr || raw->since() < slowest->since())) {
            slowest = raw;
        }
    }
    if (slowest == nullptr) {
        return false;
    }
    slowest->displace();
    return true;
}

void UnixServer::forget(UnixConnection* connection) {
    connections_.erase(connection);
}

}  // namespace apikeyd
