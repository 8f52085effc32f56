#include "runtime/file_watch.h"

#include <fmt/core.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/errno_text.h"
#include "runtime/link_chain.h"

namespace apikeyd {
namespace {

constexpr std::uint32_t kEntryEvents =
    IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_CLOSE_WRITE | IN_DELETE | IN_ATTRIB;
constexpr std::uint32_t kSelfEvents = IN_DELETE_SELF | IN_MOVE_SELF;
// IN_MASK_ADD: a directory may be passed and decide too, and a second watch of it would replace the first
// one's mask.
constexpr std::uint32_t kHow = IN_ONLYDIR | IN_DONT_FOLLOW | IN_MASK_ADD;

constexpr int kRebuildAttempts = 5;

// Two writes within one step of a file system's clock leave the same times; the coarsest in use (FAT) steps
// by 2 s.
constexpr std::int64_t kClockStep_ns = 2'000'000'000;

std::int64_t to_ns(const timespec& time) {
    return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

/// Watches what a walk of the path tells, and keeps book of it.
class FileWatch::Rebuild final : public LinkChainVisitor {
  public:
    Rebuild(int inotify, bool writes)
        : inotify_(inotify), events_(kSelfEvents | kEntryEvents | (writes ? IN_MODIFY : 0u)) {}

    void passing(const std::string& directory) override {
        // Costs no wake-ups, and tells when a directory higher up is moved away. Where it fails (no right to
        // read the directory) polling sees the same.
        const int watch = ::inotify_add_watch(inotify_, directory.c_str(), kHow | kSelfEvents);
        if (watch >= 0) {
            names_by_watch[watch];
        }
    }

    bool deciding(const std::string& directory, const std::string& name) override {
        const int watch = ::inotify_add_watch(inotify_, directory.c_str(), kHow | events_);
        if (watch >= 0) {
            names_by_watch[watch].insert(name);
            return true;
        }
        if (errno == ENOENT || errno == ENOTDIR) {
            return false;
        }
        problem = fmt::format(
            "{}: cannot be watched by inotify: {}", directory,
            errno == ENOSPC ? "no watches left (raise fs.inotify.max_user_watches)" : errno_text(errno));
        return true;
    }

    std::map<int, std::set<std::string>> names_by_watch;
    std::string problem;

  private:
    const int inotify_;
    const std::uint32_t events_;
};

Result<std::unique_ptr<FileWatch>> FileWatch::create(Loop& loop, const std::string& path,
                                                     FileWatchOptions options,
                                                     std::function<void()> changed) {
    std::error_code error;
    const auto absolute = std::filesystem::absolute(path, error);
    if (path.empty() || error) {
        return fail(fmt::format("file watch: '{}' is not a usable path: {}", path,
                                path.empty() ? "it is empty" : error.message()));
    }
    std::unique_ptr<FileWatch> file(new FileWatch(loop, absolute.string(), options, std::move(changed)));
    if (options.use_inotify) {
        if (auto opened = file->open_inotify(); !opened) {
            file->problem_ = opened.error().message;
        }
    }
    file->rebuild();
    file->reported_ = file->look();
    file->poll_timer_ =
        loop.every(std::chrono::milliseconds(options.poll_ms), [raw = file.get()] { raw->poll(); });
    return file;
}

FileWatch::FileWatch(Loop& loop, std::string path, FileWatchOptions options, std::function<void()> changed)
    : loop_(loop), path_(std::move(path)), options_(options), changed_(std::move(changed)) {}

FileWatch::~FileWatch() {
    loop_.cancel(poll_timer_);
    loop_.cancel(debounce_timer_);
    loop_.unwatch(watch_);
}

Result<void> FileWatch::open_inotify() {
    OwnedFd inotify(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    if (!inotify.is_open()) {
        return fail(fmt::format("{}: inotify_init: {}", path_,
                                errno == EMFILE
                                    ? "no instances or descriptors left (fs.inotify.max_user_instances)"
                                    : errno_text(errno)));
    }
    auto watch = loop_.watch(inotify.get(), Interest::readable, [this](Ready) { read_events(); });
    if (!watch) {
        return tl::unexpected<Error>(watch.error());
    }
    inotify_ = std::move(inotify);
    watch_ = *watch;
    return {};
}

void FileWatch::read_events() {
    alignas(inotify_event) std::array<char, 4096> buffer;
    bool change = false;
    while (true) {
        const ssize_t bytes = ::read(inotify_.get(), buffer.data(), buffer.size());
        if (bytes < 0 && errno == EINTR) {
            continue;
        }
        if (bytes <= 0) {
            break;
        }
        std::size_t offset = 0;
        while (offset < static_cast<std::size_t>(bytes)) {
            inotify_event event{};
            std::memcpy(&event, buffer.data() + offset, sizeof(event));
            // The name is padded with NULs to event.len; without one len is 0.
            const std::string name = event.len == 0 ? std::string() : buffer.data() + offset + sizeof(event);
            change = tells_of_change(event.wd, event.mask, name) || change;
            offset += sizeof(event) + event.len;
        }
    }
    if (change) {
        schedule(false);
    }
}

bool FileWatch::tells_of_change(int directory_watch, std::uint32_t mask, const std::string& name) {
    if ((mask & IN_Q_OVERFLOW) != 0) {
        return true;  // events were lost: anything may have happened
    }
    const auto found = names_by_watch_.find(directory_watch);
    if (found == names_by_watch_.end()) {
        return false;  // left over from a chain that is not ours any more
    }
    if ((mask & IN_IGNORED) != 0) {
        names_by_watch_.erase(found);  // the kernel dropped it: directory deleted, file system unmounted
        return true;
    }
    return (mask & (kSelfEvents | IN_UNMOUNT)) != 0 || found->second.contains(name);
}

void FileWatch::poll() {
    if (look_again_ || look() != reported_) {
        schedule(true);
    }
}

void FileWatch::schedule(bool found_by_poll) {
    if (scheduled_) {
        return;
    }
    scheduled_ = true;
    found_by_poll_ = found_by_poll;
    // A fixed window from the first sign on: a file that is written all the time is still reported.
    debounce_timer_ = loop_.after(std::chrono::milliseconds(options_.debounce_ms), [this] { report(); });
}

void FileWatch::report() {
    scheduled_ = false;
    rebuild();
    // Looked at before the caller reads: what changes after this differs from it, or is told by inotify.
    reported_ = look();
    // Except, where inotify is silent, a change so soon after this one that the times are the same (as git's
    // index has it, "racily clean"). Tell once more at the next poll until the times are safely in the past.
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    const std::int64_t now_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
    const std::int64_t newest_ns = std::max(reported_.modified_ns, reported_.status_changed_ns);
    look_again_ = found_by_poll_ && reported_.error_number == 0 && newest_ns > now_ns - kClockStep_ns &&
                  newest_ns < now_ns + kClockStep_ns;
    changed_();
}

void FileWatch::rebuild() {
    if (!inotify_.is_open()) {
        return;
    }
    for (int attempt = 0; attempt < kRebuildAttempts; ++attempt) {
        Rebuild chain(inotify_.get(), options_.writes);
        const bool whole = walk_link_chain(path_, chain);
        for (const auto& [watch, names] : names_by_watch_) {
            if (!chain.names_by_watch.contains(watch)) {
                ::inotify_rm_watch(inotify_.get(), watch);  // fails only when the directory has gone
            }
        }
        names_by_watch_ = std::move(chain.names_by_watch);
        problem_ = std::move(chain.problem);
        if (whole) {
            return;
        }  // else a directory went away during the walk: the next one finds it missing
    }
    problem_ = path_ + ": its directories change too fast for inotify";
}

FileWatch::Signature FileWatch::look() const {
    Signature signature;
    struct stat status {};
    if (::stat(path_.c_str(), &status) != 0) {
        signature.error_number = errno;
        return signature;
    }
    signature.device = status.st_dev;
    signature.inode = status.st_ino;
    signature.size_bytes = status.st_size;
    signature.modified_ns = to_ns(status.st_mtim);
    signature.status_changed_ns = to_ns(status.st_ctim);
    return signature;
}

}  // namespace apikeyd
