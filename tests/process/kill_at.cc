// Kills programs that load this first (LD_PRELOAD), by SIGKILL, at a point: where an SQL statement on a key
// store begins, one of a trigger too, and before each system call that leaves something for others. The file
// that APIKEYD_TEST_KILL names says at which, and counts them. Calls that only look are no points: whoever
// dies there leaves what it left at the point before.

#include <dlfcn.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace {

/// As tests write and read it.
struct Control {
    std::atomic<uint32_t> on;     ///< points are counted
    std::atomic<uint32_t> order;  ///< the number of the one to die at, from 1; 0: none
    std::atomic<uint32_t> torn;   ///< points are writes alone, of which the last leaves half
    std::atomic<uint32_t> points;
    std::atomic<uint32_t> statements;  ///< of these
    char at[108];                      ///< what it died at
};
static_assert(sizeof(Control) == 128);

Control* map_control() {
    const char* path = getenv("APIKEYD_TEST_KILL");
    const long fd = path != nullptr ? syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;
    const long page = syscall(SYS_mmap, nullptr, sizeof(Control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || page == -1) {
        std::fputs("kill_at: APIKEYD_TEST_KILL names no file that can be mapped\n", stderr);
        _exit(2);
    }
    syscall(SYS_close, fd);
    return reinterpret_cast<Control*>(page);  // NOLINT(performance-no-int-to-ptr)
}

Control& control() {
    static Control* const mapped = map_control();
    return *mapped;
}

/// True at the one that was ordered.
bool count_point() {
    return control().points.fetch_add(1) + 1 == control().order.load();
}

void die(const char* what) {
    strncpy(control().at, what, sizeof control().at - 1);
    kill(getpid(), SIGKILL);
}

void call_point(const char* call) {
    if (control().on.load() != 0 && control().torn.load() == 0 && count_point()) {
        die(call);
    }
}

template <typename Write>
ssize_t write_point(const char* call, size_t bytes, Write write) {
    call_point(call);
    if (control().on.load() != 0 && control().torn.load() != 0 && count_point()) {
        write(bytes / 2);
        die(call);
    }
    return write(bytes);
}

int statement_point(unsigned, void*, void*, void* sql) {
    if (control().on.load() != 0 && control().torn.load() == 0) {
        control().statements.fetch_add(1);
        if (count_point()) {
            die(static_cast<const char*>(sql));
        }
    }
    return 0;
}

int call_int(long result) {
    return static_cast<int>(result);
}

}  // namespace

// Each has a name of its own here and libc's name for the linker; libc's headers declare some as inline.
#define LIBC(type, name, ...)                      \
    type point_##name(__VA_ARGS__) __asm__(#name); \
    __attribute__((visibility("default"))) type point_##name(__VA_ARGS__)

extern "C" {

LIBC(int, sqlite3_open_v2, const char* name, sqlite3** out, int flags, const char* vfs) {
    static auto* const next =
        reinterpret_cast<decltype(&sqlite3_open_v2)>(dlsym(RTLD_NEXT, "sqlite3_open_v2"));
    const int opened = next(name, out, flags, vfs);
    if (opened == SQLITE_OK && std::string_view(name).ends_with("/keys.db")) {
        sqlite3_trace_v2(*out, SQLITE_TRACE_STMT, statement_point, nullptr);
    }
    return opened;
}

LIBC(ssize_t, write, int fd, const void* bytes, size_t size) {
    return write_point("write", size, [&](size_t some) { return syscall(SYS_write, fd, bytes, some); });
}
LIBC(ssize_t, pwrite64, int fd, const void* bytes, size_t size, off_t offset) {
    return write_point("pwrite", size,
                       [&](size_t some) { return syscall(SYS_pwrite64, fd, bytes, some, offset); });
}
LIBC(ssize_t, send, int fd, const void* bytes, size_t size, int flags) {
    return write_point("send", size,
                       [&](size_t some) { return syscall(SYS_sendto, fd, bytes, some, flags, nullptr, 0); });
}
LIBC(int, fsync, int fd) {
    call_point("fsync");
    return call_int(syscall(SYS_fsync, fd));
}
LIBC(int, fdatasync, int fd) {
    call_point("fdatasync");
    return call_int(syscall(SYS_fdatasync, fd));
}
LIBC(int, ftruncate64, int fd, off_t size) {
    call_point("ftruncate");
    return call_int(syscall(SYS_ftruncate, fd, size));
}
/// Answers the error itself.
LIBC(int, posix_fallocate64, int fd, off_t offset, off_t size) {
    call_point("fallocate");
    return syscall(SYS_fallocate, fd, 0, offset, size) == 0 ? 0 : errno;
}
LIBC(int, fchmod, int fd, mode_t mode) {
    call_point("fchmod");
    return call_int(syscall(SYS_fchmod, fd, mode));
}
LIBC(int, rename, const char* from, const char* to) {
    call_point("rename");
    return call_int(syscall(SYS_rename, from, to));
}
LIBC(int, renameat2, int from_at, const char* from, int to_at, const char* to, unsigned flags) {
    call_point("renameat2");
    return call_int(syscall(SYS_renameat2, from_at, from, to_at, to, flags));
}
LIBC(int, unlink, const char* path) {
    call_point("unlink");
    return call_int(syscall(SYS_unlink, path));
}
LIBC(int, unlinkat, int at, const char* path, int flags) {
    call_point("unlinkat");
    return call_int(syscall(SYS_unlinkat, at, path, flags));
}
LIBC(int, munmap, void* address, size_t bytes) {
    call_point("munmap");
    return call_int(syscall(SYS_munmap, address, bytes));
}
/// Shared memory that is stored to afterwards: SQLite's and the daemon's own.
LIBC(void*, mmap64, void* address, size_t bytes, int protection, int flags, int fd, off_t offset) {
    call_point("mmap");
    return reinterpret_cast<void*>(  // NOLINT(performance-no-int-to-ptr)
        syscall(SYS_mmap, address, bytes, protection, flags, fd, offset));
}

}  // extern "C"
