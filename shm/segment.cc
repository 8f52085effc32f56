#include "shm/segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "shm/layout.h"
#include "shm/map_file.h"

namespace apikey::shm {
namespace {

constexpr int kMadviseCollapse = 25;  // MADV_COLLAPSE, Linux 6.1; Debian 12's headers do not have it

/// Reserved at once; a signal in between costs no more than one of these.
constexpr uint64_t kReserveStepBytes = uint64_t{4} << 20;

/// Reserves `bytes`. Boost's truncate() retries EINTR for ever and reserves nothing, hence our own. In steps,
/// because the kernel undoes an interrupted call whole: with a timer's signals a large file would never be
/// done.
int reserve(int fd, uint64_t bytes) {
    for (uint64_t at = 0; at < bytes; at += kReserveStepBytes) {
        const uint64_t step = std::min(kReserveStepBytes, bytes - at);
        int error;
        do {
            error = posix_fallocate(fd, static_cast<off_t>(at), static_cast<off_t>(step));
        } while (error == EINTR);
        if (error != 0) {
            return error;
        }
    }
    return 0;
}

/// Known to have too little room. A tmpfs without a limit reports no blocks at all.
bool lacks_room(const struct statvfs& space, uint64_t bytes) {
    return space.f_blocks != 0 && static_cast<uint64_t>(space.f_bavail) * space.f_frsize < bytes;
}

std::string missing_space_text(int directory_fd, const std::string& name, uint64_t bytes) {
    struct statvfs space {};
    std::string text =
        name + ": not enough memory in the instance's directory for " + std::to_string(bytes) + " bytes";
    if (fstatvfs(directory_fd, &space) == 0 && space.f_blocks != 0) {
        const uint64_t free_bytes = static_cast<uint64_t>(space.f_bavail) * space.f_frsize;
        text += ", " + std::to_string(free_bytes) + " are free";
        if (free_bytes < bytes) {
            text += ", " + std::to_string(bytes - free_bytes) + " are missing";
        }
    }
    return text + " (mount a larger tmpfs, or set another `directory`)";
}

}  // namespace

FileHandle::~FileHandle() {
    if (fd_ >= 0) {
        close(fd_);
    }
}

std::string system_error_text(const std::string& operation, const std::string& name, int error) {
    char buffer[128];
    return name + ": " + operation + ": " + strerror_r(error, buffer, sizeof buffer);
}

Result<Segment> Segment::map(FileHandle file, const std::string& name, uint64_t bytes) {
    try {
        boost::interprocess::mapped_region region(file, boost::interprocess::read_write, 0, bytes);
        return Segment(std::move(file), std::move(region));
    } catch (const boost::interprocess::interprocess_exception& error) {
        return fail(system_error_text("cannot map", name, error.get_native_error()));
    }
}

Result<Segment> Segment::create(int directory_fd, const std::string& name, uint64_t bytes, mode_t mode,
                                gid_t group) {
    struct statvfs space {};
    if (fstatvfs(directory_fd, &space) == 0 && lacks_room(space, bytes)) {
        return fail(missing_space_text(directory_fd, name, bytes));
    }
    FileHandle file(
        openat(directory_fd, name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode));
    if (!file) {
        return fail(system_error_text("cannot create", name, errno));
    }
    std::string problem;
    if (group != static_cast<gid_t>(-1) && fchown(file.get(), static_cast<uid_t>(-1), group) != 0) {
        problem = system_error_text("cannot give it to group " + std::to_string(group), name, errno);
    } else if (fchmod(file.get(), mode) != 0) {
        problem = system_error_text("cannot set its mode", name, errno);
    } else if (const int error = reserve(file.get(), bytes); error != 0) {
        problem = error == ENOSPC ? missing_space_text(directory_fd, name, bytes)
                                  : system_error_text("cannot reserve its space", name, error);
    }
    if (problem.empty()) {
        Result<Segment> segment = map(std::move(file), name, bytes);
        if (segment) {
            return segment;
        }
        problem = segment.error().message;
    }
    unlinkat(directory_fd, name.c_str(), 0);
    return fail(problem);
}

Result<Segment> Segment::open(int directory_fd, const std::string& name) {
    FileHandle file(openat(directory_fd, name.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
    if (!file) {
        return fail(system_error_text("cannot open", name, errno));
    }
    struct stat status {};
    if (fstat(file.get(), &status) != 0) {
        return fail(system_error_text("cannot stat", name, errno));
    }
    if (!S_ISREG(status.st_mode) || status.st_uid != geteuid()) {
        return fail(name + ": not a regular file of this user: not trusted");
    }
    if (status.st_size == 0) {
        return fail(name + ": empty");
    }
    return map(std::move(file), name, static_cast<uint64_t>(status.st_size));
}

uint64_t Segment::use_huge_pages() const {
    if (bytes() < kHugePageBytes) {
        return 0;
    }
    // Through a mapping of its own, since only one at a 2 MiB boundary will do.
    void* base = map_file(fd(), bytes(), PROT_READ | PROT_WRITE);
    if (base == MAP_FAILED) {
        return 0;
    }
    uint64_t backed = 0;
    for (uint64_t at = 0; at + kHugePageBytes <= bytes(); at += kHugePageBytes) {
        void* page = static_cast<uint8_t*>(base) + at;
        // Populated first: 0.1 s for 256 MiB instead of 0.7 (Linux 6.18).
        madvise(page, kHugePageBytes, MADV_POPULATE_WRITE);
        backed += madvise(page, kHugePageBytes, kMadviseCollapse) == 0 ? kHugePageBytes : 0;
    }
    munmap(base, bytes());
    return backed;
}

}  // namespace apikey::shm
