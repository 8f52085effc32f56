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

namespace apikey::shm {
namespace {

constexpr mode_t kBaseMode = 0755;  // instances of one host may have different groups of clients
constexpr mode_t kInstanceMode = 0750;
constexpr mode_t kLockMode = 0600;

/// The base may be shared by instances; the instance's own directory belongs to this daemon alone.
Result<void> make_directory(const std::string& path, gid_t group, bool exclusive) {
    const mode_t mode = exclusive ? kInstanceMode : kBaseMode;
    if (mkdir(path.c_str(), mode) == 0) {
        if (group != static_cast<gid_t>(-1) && chown(path.c_str(), static_cast<uid_t>(-1), group) != 0) {
            const int error = errno;
            rmdir(path.c_str());
            return fail(system_error_text("cannot give it to group " + std::to_string(group), path, error));
        }
        if (chmod(path.c_str(), mode) != 0) {
            return fail(system_error_text("cannot set its mode", path, errno));
        }
        return {};
    }
    if (errno != EEXIST) {
        return fail(system_error_text("cannot create the directory", path, errno));
    }
    struct stat status {};
    if (lstat(path.c_str(), &status) != 0) {
        return fail(system_error_text("cannot stat", path, errno));
    }
    if (!S_ISDIR(status.st_mode)) {
        return fail(path +
                    ": is no directory (links are not followed); remove it or set another `directory`");
    }
    if (exclusive && status.st_uid != geteuid()) {
        return fail(path + ": owned by uid " + std::to_string(status.st_uid) + ", not by this daemon's uid " +
                    std::to_string(geteuid()) + "; remove it or set another `directory`");
    }
    if (exclusive && (status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        return fail(path + ": writable by others; chmod it to 0750 after checking what is in it");
    }
    return {};
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
    if (auto made = make_directory(base, clients_group, false); !made) {
        return tl::unexpected(made.error());
    }
    const std::string path = base + "/" + instance;
    if (auto made = make_directory(path, clients_group, true); !made) {
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
    while (const dirent* entry = readdir(listing.get())) {
        const std::string name = entry->d_name;
        if (const auto table = number_after(name, "table.")) {
            tables.push_back(*table);
        } else if (const auto cell = number_after(name, "cells.")) {
            cells.push_back(*cell);
        } else if (name.rfind("build.", 0) == 0) {
            leftovers.push_back(name);
        }
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
    struct stat mine {};
    struct stat named {};
    if (fstat(directory_.get(), &mine) != 0 || stat(path_.c_str(), &named) != 0 ||
        mine.st_ino != named.st_ino || mine.st_dev != named.st_dev) {
        return false;
    }
    return fstat(control_fd, &mine) == 0 &&
           fstatat(directory_.get(), "control", &named, AT_SYMLINK_NOFOLLOW) == 0 &&
           mine.st_ino == named.st_ino && mine.st_dev == named.st_dev;
}

}  // namespace apikey::shm
