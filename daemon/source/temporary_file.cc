#include "source/temporary_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string_view>

#include "source/text_file.h"

namespace apikeyd {

namespace {

constexpr std::string_view kTemporaryMark = ".apikey-tmp.";

struct CloseDirectory {
    void operator()(DIR* directory) const { closedir(directory); }
};

Result<void> sync_directory(const FilePlace& place) {
    const OwnedFd directory(open(place.directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory.is_open() || fsync(directory.get()) != 0) {
        Error error = file_error(place.directory, "make the change durable", errno);
        error.message += " (the new text is in place, but may be lost with the machine)";
        return tl::unexpected(std::move(error));
    }
    return {};
}

}  // namespace

TemporaryFile::~TemporaryFile() {
    if (!path_.empty()) {
        unlink(path_.c_str());
    }
}

Result<void> TemporaryFile::create(const FilePlace& place) {
    uint64_t random = 0;
    if (getrandom(&random, sizeof random, 0) != static_cast<ssize_t>(sizeof random)) {
        return tl::unexpected(file_error(place.path, "draw a random name", errno));
    }
    char tail[20];
    std::snprintf(tail, sizeof tail, "%016llx", static_cast<unsigned long long>(random));
    const std::string path = place.directory + "/." + place.name + std::string(kTemporaryMark) + tail;
    file_ = OwnedFd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!file_.is_open()) {
        return tl::unexpected(file_error(path, "create", errno));
    }
    path_ = path;
    // Not the kind of lock that SQLite takes; for remove_stale().
    if (flock(file_.get(), LOCK_EX | LOCK_NB) != 0) {
        return tl::unexpected(file_error(path, "lock", errno));
    }
    return {};
}

Result<void> TemporaryFile::rename_to(const FilePlace& place, bool replace) {
    if (replace) {
        if (rename(path_.c_str(), place.path.c_str()) != 0) {
            return tl::unexpected(file_error(place.path, "replace the file", errno));
        }
        path_.clear();
        return sync_directory(place);
    }
    int made = renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, place.path.c_str(), RENAME_NOREPLACE);
    if (made == 0) {
        path_.clear();
    } else if (errno == EINVAL || errno == ENOSYS) {  // a file system of a network: the first name goes later
        made = link(path_.c_str(), place.path.c_str());
    }
    if (made != 0) {
        return tl::unexpected(file_error(place.path, "make the file", errno));
    }
    return sync_directory(place);
}

void remove_stale(const FilePlace& place) {
    const std::unique_ptr<DIR, CloseDirectory> directory(opendir(place.directory.c_str()));
    if (!directory) {
        return;
    }
    const std::string prefix = "." + place.name + std::string(kTemporaryMark);
    while (const dirent* entry = readdir(directory.get())) {
        if (!std::string_view(entry->d_name).starts_with(prefix)) {
            continue;
        }
        const OwnedFd file(
            openat(dirfd(directory.get()), entry->d_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
        if (file.is_open() && flock(file.get(), LOCK_EX | LOCK_NB) == 0) {
            unlinkat(dirfd(directory.get()), entry->d_name, 0);
        }
    }
}

}  // namespace apikeyd
