// The system calls of the writer, its loader and its usage store, as points: these functions stand in place
// of libc's, for this program and for the libraries that it is linked with (SQLite among them).
//
// Each has a name of its own here and libc's name for the linker. The wake-ups between threads (eventfd,
// epoll) and the logs are no points: nobody but the process itself sees them, or nobody decides anything by
// them. A line of the denial log has a point behind it, the store that says that it was told.

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <type_traits>

#include "tests/crash/points.h"

namespace {

using apikey::crash::Answer;
using apikey::crash::call_point;
using apikey::crash::CallAnswer;
using apikey::crash::die;
using apikey::crash::Kind;

constexpr int kDescriptors = 1024;
/// The last name of what a descriptor was opened by; empty for what is no file.
char g_names[kDescriptors][64];

/// Of names that are others in each run only what is the same.
const char* last_name(const char* path) {
    static constexpr const char* kNumbered[] = {"apikeyd-crash", "table.", "cells."};
    const char* slash = strrchr(path, '/');
    const char* name = slash != nullptr ? slash + 1 : path;
    const auto* numbered =
        std::find_if(std::begin(kNumbered), std::end(kNumbered),
                     [name](const char* start) { return strncmp(name, start, strlen(start)) == 0; });
    return numbered != std::end(kNumbered) ? *numbered : name;
}

const char* name_of(int fd) {
    return fd >= 0 && fd < kDescriptors ? g_names[fd] : "";
}

bool is_point(const char* name) {
    return name[0] != '\0' && strcmp(name, "log") != 0 && strcmp(name, "denials") != 0;
}

/// Does what the point says: nothing, or `call`, whose result it answers.
template <typename Call>
auto at_point(const char* what, const char* file, Kind kind, Call call) -> decltype(call()) {
    if (!is_point(file)) {
        return call();
    }
    const CallAnswer answer = call_point(what, file, kind);
    if (answer.answer == Answer::kFail) {
        errno = answer.error;
        return -1;
    }
    return call();
}

/// The same for what moves bytes; `call` is told how many.
template <typename Call>
ssize_t at_transfer(const char* what, int fd, Kind kind, size_t bytes, Call call) {
    const char* file = name_of(fd);
    if (!is_point(file)) {
        return call(bytes);
    }
    const CallAnswer answer = call_point(what, file, kind);
    switch (answer.answer) {
        case Answer::kFail:
            errno = answer.error;
            return -1;
        case Answer::kHalf:
            return call(std::max<size_t>(bytes / 2, 1));
        case Answer::kHalfAndDie:
            call(std::max<size_t>(bytes / 2, 1));
            die();
        case Answer::kDo:
            break;
    }
    return call(bytes);
}

int opened(int fd, const char* path) {
    if (fd >= 0 && fd < kDescriptors) {
        strncpy(g_names[fd], last_name(path), sizeof g_names[fd] - 1);
    }
    return fd;
}

void closed(int fd) {
    if (fd >= 0 && fd < kDescriptors) {
        g_names[fd][0] = '\0';
    }
}

template <typename Function>
Function* real(const char* name) {
    return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

int call_int(long result) {
    return static_cast<int>(result);
}

}  // namespace

// LIBC(result, name, parameters): defines libc's `name`. LIBC64 gives it the other name that it has for files
// of 64 bits, which are the same here.
#define LIBC(result, name, ...)                       \
    result points_##name(__VA_ARGS__) __asm__(#name); \
    __attribute__((used)) result points_##name(__VA_ARGS__)
#define LIBC64(result, name, ...)                                                            \
    result points_##name##64(__VA_ARGS__) __asm__(#name "64") __attribute__((alias(#name))); \
    static_assert(sizeof(off_t) == 8)

extern "C" {

// The mode is not there without O_CREAT, and is not looked at then.
LIBC(int, openat, int at, const char* path, int flags, mode_t mode) {
    const bool creates = (flags & O_CREAT) != 0;
    return at_point(creates ? "create" : "open", last_name(path), creates ? Kind::kChange : Kind::kLook,
                    [&] { return opened(call_int(syscall(SYS_openat, at, path, flags, mode)), path); });
}
LIBC64(int, openat, int at, const char* path, int flags, mode_t mode);
LIBC(int, open, const char* path, int flags, mode_t mode) {
    return points_openat(AT_FDCWD, path, flags, mode);
}
LIBC64(int, open, const char* path, int flags, mode_t mode);
LIBC(int, close, int fd) {
    return at_point("close", name_of(fd), Kind::kLook, [&] {
        closed(fd);
        return call_int(syscall(SYS_close, fd));
    });
}
LIBC(int, dup, int fd) {
    return at_point("dup", name_of(fd), Kind::kLook,
                    [&] { return opened(call_int(syscall(SYS_dup, fd)), name_of(fd)); });
}
LIBC(int, fcntl, int fd, int command, void* argument) {
    const bool locks = command == F_SETLK || command == F_OFD_SETLK;
    const bool unlocks = locks && static_cast<struct flock*>(argument)->l_type == F_UNLCK;
    return at_point(unlocks ? "unlock"
                    : locks ? "lock"
                            : "fcntl",
                    name_of(fd), Kind::kLook,
                    [&] { return call_int(syscall(SYS_fcntl, fd, command, argument)); });
}
LIBC64(int, fcntl, int fd, int command, void* argument);

LIBC(ssize_t, read, int fd, void* bytes, size_t size) {
    return at_transfer("read", fd, Kind::kLook, size,
                       [&](size_t some) { return syscall(SYS_read, fd, bytes, some); });
}
LIBC(ssize_t, pread, int fd, void* bytes, size_t size, off_t offset) {
    return at_transfer("pread", fd, Kind::kLook, size,
                       [&](size_t some) { return syscall(SYS_pread64, fd, bytes, some, offset); });
}
LIBC64(ssize_t, pread, int fd, void* bytes, size_t size, off_t offset);
LIBC(ssize_t, write, int fd, const void* bytes, size_t size) {
    return at_transfer("write", fd, Kind::kWrite, size,
                       [&](size_t some) { return syscall(SYS_write, fd, bytes, some); });
}
LIBC(ssize_t, pwrite, int fd, const void* bytes, size_t size, off_t offset) {
    return at_transfer("pwrite", fd, Kind::kWrite, size,
                       [&](size_t some) { return syscall(SYS_pwrite64, fd, bytes, some, offset); });
}
LIBC64(ssize_t, pwrite, int fd, const void* bytes, size_t size, off_t offset);
LIBC(int, fsync, int fd) {
    return at_point("fsync", name_of(fd), Kind::kLook, [&] { return call_int(syscall(SYS_fsync, fd)); });
}
LIBC(int, fdatasync, int fd) {
    return at_point("fdatasync", name_of(fd), Kind::kLook,
                    [&] { return call_int(syscall(SYS_fdatasync, fd)); });
}
LIBC(int, ftruncate, int fd, off_t size) {
    return at_point("ftruncate", name_of(fd), Kind::kChange,
                    [&] { return call_int(syscall(SYS_ftruncate, fd, size)); });
}
LIBC64(int, ftruncate, int fd, off_t size);
/// Answers the error itself.
LIBC(int, posix_fallocate, int fd, off_t offset, off_t size) {
    const int before = errno;
    const int done = at_point("fallocate", name_of(fd), Kind::kChange,
                              [&] { return call_int(syscall(SYS_fallocate, fd, 0, offset, size)); });
    const int error = done == 0 ? 0 : errno;
    errno = before;
    return error;
}
LIBC64(int, posix_fallocate, int fd, off_t offset, off_t size);

LIBC(int, fchmod, int fd, mode_t mode) {
    return at_point("fchmod", name_of(fd), Kind::kChange,
                    [&] { return call_int(syscall(SYS_fchmod, fd, mode)); });
}
LIBC(int, fchown, int fd, uid_t user, gid_t group) {
    return at_point("fchown", name_of(fd), Kind::kChange,
                    [&] { return call_int(syscall(SYS_fchown, fd, user, group)); });
}
LIBC(int, chmod, const char* path, mode_t mode) {
    return at_point("chmod", last_name(path), Kind::kChange,
                    [&] { return call_int(syscall(SYS_fchmodat, AT_FDCWD, path, mode)); });
}
LIBC(int, mkdir, const char* path, mode_t mode) {
    return at_point("mkdir", last_name(path), Kind::kChange,
                    [&] { return call_int(syscall(SYS_mkdirat, AT_FDCWD, path, mode)); });
}
LIBC(int, renameat2, int from_at, const char* from, int to_at, const char* to, unsigned flags) {
    return at_point("rename", last_name(to), Kind::kChange,
                    [&] { return call_int(syscall(SYS_renameat2, from_at, from, to_at, to, flags)); });
}
LIBC(int, renameat, int from_at, const char* from, int to_at, const char* to) {
    return points_renameat2(from_at, from, to_at, to, 0);
}
LIBC(int, unlinkat, int at, const char* path, int flags) {
    return at_point("unlink", last_name(path), Kind::kChange,
                    [&] { return call_int(syscall(SYS_unlinkat, at, path, flags)); });
}
LIBC(int, unlink, const char* path) {
    return points_unlinkat(AT_FDCWD, path, 0);
}
LIBC(int, access, const char* path, int mode) {
    return at_point("access", last_name(path), Kind::kLook,
                    [&] { return call_int(syscall(SYS_faccessat, AT_FDCWD, path, mode)); });
}

LIBC(int, fstat, int fd, struct stat* out) {
    return at_point("fstat", name_of(fd), Kind::kLook,
                    [&] { return call_int(syscall(SYS_newfstatat, fd, "", out, AT_EMPTY_PATH)); });
}
LIBC64(int, fstat, int fd, struct stat* out);
LIBC(int, fstatat, int at, const char* path, struct stat* out, int flags) {
    return at_point("stat", last_name(path), Kind::kLook,
                    [&] { return call_int(syscall(SYS_newfstatat, at, path, out, flags)); });
}
LIBC64(int, fstatat, int at, const char* path, struct stat* out, int flags);
LIBC(int, stat, const char* path, struct stat* out) {
    return points_fstatat(AT_FDCWD, path, out, 0);
}
LIBC64(int, stat, const char* path, struct stat* out);
LIBC(int, lstat, const char* path, struct stat* out) {
    return points_fstatat(AT_FDCWD, path, out, AT_SYMLINK_NOFOLLOW);
}
LIBC64(int, lstat, const char* path, struct stat* out);
LIBC(int, fstatvfs, int fd, struct statvfs* out) {
    static auto* const next = real<int(int, struct statvfs*)>("fstatvfs");
    return at_point("fstatvfs", name_of(fd), Kind::kLook, [&] { return next(fd, out); });
}
LIBC64(int, fstatvfs, int fd, struct statvfs* out);

LIBC(DIR*, fdopendir, int fd) {
    static auto* const next = real<DIR*(int)>("fdopendir");
    DIR* listing = nullptr;
    at_point("fdopendir", name_of(fd), Kind::kLook, [&] {
        listing = next(fd);
        return listing != nullptr ? 0 : -1;
    });
    return listing;
}
/// Closes the descriptor inside libc.
LIBC(int, closedir, DIR* listing) {
    static auto* const next = real<int(DIR*)>("closedir");
    closed(dirfd(listing));
    return next(listing);
}
/// Each name that is listed is a point of its own: half a listing may not be taken for a whole one.
LIBC(dirent*, readdir, DIR* listing) {
    static auto* const next = real<dirent*(DIR*)>("readdir");
    dirent* entry = nullptr;
    at_point("readdir", name_of(dirfd(listing)), Kind::kLook, [&] {
        entry = next(listing);
        return 0;
    });
    return entry;
}
LIBC64(dirent*, readdir, DIR* listing);

LIBC(void*, mmap, void* address, size_t bytes, int protection, int flags, int fd, off_t offset) {
    void* mapped = MAP_FAILED;
    at_point("mmap", name_of(fd), Kind::kLook, [&] {
        // The result is an address.
        mapped = reinterpret_cast<void*>(  // NOLINT(performance-no-int-to-ptr)
            syscall(SYS_mmap, address, bytes, protection, flags, fd, offset));
        return 0;
    });
    return mapped;
}
LIBC64(void*, mmap, void* address, size_t bytes, int protection, int flags, int fd, off_t offset);

LIBC(int, clock_gettime, clockid_t clock, timespec* out) {
    const int64_t offset_ns = apikey::crash::clock_offset_ns();
    const bool ours = offset_ns != 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE);
    const int done = call_int(syscall(SYS_clock_gettime, ours ? CLOCK_MONOTONIC : clock, out));
    if (ours) {
        const int64_t time_ns = out->tv_sec * 1000000000 + out->tv_nsec + offset_ns;
        *out = {time_ns / 1000000000, time_ns % 1000000000};
    }
    return done;
}

/// The same bytes in each run: what follows from them must come in the same order.
LIBC(ssize_t, getrandom, void* bytes, size_t size, unsigned) {
    return at_point("getrandom", "(random)", Kind::kLook, [&] {
        auto* out = static_cast<uint8_t*>(bytes);
        std::generate(out, out + size, [] { return static_cast<uint8_t>(apikey::crash::next_random()); });
        return static_cast<ssize_t>(size);
    });
}

}  // extern "C"
