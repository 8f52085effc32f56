// One accepted connection of a UnixServer. Internal to it.

#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/owned_fd.h"
#include "base/result.h"
#include "runtime/loop.h"
#include "runtime/unix_server.h"

namespace apikeyd {

/// Cycles through receiving a line, waiting for its answer, sending it. Any entry point may close the
/// connection, which drops the server's reference: whoever calls one holds a reference of his own meanwhile.
class UnixConnection : public std::enable_shared_from_this<UnixConnection> {
  public:
    UnixConnection(UnixServer& server, OwnedFd fd, Peer peer);

    Result<void> start();

    /// See Responder::send().
    bool answer(std::uint64_t request, std::string_view line);

    /// True while the peer has not sent a whole request; since() tells from when on.
    bool owes_request() const { return phase_ == Phase::receiving && !resume_pending_; }
    std::chrono::steady_clock::time_point since() const { return since_; }
    /// Tells the peer that others need its place, once and without waiting, and closes.
    void displace();

    /// Leaves loop and server. Does nothing the second time.
    void close();

  private:
    enum class Phase { receiving, handling, sending };
    enum class NextLine { found, none, too_long };

    void on_ready(Ready ready);
    void on_deadline();
    void receive();
    void advance();
    NextLine take_line(std::string& line);
    void end_of_input();
    void give_to_handler(std::string line);
    void queue_fault(ServerFault fault);
    void flush();
    void enter(Phase phase);
    void update_interest();
    bool is_open() const { return fd_.is_open(); }

    UnixServer& server_;  // not to be used once closed
    OwnedFd fd_;
    const Peer peer_;
    WatchId watch_;
    TimerId deadline_;
    TimerId resume_;

    Phase phase_ = Phase::receiving;
    std::chrono::steady_clock::time_point since_;  // when phase_ was entered
    std::string received_;
    std::size_t taken_bytes_ = 0;     // of received_, by earlier requests
    std::size_t searched_bytes_ = 0;  // of received_, for a line feed: each byte is looked at once
    std::string to_send_;
    std::size_t sent_bytes_ = 0;
    std::uint64_t request_ = 0;    // number of the request being handled
    bool advancing_ = false;       // an answer given inside the handler must not recurse
    bool resume_pending_ = false;  // lines are left, and other connections had to get a turn
    bool input_ended_ = false;
    bool close_when_sent_ = false;
};

}  // namespace apikeyd
