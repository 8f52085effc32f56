// A client's state: the mapping it reads, and those it has replaced.
//
// Nodes hold mappings. They are pushed to the client's list once, never leave it before apikey_close(), and
// are used again when their mapping is gone; so a reader can never be left with a dangling node.
//
//   kFree -> kBusy (somebody attaches) -> kInstalled -> kRetired (replaced) -> kBusy (being unmapped) ->
//   kFree

#pragma once

#include <cstdint>
#include <ctime>

#include "apikey/apikey.h"
#include "client/asymmetric_fence.h"
#include "client/records.h"
#include "shm/attach.h"
#include "shm/sha256.h"

struct apikey_client;

namespace apikey::client {

enum class NodeState : uint32_t { kFree, kBusy, kInstalled, kRetired };

/// One attached generation with the control page that named it.
struct Mapping {
    shm::ControlMapping control;
    shm::GenerationMapping generation;
    /// The generation before, where this one was attached between announcement and publication: its meters
    /// are carried over from there. Else nothing.
    shm::GenerationMapping before;
    /// What control calls current while this is the mapping to read: the generation, or the one before.
    uint32_t current_while;
    shm::Atomic<NodeState> state;
    shm::Plain<Mapping*> next;  ///< in the client's list; written once, before the node is pushed
};

inline constexpr size_t kPathMax = 256;

}  // namespace apikey::client

/// Everything but the atomics is written by apikey_open() and then only read.
struct apikey_client {
    char directory[apikey::client::kPathMax];
    uid_t expected_owner;
    char own_directory[apikey::client::kPathMax];  ///< tried while the first is waiting; "": none
    uid_t own_uid;                                 ///< who must own it
    apikey_stale_policy stale_policy;
    apikey_metering metering;
    char required_environment[apikey::shm::kEnvironmentNameBytes];  ///< "": any
    uint64_t stale_after_ns;
    const apikey::shm::Sha256Kernel* sha256;

    apikey::shm::Atomic<apikey::client::Mapping*> installed;  ///< nullptr: waiting
    apikey::shm::Atomic<apikey::client::Mapping*> nodes;
    apikey::shm::Atomic<int> attached;  ///< apikey_result of the last attempt
    // Times of CLOCK_REALTIME_COARSE.
    apikey::shm::Atomic<uint64_t> retry_at_ns;  ///< no attempt on the hot path before
    apikey::shm::Atomic<uint64_t>
        reclaim_at_ns;  ///< when to look whether replaced mappings are free; 0: none is left
    apikey::shm::Atomic<uint64_t> refreshed_ns;  ///< when the host last called apikey_refresh()
    apikey::shm::Atomic<uint64_t>
        look_at_ns;  ///< while stale: when to look whether control still has its name
    apikey::shm::Atomic<uint32_t> retry_delay_ms;
};

namespace apikey::client {

/// For what the hot path calls in more than one place, which compilers would rather call than repeat.
#define APIKEY_INLINE [[gnu::always_inline]] inline

/// Nanoseconds of CLOCK_REALTIME_COARSE: one vDSO read, no syscall.
inline uint64_t coarse_now_ns() {
    timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1000000000 + static_cast<uint64_t>(now.tv_nsec);
}

/// One call's hold on the installed mapping. While it lives, the mapping stays mapped.
class Reading {
  public:
    /// Not held when the thread is inside another call (a signal handler): then busy() is true.
    explicit Reading(apikey_client* client) : client_(client), record_(record_of_this_thread()) {
        if (record_ == nullptr) [[unlikely]] {
            count_in();
            take();
            return;
        }
        if (record_->reading.load(std::memory_order_relaxed) != nullptr) [[unlikely]] {
            busy_ = true;
            return;
        }
        hold();
    }
    ~Reading() {
        if (busy_) {
            return;
        }
        if (record_ == nullptr) [[unlikely]] {
            count_out();
            return;
        }
        // SYNC record-reading: release, so that all reads of the mapping come before it may be unmapped.
        record_->reading.store(nullptr, std::memory_order_release);
    }
    Reading(const Reading&) = delete;
    Reading& operator=(const Reading&) = delete;

    bool busy() const { return busy_; }
    Mapping* mapping() const { return mapping_; }
    /// Takes up what is installed now, after a switch.
    void renew() { record_ == nullptr ? take() : hold(); }

  private:
    /// For a thread that is counted in.
    void take() {
        // SYNC reader-counted: seq_cst, after count_in(). SYNC mapping-installed: as in hold().
        mapping_ = client_->installed.load(std::memory_order_seq_cst);
    }
    void hold() {
        // Relaxed: what is seen here is only named, and read when it is seen again below.
        Mapping* seen = client_->installed.load(std::memory_order_relaxed);
        for (;;) {
            // Never nullptr within a call, so that a signal handler finds the record busy while waiting, too.
            // SYNC record-reading: release; what was read of a mapping held before comes before it may be
            // unmapped.
            const void* mark = seen != nullptr ? static_cast<const void*>(seen) : client_;
            record_->reading.store(mark, std::memory_order_release);
            // And before the load below; pairs with the heavy fence in reclaim().
            light_fence();
            // SYNC mapping-installed: acquire; pairs with switch_mapping(). The mapping is complete.
            Mapping* again = client_->installed.load(std::memory_order_acquire);
            if (again == seen) [[likely]] {
                mapping_ = seen;
                return;
            }
            seen = again;
        }
    }

    apikey_client* client_;
    Record* record_;
    Mapping* mapping_ = nullptr;
    bool busy_ = false;
};

/// Which generation a switch goes to.
enum class Target : uint8_t {
    kCurrent,
    kNext,  ///< the announced one, where the current one's meters have gone on; the current one if there is
            ///< none
};

/// Attaches to what the directory's control says now and installs it, unless that is installed already.
/// `reading` (may be nullptr) is the caller's own hold; it is renewed.
shm::AttachResult switch_mapping(apikey_client* client, Reading* reading, Target target);

/// What a call does while another thread of the process is switching.
enum class IfBusy : uint8_t {
    kLeaveIt,    ///< goes on with the mapping that it has
    kSwitchToo,  ///< for one that cannot answer without a switch
};

/// The same for the hot path: keeps to the back-off. Waits for no other thread. True when another mapping may
/// be installed now (reading is renewed).
bool try_switch_mapping(apikey_client* client, Reading* reading, uint64_t now_ns, IfBusy if_busy,
                        Target target);

/// For a daemon that has been silent for long: looks at most every two seconds whether another serves under
/// the directory's name by now. True when it looked and is attached. Cold: system calls when it looks.
bool try_refresh_stale(apikey_client* client, Reading* reading, uint64_t now_ns);

/// Unmaps what was replaced and is not read any more, when it is time to look. Cold: a syscall when it does.
void reclaim_later(apikey_client* client, uint64_t now_ns);

/// True while the control page says that `mapping` is what to read: a generation until another one is
/// published, and one that was attached when it was announced until it is published itself; then it is
/// attached once more, without the one before, whose meters are of no use any more.
inline bool is_current(const Mapping& mapping) {
    const shm::Control& control = *mapping.control.control;
    // Relaxed, both: nothing is read on the strength of them but what is mapped already. A publication that
    // was told before this call began is seen, since no thread's view of one word goes back; who goes over to
    // the new generation reads the word again (attach_node()), or looks for another file by its name.
    return shm::current_of(control.current_next.load(std::memory_order_relaxed)) == mapping.current_while &&
           control.state.load(std::memory_order_relaxed) !=
               static_cast<uint32_t>(shm::ControlState::kSuperseded);
}

/// APIKEY_FLAG_... of what is answered from `mapping` now. A heartbeat far in the future is stale as well:
/// the clock was set back since.
inline uint32_t flags_of(const apikey_client& client, const Mapping& mapping, uint64_t now_ns) {
    // A heartbeat read late only delays the flag; relaxed is enough.
    const uint64_t heartbeat_ns = mapping.control.control->heartbeat_ns.load(std::memory_order_relaxed);
    const uint64_t apart_ns = now_ns > heartbeat_ns ? now_ns - heartbeat_ns : heartbeat_ns - now_ns;
    return (apart_ns > client.stale_after_ns ? APIKEY_FLAG_STALE : 0) |
           (mapping.generation.cells.base == nullptr ? APIKEY_FLAG_NOT_COUNTED : 0);
}

}  // namespace apikey::client
