#include "shm/directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <memory>
#include <optional>

#include "shm/instance_place.h"

namespace apikey::shm {
namespace {

constexpr mode_t kBaseMode = 0755;
constexpr mode_t kDirectoryMode = 0750;
constexpr mode_t kLockMode = 0600;
constexpr gid_t kKeepGroup = static_cast<gid_t>(-1);

/// Sets mode and group of a directory of our own; the path is ours, so it cannot be swapped meanwhile.
Result<void> set_access(const std::string& path, mode_t mode, gid_t group) {
    if (group != kKeepGroup && chown(path.c_str(), static_cast<uid_t>(-1), group) != 0) {
        return fail(system_error_text("cannot give it to group " + std::to_string(group), path, errno));
    }
    if (chmod(path.c_str(), mode) != 0) {
        return fail(system_error_text("cannot set its mode", path, errno));
    }
    return {};
}

/// Makes the directory; false when something is there already.
Result<bool> make_directory(const std::string& path, mode_t mode, gid_t group) {
    if (mkdir(path.c_str(), mode) != 0) {
        if (errno == EEXIST) {
            return false;
        }
        return fail(system_error_text("cannot create the directory", path, errno));
    }
    if (auto set = set_access(path, mode, group); !set) {
        rmdir(path.c_str());
        return tl::unexpected(set.error());
    }
    return true;
}

Result<struct stat> stat_directory(const std::string& path) {
    struct stat status {};
    if (lstat(path.c_str(), &status) != 0) {
        return fail(system_error_text("cannot stat", path, errno));
    }
    if (!S_ISDIR(status.st_mode)) {
        return fail(path +
                    ": is no directory (links are not followed); remove it or set another `directory`");
    }
    return status;
}

/// The base may be shared by instances of several groups, so anyone may pass through it. Whoever can rename
/// in it could put another directory in the instance's place: that may only be this user or root.
Result<void> check_base(const std::string& path) {
    Result<struct stat> status = stat_directory(path);
    if (!status) {
        return tl::unexpected(status.error());
    }
    if (status->st_uid != geteuid() && status->st_uid != 0) {
        return fail(path + ": owned by uid " + std::to_string(status->st_uid) +
                    ", neither root nor this daemon's uid " + std::to_string(geteuid()) +
                    "; remove it or set another `directory`");
    }
    if ((status->st_mode & (S_IWGRP | S_IWOTH)) != 0 && (status->st_mode & S_ISVTX) == 0) {
        return fail(path + ": writable by others; chmod it to 0755 after checking what is in it");
    }
    return {};
}

/// The instance's own directory belongs to this daemon alone.
Result<void> check_own(const std::string& path) {
    Result<struct stat> status = stat_directory(path);
    if (!status) {
        return tl::unexpected(status.error());
    }
    if (status->st_uid != geteuid()) {
        return fail(path + ": owned by uid " + std::to_string(status->st_uid) +
                    ", not by this daemon's uid " + std::to_string(geteuid()) +
                    "; remove it or set another `directory`");
    }
    if ((status->st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        return fail(path + ": writable by others; chmod it to 0750 after checking what is in it");
    }
    return {};
}

Result<void> make_base(const std::string& path) {
    Result<bool> made = make_directory(path, kBaseMode, kKeepGroup);
    if (!made || *made) {
        return made ? Result<void>{} : tl::unexpected(made.error());
    }
    return check_base(path);
}

Result<void> make_own(const std::string& path, gid_t group) {
    Result<bool> made = make_directory(path, kDirectoryMode, group);
    if (!made || *made) {
        return made ? Result<void>{} : tl::unexpected(made.error());
    }
    if (auto checked = check_own(path); !checked) {
        return checked;
    }
    return set_access(path, kDirectoryMode, group);  // another clients' group may be configured now
}

/// Why nothing can be made in a directory; nothing when it can.
Result<void> check_writable(const std::string& path) {
    if (access(path.c_str(), W_OK | X_OK) != 0) {
        return fail(system_error_text("cannot make anything in it", path, errno));
    }
    return {};
}

bool is_there(const std::string& path) {
    struct stat status {};
    return lstat(path.c_str(), &status) == 0 || errno != ENOENT;
}

std::string holder_text(int lock_fd) {
    char text[32] = {};
    const ssize_t got = pread(lock_fd, text, sizeof text - 1, 0);
    const std::string pid(text, got > 0 ? static_cast<size_t>(got) : 0);
    return pid.empty() ? std::string("another daemon") : "another daemon (pid " + pid + ")";
}

Result<FileHandle> take_lock(int directory_fd, const std::string& path) {
    FileHandle lock(openat(directory_fd, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, kLockMode));
    if (!lock) {
        return fail(system_error_text("cannot open", path + "/lock", errno));
    }
    struct flock request {};
    request.l_type = F_WRLCK;
    request.l_whence = SEEK_SET;
    if (fcntl(lock.get(), F_OFD_SETLK, &request) != 0) {
        if (errno == EAGAIN || errno == EACCES) {
            return fail(path + ": " + holder_text(lock.get()) +
                        " serves this instance; stop it or set another `instance`");
        }
        return fail(system_error_text("cannot lock", path + "/lock", errno));
    }
    // For people only; the lock is what counts.
    const std::string pid = std::to_string(getpid());
    if (fchmod(lock.get(), kLockMode) != 0 || ftruncate(lock.get(), 0) != 0 ||
        pwrite(lock.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
        return fail(system_error_text("cannot write", path + "/lock", errno));
    }
    return lock;
}

std::optional<uint32_t> number_after(const std::string& name, const std::string& prefix) {
    if (name.rfind(prefix, 0) != 0) {
        return std::nullopt;
    }
    uint32_t number = 0;
    const char* end = name.data() + name.size();
    const auto [stop, error] = std::from_chars(name.data() + prefix.size(), end, number);
    return error == std::errc{} && stop == end && number != 0 ? std::optional(number) : std::nullopt;
}

}  // namespace

Result<Directory> Directory::open_and_lock(const std::string& base, const std::string& instance,
                                           gid_t clients_group) {
    if (!is_plain_name(instance.c_str())) {
        return fail("instance '" + instance + "': must be a plain name: not empty, no '/', no '.' in front");
    }
    if (auto made = make_base(base); !made) {
        return tl::unexpected(made.error());
    }
    const std::string path = base + "/" + instance;
    if (auto made = make_own(path, clients_group); !made) {
        return tl::unexpected(made.error());
    }
    FileHandle directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!directory) {
        return fail(system_error_text("cannot open", path, errno));
    }
    Result<FileHandle> lock = take_lock(directory.get(), path);
    if (!lock) {
        return tl::unexpected(lock.error());
    }
    return Directory(path, std::move(directory), std::move(*lock));
}

Result<void> Directory::check(const std::string& base, const std::string& instance) {
    const std::string own = base + "/" + instance;
    if (!is_there(base)) {
        const size_t slash = base.rfind('/');
        return check_writable(slash == std::string::npos ? "." : base.substr(0, std::max<size_t>(slash, 1)));
    }
    Result<void> checked = check_base(base);
    if (checked) {
        checked = is_there(own) ? check_own(own) : check_writable(base);
    }
    return checked;
}

Result<std::vector<uint32_t>> Directory::generations() {
    const int copy = dup(directory_.get());
    std::unique_ptr<DIR, int (*)(DIR*)> listing(copy < 0 ? nullptr : fdopendir(copy), closedir);
    if (!listing) {
        if (copy >= 0) {
            close(copy);
        }
        return fail(system_error_text("cannot list", path_, errno));
    }
    rewinddir(listing.get());
    std::vector<uint32_t> tables;
    std::vector<uint32_t> cells;
    std::vector<std::string> leftovers;
    errno = 0;
    while (const dirent* entry = readdir(listing.get())) {
        const std::string name = entry->d_name;
        if (const auto table = number_after(name, "table.")) {
            tables.push_back(*table);
        } else if (const auto cell = number_after(name, "cells.")) {
            cells.push_back(*cell);
        } else if (name.rfind("build.", 0) == 0) {
            leftovers.push_back(name);
        }
        errno = 0;
    }
    if (errno != 0) {  // half a listing would make cells in use look like leftovers
        return fail(system_error_text("cannot list", path_, errno));
    }
    std::sort(tables.begin(), tables.end());
    for (const uint32_t cell : cells) {
        // Cells are named first and unlinked last, so cells alone are a build that was killed, or a harvest
        // that was.
        if (!std::binary_search(tables.begin(), tables.end(), cell)) {
            leftovers.push_back("cells." + std::to_string(cell));
        }
    }
    for (const std::string& name : leftovers) {
        unlinkat(directory_.get(), name.c_str(), 0);
    }
    return tables;
}

bool Directory::still_named(int control_fd) const {
    const auto names = [](int at, const char* name, int fd) {
        struct stat mine {};
        struct stat named {};
        return fstat(fd, &mine) == 0 && fstatat(at, name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
               mine.st_ino == named.st_ino && mine.st_dev == named.st_dev;
    };
    // The lock's name too: a daemon started after its removal would lock another file, and be a second one.
    return names(AT_FDCWD, path_.c_str(), directory_.get()) &&
           names(directory_.get(), "control", control_fd) && names(directory_.get(), "lock", lock_.get());
}

}  // namespace apikey::shm
