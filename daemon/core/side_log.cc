#include "core/side_log.h"

namespace apikeyd {

SideLog::SideLog(std::string_view name, const SideLogConfig& config, Log& main) : name_(name), main_(main) {
    if (!config.file.empty()) {
        auto file = Log::open({.format = config.format, .path = config.file, .open_later = true});
        file_ = std::move(*file);  // no failure: it is opened later
        tell_main_log();
    }
}

void SideLog::write(LogLevel level, std::string_view event, std::span<const LogField> fields) {
    file_->write(level, event, fields);
    tell_main_log();
}

void SideLog::write_at(std::chrono::system_clock::time_point time, LogLevel level, std::string_view event,
                       std::span<const LogField> fields) {
    file_->write_at(time, level, event, fields);
    tell_main_log();
}

void SideLog::reopen() {
    if (!on()) {
        return;
    }
    if (const Result<void> reopened = file_->reopen(); !reopened) {
        main_.error(name_ + ".reopen_failed", {{"error", reopened.error().message}});
    }
}

void SideLog::tell_main_log() {
    const std::string problem = file_->problem();
    if (problem.empty() == !failing_) {
        return;
    }
    failing_ = !problem.empty();
    if (failing_) {
        main_.error(name_ + ".not_written", {{"reason", problem}});
    } else {
        main_.info(name_ + ".written_again");
    }
}

}  // namespace apikeyd
