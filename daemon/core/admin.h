// The verbs of the admin socket.
//
// Whoever may connect (the socket's group) may ask for the status. Verbs that change or force anything are
// for root, the daemon's own user and members of the operators' group, as the kernel names the peer.

#pragma once

#include <string>

#include "core/audit_log.h"
#include "core/denial_log.h"
#include "core/flusher.h"
#include "core/reloader.h"
#include "protocol/admin_protocol.h"
#include "runtime/unix_server.h"

namespace apikeyd {

class UsageSender;

class Admin {
  public:
    /// `fixed` holds what does not change while the daemon runs.
    Admin(Publisher& publisher, Reloader& reloader, Flusher& flusher, gid_t operators_group,
          DaemonStatus fixed, AuditLog& audit, const DenialLog& denials, Log& log)
        : publisher_(publisher),
          reloader_(reloader),
          flusher_(flusher),
          operators_group_(operators_group),
          fixed_(std::move(fixed)),
          audit_(audit),
          denials_(denials),
          log_(log) {}

    /// Answers one request line, now or later.
    void handle(const Peer& peer, const std::string& line, const Responder& responder);

    void set_watch_problem(std::string problem) { fixed_.watch_problem = std::move(problem); }
    /// nullptr, as at first: there is none.
    void set_usage_sender(const UsageSender* sender) { usage_sender_ = sender; }

  private:
    bool may_operate(const Peer& peer) const;
    DaemonStatus status() const;
    std::vector<AuditEntry> audited(const ApplyRequest& request) const;
    void refuse(const Peer& peer, const AdminRequest& request, const Responder& responder);
    void note_change(const Change& change, const Result<void>& result);
    void note_change(const PolicyChange& change, const Result<void>& result);
    void answer(const Peer& peer, const Responder& responder, const StatusRequest& request);
    void answer(const Peer& peer, const Responder& responder, const ReloadRequest& request);
    void answer(const Peer& peer, const Responder& responder, const FlushRequest& request);
    void answer(const Peer& peer, const Responder& responder, const ApplyRequest& request);

    Publisher& publisher_;
    Reloader& reloader_;
    Flusher& flusher_;
    gid_t operators_group_;
    DaemonStatus fixed_;
    const UsageSender* usage_sender_ = nullptr;
    AuditLog& audit_;
    const DenialLog& denials_;
    Log& log_;
    uint64_t refusals_s_ = 0;  // the second that refusals_ counts in
    uint64_t refusals_ = 0;
    uint64_t refusals_left_out_ = 0;
};

}  // namespace apikeyd
