// The verbs of the admin socket.
//
// Whoever may connect (the socket's group) may ask for the status. Verbs that change or force anything are
// for root, the daemon's own user and members of the operators' group, as the kernel names the peer.

#pragma once

#include <string>

#include "core/flusher.h"
#include "core/reloader.h"
#include "protocol/admin_protocol.h"
#include "runtime/unix_server.h"

namespace apikeyd {

class Admin {
  public:
    /// `fixed` holds what does not change while the daemon runs.
    Admin(Publisher& publisher, Reloader& reloader, Flusher& flusher, gid_t operators_group,
          DaemonStatus fixed, Log& log)
        : publisher_(publisher),
          reloader_(reloader),
          flusher_(flusher),
          operators_group_(operators_group),
          fixed_(std::move(fixed)),
          log_(log) {}

    /// Answers one request line, now or later.
    void handle(const Peer& peer, const std::string& line, const Responder& responder);

    void set_watch_problem(std::string problem) { fixed_.watch_problem = std::move(problem); }

  private:
    bool may_operate(const Peer& peer) const;
    DaemonStatus status() const;
    void note_change(const Change& change, const Result<void>& result);
    void note_change(const PolicyChange& change, const Result<void>& result);
    void answer(const Responder& responder, const StatusRequest& request);
    void answer(const Responder& responder, const ReloadRequest& request);
    void answer(const Responder& responder, const FlushRequest& request);
    void answer(const Responder& responder, const ApplyRequest& request);

    Publisher& publisher_;
    Reloader& reloader_;
    Flusher& flusher_;
    gid_t operators_group_;
    DaemonStatus fixed_;
    Log& log_;
};

}  // namespace apikeyd
