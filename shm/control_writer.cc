#include "shm/control_writer.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <cstring>
#include <optional>

#include "shm/header_checks.h"

namespace apikey::shm {
namespace {

constexpr mode_t kControlMode = 0640;
constexpr char kName[] = "control";
constexpr char kBuildName[] = "build.control";

/// The kernel's boot id, as 16 bytes; zeros where /proc does not tell.
void read_boot_id(uint8_t (&out)[kUidLength]) {
    std::memset(out, 0, sizeof out);
    FileHandle file(::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC));
    char text[64] = {};
    if (!file || read(file.get(), text, sizeof text - 1) <= 0) {
        return;
    }
    size_t digits = 0;
    for (const char* at = text; *at != '\0' && digits < 2 * kUidLength; ++at) {
        const int value = *at >= '0' && *at <= '9'   ? *at - '0'
                          : *at >= 'a' && *at <= 'f' ? *at - 'a' + 10
                                                     : -1;
        if (value >= 0) {
            out[digits / 2] = static_cast<uint8_t>(out[digits / 2] << 4 | value);
            ++digits;
        }
    }
}

bool same_boot(const Control& control) {
    uint8_t boot[kUidLength];
    read_boot_id(boot);
    return std::memcmp(boot, control.boot, sizeof boot) == 0;
}

Result<Segment> make_control(int directory_fd, gid_t group) {
    unlinkat(directory_fd, kBuildName, 0);
    Result<Segment> segment = Segment::create(directory_fd, kBuildName, sizeof(Control), kControlMode, group);
    if (!segment) {
        return segment;
    }
    auto& control = *reinterpret_cast<Control*>(segment->data());
    control.abi = kAbi;
    control.state.store(static_cast<uint32_t>(ControlState::kStarting), std::memory_order_relaxed);
    if (getrandom(control.instance, sizeof control.instance, 0) != sizeof control.instance) {
        return fail(system_error_text("cannot draw random bytes", kName, errno));
    }
    read_boot_id(control.boot);
    control.layout_hash = layout_hash();
    control.magic = kControlMagic;
    if (renameat(directory_fd, kBuildName, directory_fd, kName) != 0) {
        return fail(system_error_text("cannot name it", kName, errno));
    }
    return segment;
}

}  // namespace

Result<ControlWriter> ControlWriter::open(int directory_fd, gid_t clients_group) {
    std::optional<Segment> old;
    struct stat status {};
    if (fstatat(directory_fd, kName, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(status.st_mode)) {
        if (Result<Segment> found = Segment::open(directory_fd, kName)) {
            old.emplace(std::move(*found));
        }
    }
    if (old && check_control(old->data(), old->bytes()) == AttachResult::kOk) {
        const auto& control = *reinterpret_cast<const Control*>(old->data());
        const auto state = static_cast<ControlState>(control.state.load(std::memory_order_relaxed));
        if (same_boot(control) && state != ControlState::kSuperseded) {
            if (fchmod(old->fd(), kControlMode) != 0 ||
                (clients_group != static_cast<gid_t>(-1) &&
                 fchown(old->fd(), static_cast<uid_t>(-1), clients_group) != 0)) {
                return fail(system_error_text("cannot set mode and group", kName, errno));
            }
            ControlWriter reused(std::move(*old));
            reused.set_state(ControlState::kStarting);
            return reused;
        }
    }
    Result<Segment> made = make_control(directory_fd, clients_group);
    if (!made) {
        return tl::unexpected(made.error());
    }
    // After the rename, so that who reads 'superseded' (is_current() of the client) and then asks the kernel
    // for the name finds the new file. Relaxed: whoever looks too early looks again. The state's place is
    // frozen, so this holds for a control of another ABI too. Who is killed in between leaves it unmarked;
    // attach_generation() looks at the name as well.
    if (old && old->bytes() >= offsetof(Control, layout_hash)) {
        reinterpret_cast<Control*>(old->data())
            ->state.store(static_cast<uint32_t>(ControlState::kSuperseded), std::memory_order_relaxed);
    }
    return ControlWriter(std::move(*made));
}

void ControlWriter::announce(uint32_t generation) {
    assert(generation > current() && generation > next());
    // SYNC generation-announced: both files are complete; pairs with the acquire load in attach_node() of the
    // client. And before any meter is marked (SYNC meter-moved), so that who meets a mark finds this.
    words().current_next.store(make_current_next(current(), generation), std::memory_order_seq_cst);
}

void ControlWriter::publish() {
    assert(next() > current());
    // SYNC generation-published: pairs with the acquire load in attach_node() of the client. Both files are
    // complete.
    words().current_next.store(make_current_next(next(), next()), std::memory_order_seq_cst);
}

void ControlWriter::set_state(ControlState state) {
    // Relaxed, as in open().
    words().state.store(static_cast<uint32_t>(state), std::memory_order_relaxed);
}

void ControlWriter::beat(uint64_t now_ns) {
    // Read by itself (flags_of() of the client).
    words().heartbeat_ns.store(now_ns, std::memory_order_relaxed);
}

void ControlWriter::set_started(uint64_t pid, uint64_t now_ns) {
    words().daemon_pid.store(pid, std::memory_order_relaxed);
    words().started_ns.store(now_ns, std::memory_order_relaxed);
}

void ControlWriter::applied(uint64_t fingerprint, uint64_t now_ns) {
    words().source_loaded_ns.store(now_ns, std::memory_order_relaxed);
    words().source_refused.store(0, std::memory_order_relaxed);
    words().source_fingerprint.store(fingerprint, std::memory_order_relaxed);
    // SYNC position-applied: whoever sees the new position (apikey_status(), acquire) sees the words above
    // and every slot's change.
    words().applied_position.fetch_add(1, std::memory_order_seq_cst);
}

void ControlWriter::refused() {
    words().source_refused.fetch_add(1, std::memory_order_relaxed);
}

void ControlWriter::accepted() {
    words().source_refused.store(0, std::memory_order_relaxed);
}

void ControlWriter::flushed(uint64_t now_ns) {
    words().usage_flushed_ns.store(now_ns, std::memory_order_relaxed);
}

}  // namespace apikey::shm
