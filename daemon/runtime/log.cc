#include "runtime/log.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <utility>

#include "base/errno_text.h"

namespace apikeyd {
namespace {

constexpr mode_t kLogMode = 0640;

/// The number that sd-daemon(3) puts in front of a line.
std::string_view journal_prefix(LogLevel level) {
    constexpr std::array<std::string_view, 4> prefixes = {"<7>", "<6>", "<4>", "<3>"};
    return prefixes[static_cast<std::size_t>(level)];
}

Result<OwnedFd> open_file(const std::string& path) {
    // O_NONBLOCK: a FIFO without a reader must not hold the daemon up. Regular files do not know it.
    constexpr int kFlags = O_WRONLY | O_APPEND | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    // Created exclusively first, so that only a file of our own making gets our mode. Twice, because rotation
    // may move the file away between the two calls.
    for (int attempt = 0; attempt < 2; ++attempt) {
        OwnedFd file(::open(path.c_str(), kFlags | O_CREAT | O_EXCL, kLogMode));
        if (file.is_open()) {
            if (::fchmod(file.get(), kLogMode) != 0) {
                return fail(fmt::format("{}: cannot set mode 0640: {}", path, errno_text(errno)));
            }
            return file;
        }
        if (errno != EEXIST) {
            break;
        }
        file.reset(::open(path.c_str(), kFlags));
        if (file.is_open()) {
            return file;
        }
        if (errno != ENOENT) {
            break;
        }
    }
    const int error_number = errno;
    return fail(fmt::format("{}: {}", path,
                            error_number == ELOOP
                                ? "is a symbolic link, which is not followed; name the file itself"
                                : errno_text(error_number)));
}

bool is_journal(int stream, const std::string& journal_stream) {
    struct stat status {};
    return !journal_stream.empty() && ::fstat(stream, &status) == 0 &&
           journal_stream == fmt::format("{}:{}", status.st_dev, status.st_ino);
}

}  // namespace

Result<std::unique_ptr<Log>> Log::open(LogOptions options) {
    const bool to_journal = options.path.empty() && is_journal(options.stream, options.journal_stream);
    std::unique_ptr<Log> log(new Log(std::move(options), to_journal));
    if (!log->have_file() && !log->options_.open_later) {
        return fail("log: " + log->problem_);
    }
    return log;
}

Log::Log(LogOptions options, bool to_journal) : options_(std::move(options)), to_journal_(to_journal) {}

std::string Log::compose(std::chrono::system_clock::time_point time, LogLevel level, std::string_view event,
                         std::span<const LogField> fields) const {
    if (to_journal_) {
        return format_log_line(options_.format, journal_prefix(level), "", level, event, fields);
    }
    return format_log_line(options_.format, "", rfc3339_ms(time), level, event, fields);
}

void Log::write(LogLevel level, std::string_view event, std::span<const LogField> fields) {
    if (level < options_.level_min) {
        return;
    }
    const std::lock_guard lock(mutex_);  // around the clock too: the lines' times do not go back
    write_or_count(compose(std::chrono::system_clock::now(), level, event, fields));
}

void Log::write_at(std::chrono::system_clock::time_point time, LogLevel level, std::string_view event,
                   std::span<const LogField> fields) {
    if (level < options_.level_min) {
        return;
    }
    const std::lock_guard lock(mutex_);
    write_or_count(compose(time, level, event, fields));
}

void Log::write_or_count(const std::string& line) {
    if (have_file() && write_line(line)) {
        problem_.clear();
    } else {
        ++dropped_;
    }
}

/// Opens the file where there is none yet, or where nobody could find the one that is open.
bool Log::have_file() {
    struct stat status {};
    if (options_.path.empty() ||
        (file_.is_open() && ::fstat(file_.get(), &status) == 0 && status.st_nlink != 0)) {
        return true;
    }
    auto opened = open_file(options_.path);
    if (!opened) {
        problem_ = opened.error().message;
        return false;
    }
    file_ = std::move(*opened);
    torn_ = false;  // the new file begins with a whole line
    return true;
}

/// Behind what is to be told of lines before it.
bool Log::write_line(const std::string& line) {
    if (torn_ && !write_whole("\n")) {
        return false;
    }
    torn_ = false;
    if (dropped_ > 0) {
        const LogField lost[] = {LogField("lines", dropped_)};
        if (!write_whole(compose(std::chrono::system_clock::now(), LogLevel::warn, "log.dropped", lost))) {
            return false;
        }
        dropped_ = 0;
    }
    return write_whole(line);
}

bool Log::write_whole(std::string_view text) {
    const int fd = options_.path.empty() ? options_.stream : file_.get();
    bool begun = false;
    while (!text.empty()) {
        const ssize_t bytes = ::write(fd, text.data(), text.size());
        if (bytes < 0 && errno == EINTR) {
            continue;
        }
        if (bytes <= 0) {
            problem_ = (options_.path.empty() ? "the stream" : options_.path) + ": " + errno_text(errno);
            torn_ = torn_ || begun;
            return false;
        }
        begun = true;
        text.remove_prefix(static_cast<std::size_t>(bytes));
    }
    return true;
}

Result<void> Log::reopen() {
    if (options_.path.empty()) {
        return {};
    }
    auto opened = open_file(options_.path);
    if (!opened) {
        error("log.reopen_failed", {{"error", opened.error().message}});
        return fail("log: " + opened.error().message);
    }
    const std::lock_guard lock(mutex_);
    file_ = std::move(*opened);
    torn_ = false;
    return {};
}

std::uint64_t Log::dropped_lines() const {
    const std::lock_guard lock(mutex_);
    return dropped_;
}

std::string Log::problem() const {
    const std::lock_guard lock(mutex_);
    return problem_;
}

}  // namespace apikeyd
