#include "shm/attach.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "shm/header_checks.h"
#include "shm/map_file.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

namespace apikey::shm {
namespace {

constexpr char kControlName[] = "control";

AttachResult result_of_errno(int error) {
    switch (error) {
        case ENOENT:
            return AttachResult::kWaiting;
        case EACCES:
        case EPERM:
            return AttachResult::kNotPermitted;
        case ENOTDIR:
        case ELOOP:
            return AttachResult::kNotADirectory;
        case EMFILE:
        case ENFILE:
            return AttachResult::kNoDescriptors;
        case ENOMEM:
        case EAGAIN:
            return AttachResult::kNoMemory;
        default:
            return AttachResult::kIoError;
    }
}

/// The same for a file in the directory: what cannot be opened for its type is no segment.
AttachResult result_of_file_errno(int error) {
    return error == ELOOP || error == EISDIR || error == ENXIO ? AttachResult::kNotARegularFile
                                                               : result_of_errno(error);
}

/// A descriptor for the length of one attach.
class Descriptor {
  public:
    explicit Descriptor(int fd = -1) : fd_(fd) {}
    ~Descriptor() {
        if (fd_ >= 0) {
            close(fd_);
        }
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    int get() const { return fd_; }
    /// Where the descriptor is put by who opens it; nothing may be open yet.
    int* out() { return &fd_; }

  private:
    int fd_;
};

int open_at(int directory, const char* path, int flags) {
    int fd;
    do {
        fd = openat(directory, path, flags | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

/// Opens the directory and says who owns it. The owner is trusted, so nobody else may be able to write there.
AttachResult open_directory(const AttachOptions& options, int* fd, uid_t* owner) {
    *fd = open_at(AT_FDCWD, options.directory, O_RDONLY | O_DIRECTORY);
    if (*fd < 0) {
        return result_of_errno(errno);
    }
    struct stat status;
    if (fstat(*fd, &status) != 0) {
        return AttachResult::kIoError;
    }
    if (options.expected_owner != kAnyOwner && status.st_uid != options.expected_owner) {
        return AttachResult::kForeignOwner;
    }
    if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        return AttachResult::kUnsafeMode;
    }
    *owner = status.st_uid;
    return AttachResult::kOk;
}

/// Type, owner and mode of an opened segment; `forbidden` are the mode bits that must be clear.
AttachResult check_file(int fd, uid_t owner, mode_t forbidden, struct stat* status) {
    if (fstat(fd, status) != 0) {
        return AttachResult::kIoError;
    }
    if (!S_ISREG(status->st_mode)) {
        return AttachResult::kNotARegularFile;
    }
    if (status->st_uid != owner) {
        return AttachResult::kForeignOwner;
    }
    if ((status->st_mode & forbidden) != 0) {
        return AttachResult::kUnsafeMode;
    }
    return AttachResult::kOk;
}

/// A daemon that names another control may have been killed before it could mark this one as superseded.
bool still_named(int directory, const ControlMapping& control) {
    struct stat status;
    return fstatat(directory, kControlName, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
           status.st_dev == control.device && status.st_ino == control.inode;
}

struct OpenTable {
    Descriptor directory;
    uid_t owner = 0;
    Descriptor file;
    struct stat status = {};
};

/// Opens the directory and `table.<generation>` in it; kSuperseded where that is not there any more.
AttachResult open_table(const AttachOptions& options, uint32_t generation, OpenTable* out) {
    const AttachResult result = open_directory(options, out->directory.out(), &out->owner);
    if (result != AttachResult::kOk) {
        return result;
    }
    char name[kSegmentNameBytes];
    segment_name(name, "table", generation);
    *out->file.out() = open_at(out->directory.get(), name, O_RDONLY);
    if (out->file.get() < 0) {
        return errno == ENOENT ? AttachResult::kSuperseded : result_of_file_errno(errno);
    }
    return check_file(out->file.get(), out->owner, S_IWGRP | S_IWOTH, &out->status);
}

AttachResult map_table(int fd, const struct stat& status, uint32_t generation, TableView* out) {
    const auto bytes = static_cast<uint64_t>(status.st_size);
    if (bytes < sizeof(TableHeader)) {
        return AttachResult::kTruncated;
    }
    void* base = map_file(fd, bytes, PROT_READ);
    if (base == MAP_FAILED) {
        return result_of_errno(errno);
    }
    const AttachResult result = check_table(base, bytes, generation, out);
    if (result != AttachResult::kOk) {
        munmap(base, bytes);
        *out = TableView{};
    }
    return result;
}

int open_cells(int directory, uint32_t generation, int flags) {
    char name[kSegmentNameBytes];
    segment_name(name, "cells", generation);
    return open_at(directory, name, flags);
}

AttachResult map_cells(int fd, uid_t owner, int protection, const TableView& table, CellsView* out) {
    struct stat status;
    AttachResult result = check_file(fd, owner, S_IWOTH, &status);
    if (result != AttachResult::kOk) {
        return result;
    }
    const auto bytes = static_cast<uint64_t>(status.st_size);
    if (bytes < sizeof(CellsHeader)) {
        return AttachResult::kTruncated;
    }
    void* base = map_file(fd, bytes, protection);
    if (base == MAP_FAILED) {
        return result_of_errno(errno);
    }
    result = check_cells(base, bytes, table, out);
    if (result != AttachResult::kOk) {
        munmap(base, bytes);
        *out = CellsView{};
    }
    return result;
}

AttachResult attach_cells(int directory, uid_t owner, GenerationMapping* mapping) {
    Descriptor file(open_cells(directory, mapping->table.generation, O_RDWR));
    if (file.get() < 0) {
        // Not allowed to write: validate without counting. Anything else is told.
        return errno == EACCES || errno == EPERM || errno == EROFS ? AttachResult::kOk
                                                                   : result_of_file_errno(errno);
    }
    const AttachResult result =
        map_cells(file.get(), owner, PROT_READ | PROT_WRITE, mapping->table, &mapping->cells);
    if (result == AttachResult::kOk) {
        // A convenience: page faults later are slower, not wrong.
        madvise(mapping->cells.base, mapping->cells.bytes, MADV_POPULATE_WRITE);
    }
    return result;
}

/// What is not there any more was there when the table was opened.
AttachResult gone_if_waiting(AttachResult result) {
    return result == AttachResult::kWaiting ? AttachResult::kSuperseded : result;
}

}  // namespace

void segment_name(char* out, const char* name, uint32_t generation) {
    while (*name != '\0') {
        *out++ = *name++;
    }
    *out++ = '.';
    char digits[10];
    unsigned count = 0;
    do {
        digits[count++] = static_cast<char>('0' + generation % 10);
        generation /= 10;
    } while (generation != 0);
    while (count != 0) {
        *out++ = digits[--count];
    }
    *out = '\0';
}

AttachResult attach_control(const AttachOptions& options, ControlMapping* out) {
    Descriptor directory;
    uid_t owner = 0;
    AttachResult result = open_directory(options, directory.out(), &owner);
    if (result != AttachResult::kOk) {
        return result;
    }
    Descriptor file(open_at(directory.get(), kControlName, O_RDONLY));
    if (file.get() < 0) {
        return result_of_file_errno(errno);
    }
    struct stat status;
    result = check_file(file.get(), owner, S_IWGRP | S_IWOTH, &status);
    if (result != AttachResult::kOk) {
        return result;
    }
    if (static_cast<uint64_t>(status.st_size) < sizeof(Control)) {
        return AttachResult::kTruncated;
    }
    void* base = mmap(nullptr, sizeof(Control), PROT_READ, MAP_SHARED | MAP_POPULATE, file.get(), 0);
    if (base == MAP_FAILED) {
        return result_of_errno(errno);
    }
    result = check_control(base, sizeof(Control));
    if (result != AttachResult::kOk) {
        munmap(base, sizeof(Control));
        return result;
    }
    out->control = static_cast<const Control*>(base);
    out->device = status.st_dev;
    out->inode = status.st_ino;
    return AttachResult::kOk;
}

void detach_control(ControlMapping* mapping) {
    if (mapping->control != nullptr) {
        munmap(const_cast<Control*>(mapping->control), sizeof(Control));
        *mapping = ControlMapping{};
    }
}

AttachResult attach_generation(const AttachOptions& options, const ControlMapping& control,
                               uint32_t generation, GenerationMapping* out) {
    OpenTable open;
    AttachResult result = open_table(options, generation, &open);
    if (result != AttachResult::kOk) {
        return result;
    }
    // The lock belongs to the open file description, which the mapping keeps alive until munmap or death.
    // Taken before the second look at control: either the daemon's write lock came first, and we see that the
    // generation is superseded, or ours did, and the daemon finds it in use (tests/model/harvest.pml).
    struct flock lock {};
    lock.l_type = F_RDLCK;
    lock.l_whence = SEEK_SET;
    if (fcntl(open.file.get(), F_OFD_SETLK, &lock) != 0) {
        return errno == EAGAIN || errno == EACCES ? AttachResult::kSuperseded : AttachResult::kIoError;
    }
    if (!current_or_next(*control.control, generation) || !still_named(open.directory.get(), control)) {
        return AttachResult::kSuperseded;
    }
    GenerationMapping mapping;
    result = map_table(open.file.get(), open.status, generation, &mapping.table);
    if (result == AttachResult::kOk) {
        result = gone_if_waiting(attach_cells(open.directory.get(), open.owner, &mapping));
    }
    if (result != AttachResult::kOk) {
        detach_generation(&mapping);
        return result;
    }
    madvise(const_cast<uint8_t*>(mapping.table.base), mapping.table.bytes, MADV_POPULATE_READ);
    *out = mapping;
    return AttachResult::kOk;
}

AttachResult observe_generation(const AttachOptions& options, uint32_t generation, GenerationMapping* out) {
    OpenTable open;
    AttachResult result = open_table(options, generation, &open);
    if (result != AttachResult::kOk) {
        return result;
    }
    Descriptor cells(open_cells(open.directory.get(), generation, O_RDONLY));
    if (cells.get() < 0) {
        return gone_if_waiting(result_of_file_errno(errno));
    }
    GenerationMapping mapping;
    result = map_table(open.file.get(), open.status, generation, &mapping.table);
    if (result == AttachResult::kOk) {
        result = map_cells(cells.get(), open.owner, PROT_READ, mapping.table, &mapping.cells);
    }
    if (result != AttachResult::kOk) {
        detach_generation(&mapping);
        return result;
    }
    *out = mapping;
    return AttachResult::kOk;
}

void detach_generation(GenerationMapping* mapping) {
    if (mapping->cells.base != nullptr) {
        munmap(mapping->cells.base, mapping->cells.bytes);
    }
    if (mapping->table.base != nullptr) {
        munmap(const_cast<uint8_t*>(mapping->table.base), mapping->table.bytes);
    }
    *mapping = GenerationMapping{};
}

}  // namespace apikey::shm
