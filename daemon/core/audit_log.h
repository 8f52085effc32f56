// The audit log: who changed what, from what to what, and how it went. One line an action.

#pragma once

#include <string>
#include <string_view>

#include "core/audit_entry.h"
#include "core/load.h"
#include "core/side_log.h"
#include "runtime/unix_server.h"

namespace apikeyd {

/// Lives on the loop's thread.
class AuditLog {
  public:
    /// `log` is the main one, and outlives this.
    AuditLog(const SideLogConfig& config, Log& log) : log_("audit", config, log) {}

    bool on() const { return log_.on(); }

    /// To be told before the action is answered. `by` is who asked for it by the socket; nullptr: whoever
    /// edited the source. `on_behalf_of`: whom they acted for, as they say; empty: nobody.
    void changed(const Peer* by, const AuditEntry& entry, const Result<void>& result,
                 std::string_view on_behalf_of = {});
    /// A reload that was asked for by the socket.
    void reloaded(const Peer& by, bool force, const Result<ReloadReport>& result);
    /// The end of a load, behind the lines of its changes, of which `load.audit` left some out.
    void loaded(const Load& load, const Result<void>& result);
    /// Somebody asked for what only operators may. `left_out`: of such, since the last line.
    void refused(const Peer& by, std::string_view request, std::string_view id, uint64_t left_out);

    void reopen() { log_.reopen(); }
    std::string problem() const { return log_.problem(); }

  private:
    class Line;

    SideLog log_;
};

}  // namespace apikeyd
