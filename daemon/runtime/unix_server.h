// A line-oriented server on a Unix stream socket: a request is a line, an answer is a line, in order.

#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/owned_fd.h"
#include "base/result.h"
#include "runtime/loop.h"

namespace apikeyd {

class UnixConnection;

/// Who is on the other end, as the kernel had it when they connected (SO_PEERCRED, SO_PEERGROUPS): not
/// forgeable. The pid is for display only; it may belong to another process by now.
struct Peer {
    pid_t pid = 0;
    uid_t uid = 0;
    gid_t gid = 0;
    std::vector<gid_t> groups;  ///< supplementary groups

    /// By primary or supplementary group.
    bool in_group(gid_t group) const;
};

/// Of the peer of a connected Unix socket.
Result<Peer> peer_of(int fd);

/// Makes the socket file `path`, which nobody but its owner may open until group and mode are right, and
/// listens on it without blocking. Nothing is left of it where that fails.
Result<OwnedFd> listen_on(const std::string& path, mode_t mode, std::optional<gid_t> gid);

/// Answers one request, once, at any later time on the loop's thread. A handle only: copies are free, and it
/// may outlive the connection and the server. Copying and destroying it is safe on any thread, sending is
/// not.
class Responder {
  public:
    Responder(std::weak_ptr<UnixConnection> connection, std::uint64_t request)
        : connection_(std::move(connection)), request_(request) {}

    /// Sends `line` (no line feed in it; one is added). False when nobody will read it: the peer has gone or
    /// was told that it took too long, or this request has been answered.
    bool send(std::string_view line) const;

  private:
    std::weak_ptr<UnixConnection> connection_;
    std::uint64_t request_;
};

/// What the server itself answers, before it closes the connection.
enum class ServerFault {
    too_many_connections,
    request_too_long,
    request_incomplete,  ///< the peer stopped sending inside a line
    request_too_slow,    ///< half a request, and the rest did not come in time
    not_answered,        ///< the handler's answer did not come in time
};

/// Plain words for it: the default for UnixServerOptions::fault_line.
std::string describe_fault(ServerFault fault);

struct UnixServerOptions {
    mode_t mode = 0660;                                     ///< of the socket file, whatever the umask
    std::optional<gid_t> gid = std::nullopt;                ///< of the socket file; default: the process's
    std::size_t connections_max = 64;                       ///< see UnixServer on further ones
    std::size_t request_bytes_max = std::size_t{4} << 20U;  ///< without the line feed
    std::int64_t idle_ms =
        30'000;  ///< for a request to come whole, and for the peer to take an answer's next part
    std::int64_t answer_ms = 600'000;  ///< for the handler to answer
    std::int64_t accept_pause_ms =
        100;  ///< no new connections for so long when descriptors or memory run out
    std::function<std::string(ServerFault)> fault_line = describe_fault;  ///< worded in the caller's protocol
    std::function<void(const Error&)> on_accept_error = {};  ///< told once for each such pause; may be empty
};

/// Belongs to the loop's thread; the loop outlives it. A connection serves its requests one after the other:
/// the next line is read when the one before has been answered and the answer taken, so a peer that does not
/// read holds up nobody but itself. Peers may close their sending side after a request and still get the
/// answer. When all connections are taken, a new one displaces the one that has owed its request longest, so
/// that half requests shut nobody out; both that one and a new one that finds all others at work get one
/// fault line.
class UnixServer {
  public:
    /// Answers now or later through the Responder. Runs on the loop's thread; must not destroy the server.
    using Handler = std::function<void(const Peer&, std::string line, Responder)>;

    /// Listens on `path`. A socket file under that name is a dead daemon's and is replaced; anything else is
    /// an error. The caller owns the directory and holds the instance's lock, so no other daemon is alive
    /// here.
    static Result<std::unique_ptr<UnixServer>> listen(Loop& loop, const std::string& path,
                                                      UnixServerOptions options, Handler handler);

    /// Closes every connection and removes the socket file, if it is still this server's.
    ~UnixServer();
    UnixServer(const UnixServer&) = delete;
    UnixServer& operator=(const UnixServer&) = delete;

    std::size_t connections() const { return connections_.size(); }

  private:
    friend class UnixConnection;

    UnixServer(Loop& loop, std::string path, UnixServerOptions options, Handler handler);
    Result<void> bind_and_listen();
    Result<void> remove_stale_socket() const;
    void accept_some();
    void pause_accepting(int error_number);
    void admit(OwnedFd fd);
    bool make_room();
    void forget(UnixConnection* connection);

    Loop& loop_;
    const std::string path_;
    const UnixServerOptions options_;
    const Handler handler_;
    std::vector<char> read_buffer_;  // for one read(), shared by the connections

    OwnedFd listener_;
    WatchId watch_;
    TimerId pause_timer_;
    dev_t socket_device_ = 0;
    ino_t socket_inode_ = 0;
    std::unordered_map<UnixConnection*, std::shared_ptr<UnixConnection>> connections_;
};

}  // namespace apikeyd
