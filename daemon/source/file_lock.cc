#include "source/file_lock.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <thread>

#include "source/text_file.h"

namespace apikeyd {

namespace {

constexpr mode_t kLockMode = 0600;
constexpr mode_t kSharedLockMode = 0660;
constexpr mode_t kGroupWrites = S_IRGRP | S_IWGRP;
constexpr uint32_t kLockPollMax_ms = 50;
constexpr std::string_view kLockSuffix = ".lock";

/// Who holds the lock, by what it wrote into the lock file. For display only.
std::string lock_holder(int fd) {
    char text[32] = {};
    const ssize_t got = pread(fd, text, sizeof text - 1, 0);
    const long pid = got > 0 ? std::strtol(text, nullptr, 10) : 0;
    return pid > 0 ? "process " + std::to_string(pid) : "another process";
}

void sign_lock(int fd) {
    const std::string pid = std::to_string(getpid()) + "\n";
    // Display only: a full disk must not keep anyone from the lock.
    if (ftruncate(fd, 0) != 0 || pwrite(fd, pid.data(), pid.size(), 0) < 0) {
        return;
    }
}

/// Lets the same group lock that may change the key set. Of no account where it fails: the lock file is its
/// owner's then, and who cannot open it is told so.
void share_lock(int fd, const FilePlace& place) {
    struct stat key_set {};
    if (stat(place.path.c_str(), &key_set) == 0 && is_group_shared(key_set) &&
        fchown(fd, static_cast<uid_t>(-1), key_set.st_gid) == 0) {
        (void)fchmod(fd, kSharedLockMode);
    }
}

}  // namespace

Result<FilePlace> resolve_file(const std::string& path) {
    std::string full;
    if (const std::unique_ptr<char, decltype(&free)> real(realpath(path.c_str(), nullptr), &free); real) {
        full = real.get();
    } else if (errno == ENOENT) {
        struct stat st {};
        if (lstat(path.c_str(), &st) == 0) {
            return fail(path + ": a symbolic link to nowhere (create its target, or name the file itself)");
        }
        // The directory at least: a file system's links are no part of a database's name.
        const size_t slash = path.rfind('/');
        const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
        const std::unique_ptr<char, decltype(&free)> there(realpath(directory.c_str(), nullptr), &free);
        full = there ? std::string(there.get()) + "/" + path.substr(slash + 1) : path;
    } else {
        return tl::unexpected(file_error(path, "resolve", errno));
    }
    const size_t slash = full.rfind('/');
    FilePlace place{slash == std::string::npos ? "." : full.substr(0, std::max<size_t>(slash, 1)),
                    full.substr(slash + 1), full};
    if (place.name.empty()) {
        return fail(path + ": no file name (want the path of a key set file)");
    }
    return place;
}

bool is_group_shared(const struct stat& status) {
    return (status.st_mode & kGroupWrites) == kGroupWrites;
}

Result<OwnedFd> take_file_lock(const FilePlace& place, uint32_t wait_ms_max) {
    const std::string path = place.path + std::string(kLockSuffix);
    OwnedFd lock(open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, kLockMode));
    if (!lock.is_open()) {
        return tl::unexpected(file_error(path, "open the lock file", errno));
    }
    struct stat st {};
    if (fstat(lock.get(), &st) != 0 || !S_ISREG(st.st_mode)) {
        return fail(path + ": no regular file (remove it; it is made anew)");
    }
    if (st.st_uid == geteuid()) {
        share_lock(lock.get(), place);
    }
    using Clock = std::chrono::steady_clock;
    const auto deadline = Clock::now() + std::chrono::milliseconds(wait_ms_max);
    // F_OFD_SETLKW cannot be bounded without a signal, so F_OFD_SETLK is polled.
    for (uint32_t pause_ms = 1;; pause_ms = std::min(pause_ms * 2, kLockPollMax_ms)) {
        struct flock range {};
        range.l_type = F_WRLCK;
        range.l_whence = SEEK_SET;
        if (fcntl(lock.get(), F_OFD_SETLK, &range) == 0) {
            sign_lock(lock.get());
            return lock;
        }
        if (errno != EAGAIN && errno != EACCES && errno != EINTR) {
            return tl::unexpected(file_error(path, "lock", errno));
        }
        if (Clock::now() >= deadline) {
            return fail(path + ": still locked by " + lock_holder(lock.get()) + " after " +
                        std::to_string(wait_ms_max) + " ms (wait for it to end, then try again)");
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(pause_ms));
    }
}

}  // namespace apikeyd
