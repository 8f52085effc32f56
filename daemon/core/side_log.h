// A log beside the main one, in a file of its own: the audit log, the denial log.

#pragma once

#include <chrono>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "runtime/log.h"
#include "source/config.h"

namespace apikeyd {

/// Lives on the loop's thread. What cannot be written is lost, and stops nobody: the main log tells when that
/// begins and ends (`NAME.not_written`, `NAME.written_again`), and problem() while it lasts.
class SideLog {
  public:
    /// Without a file in `config` nothing is kept. One that cannot be opened now is tried again at each line.
    /// `main` outlives this.
    SideLog(std::string_view name, const SideLogConfig& config, Log& main);

    /// Whether there is a file: what nobody reads need not be found out.
    bool on() const { return file_ != nullptr; }

    /// While it is on; see Log.
    void write(LogLevel level, std::string_view event, std::span<const LogField> fields);
    void write_at(std::chrono::system_clock::time_point time, LogLevel level, std::string_view event,
                  std::span<const LogField> fields);

    /// For rotation.
    void reopen();
    /// Why the last line was lost; empty when it was not.
    std::string problem() const { return on() ? file_->problem() : std::string(); }

  private:
    void tell_main_log();

    std::string name_;
    std::unique_ptr<Log> file_;  // nullptr: off
    Log& main_;
    bool failing_ = false;
};

}  // namespace apikeyd
