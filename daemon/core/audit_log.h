// The audit log: who changed what, from what to what, and how it went. One line an action.

#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "core/audit_entry.h"
#include "core/load.h"
#include "runtime/log.h"
#include "runtime/unix_server.h"
#include "source/config.h"

namespace apikeyd {

/// Lives on the loop's thread. What cannot be written is lost, and stops nobody: the main log tells when that
/// begins and ends, and problem() while it lasts.
class AuditLog {
  public:
    /// Without a file in `config` nothing is kept. One that cannot be opened now is tried again at each line.
    /// `log` is the main one, and outlives this.
    AuditLog(const AuditLogConfig& config, Log& log);

    /// Whether there is a file: what nobody reads need not be found out.
    bool on() const { return file_ != nullptr; }

    /// To be told before the action is answered. `by` is who asked for it by the socket; nullptr: whoever
    /// edited the source.
    void changed(const Peer* by, const AuditEntry& entry, const Result<void>& result);
    /// A reload that was asked for by the socket.
    void reloaded(const Peer& by, bool force, const Result<ReloadReport>& result);
    /// The end of a load, behind the lines of its changes, of which `load.audit` left some out.
    void loaded(const Load& load, const Result<void>& result);
    /// Somebody asked for what only operators may. `left_out`: of such, since the last line.
    void refused(const Peer& by, std::string_view request, std::string_view id, uint64_t left_out);

    /// For rotation.
    void reopen();
    /// Why the last line was lost; empty when it was not.
    std::string problem() const { return on() ? file_->problem() : std::string(); }

  private:
    class Line;
    void write(const Line& line);
    void tell_main_log();

    std::unique_ptr<Log> file_;  // nullptr: off
    Log& log_;
    bool failing_ = false;
};

}  // namespace apikeyd
