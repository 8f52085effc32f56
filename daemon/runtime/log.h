// The one place that logs: one line an event, logfmt or JSON, to standard error or a file.

#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>

#include "base/owned_fd.h"
#include "base/result.h"
#include "runtime/log_format.h"

namespace apikeyd {

struct LogOptions {
    LogFormat format = LogFormat::logfmt;
    LogLevel level_min = LogLevel::info;
    std::string path = {};  ///< a file; empty: `stream`
    int stream = 2;         ///< standard error; borrowed, never closed
    std::string journal_stream =
        {};                   ///< the environment's JOURNAL_STREAM ("device:inode"), empty when not set
    bool open_later = false;  ///< a file that cannot be opened now is no failure: each line tries again
};

/// Thread-safe. A line is one write(), so that lines of several processes do not mix (O_APPEND).
///
/// Logging never fails for its caller: a full disk, a closed pipe or a reader that does not read (where the
/// stream is non-blocking) lose lines; these are counted, and the next line that can be written is preceded
/// by `event=log.dropped lines=N`. A stream that blocks makes the caller wait.
///
/// A file that has no name any more, because it or its directory was removed, is made again. One that was
/// renamed is written on to until reopen().
///
/// When `stream` is the journal's socket (JOURNAL_STREAM names its device and inode) lines begin with the
/// priority in sd-daemon(3)'s form, <3> to <7>, and carry no time: the journal has its own.
class Log {
  public:
    /// Opens or creates the file: 0640 whatever the umask when it is new, its own mode when it is there; a
    /// symbolic link in the last component is refused. The error names the path.
    static Result<std::unique_ptr<Log>> open(LogOptions options);

    Log(const Log&) = delete;
    Log& operator=(const Log&) = delete;

    using Fields = std::initializer_list<LogField>;
    void debug(std::string_view event, Fields fields = {}) { write(LogLevel::debug, event, span(fields)); }
    void info(std::string_view event, Fields fields = {}) { write(LogLevel::info, event, span(fields)); }
    void warn(std::string_view event, Fields fields = {}) { write(LogLevel::warn, event, span(fields)); }
    void error(std::string_view event, Fields fields = {}) { write(LogLevel::error, event, span(fields)); }

    /// `event` is a dotted name from the code ("reload.done"). No field holds a key's plaintext.
    void write(LogLevel level, std::string_view event, std::span<const LogField> fields);

    /// The same with the time of what is told, for what happened elsewhere a little earlier.
    void write_at(std::chrono::system_clock::time_point time, LogLevel level, std::string_view event,
                  std::span<const LogField> fields);

    /// Opens the file again by its name, for rotation. When that fails the old file stays in use, says so,
    /// and the error is returned. Nothing to do for a stream.
    Result<void> reopen();

    /// Lines lost so far that were not reported yet.
    std::uint64_t dropped_lines() const;
    /// Why the last line was lost; empty when it was not.
    std::string problem() const;

  private:
    static std::span<const LogField> span(Fields fields) { return {fields.begin(), fields.size()}; }
    Log(LogOptions options, bool to_journal);
    std::string compose(std::chrono::system_clock::time_point time, LogLevel level, std::string_view event,
                        std::span<const LogField> fields) const;
    void write_or_count(const std::string& line);
    bool have_file();
    bool write_line(const std::string& line);
    bool write_whole(std::string_view text);

    const LogOptions options_;
    const bool to_journal_;
    mutable std::mutex mutex_;  // guards what follows
    OwnedFd file_;              // of options_.path
    std::uint64_t dropped_ = 0;
    bool torn_ = false;  // the last write() stopped inside a line
    std::string problem_;
};

}  // namespace apikeyd
