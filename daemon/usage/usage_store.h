// Where counts go to stay: totals per key and per verdict code, and what was taken of quotas, in SQLite.
//
// Shared memory holds sums that only grow, one per key and generation. A flush brings the sums as they stand;
// the store remembers how much of each it has already added (the baseline) and adds the rest. Both happen in
// one transaction, so a crash anywhere counts nothing twice and loses nothing: the next flush brings the same
// sums. Of a quota the store keeps the largest count of its last period.
//
// What a flush adds to keys stands in a small table of its own until a flush of a later minute moves it to
// the large ones (recent_rows.h). Readers sum up both.

#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/owned_fd.h"
#include "base/result.h"
#include "shm/layout.h"
#include "usage/usage_batch.h"

namespace apikeyd {

/// The random identity of one generation's files.
using GenerationUid = std::array<uint8_t, 16>;
/// The part of a key's SHA-256 that its slot holds.
using KeyDigest = std::array<uint8_t, 16>;

/// More than this between two flushes of one cell is no count but a scribble: 64 threads validating one key
/// back to back take over two hours to get there. Above it lie most random words and, on x86-64, the heap and
/// stack pointers a stray write would leave.
inline constexpr uint64_t kImplausibleJump = uint64_t{1} << 44;

/// Rows kept as evidence in `quarantined`. Cells are writable by clients: a scribbler must not fill the disk.
inline constexpr int64_t kQuarantinedRowsMax = 10'000;

/// One key's sums over all shards of one generation, as just read. The bytes behind `key_id` belong to the
/// caller.
struct KeyCount {
    KeyDigest digest{};
    std::string_view key_id;  ///< where the difference is added; any bytes
    uint64_t allowed = 0;
    uint64_t denied = 0;
};

/// One verdict code's sum (or total) over all shards.
struct CodeCount {
    uint8_t code = 0;
    uint64_t total = 0;

    friend bool operator==(const CodeCount&, const CodeCount&) = default;
};

/// Which quota: what was taken of one is never another's. Agrees with the tags of meter words.
struct QuotaName {
    std::string plan;
    std::string limit;
    apikey::shm::LimitKind kind = apikey::shm::LimitKind::kMonth;  ///< of its period; not kRate

    friend bool operator==(const QuotaName&, const QuotaName&) = default;
};

/// What a key, or all keys of an owner, had taken of a quota in a period. What it points to is the caller's.
struct QuotaCount {
    const QuotaName* name = nullptr;
    std::string_view holder;  ///< a key's digest, the bytes of a KeyDigest; or an owner's name
    bool of_owner = false;
    uint32_t period = 0;  ///< its number, whole: shm::period_of()
    uint64_t used = 0;    ///< below 2^34
};

/// Counts are summed up by these steps of UTC, beside the totals.
inline constexpr std::array<int64_t, 3> kRollupSteps_s = {60, 3600, 86400};
/// The start of the step that a time since 1970 lies in.
constexpr int64_t rollup_start_s(int64_t time_s, int64_t step_s) {
    return time_s - time_s % step_s;
}
/// How long such sums are kept, by step.
struct Retention {
    std::array<int64_t, 3> kept_s = {int64_t{48} * 3600, int64_t{90} * 86400, int64_t{3660} * 86400};
};

/// What one flush brings of one generation. Keys, and quotas, that did not change may be left out.
struct GenerationCounts {
    GenerationUid uid{};
    uint64_t generation = 0;  ///< its number, noted when it is closed
    std::span<const KeyCount> keys;
    std::span<const CodeCount> codes;
    std::span<const QuotaCount> quotas;
    bool closing = false;  ///< these are its last sums: it is closed in the same transaction
};

struct FlushSummary {
    uint64_t keys_changed = 0;  ///< cells that added something
    uint64_t allowed_added = 0;
    uint64_t denied_added = 0;
    uint64_t quarantined = 0;      ///< cells (and codes) not believed this time
    uint64_t quarantined_new = 0;  ///< of these, seen for the first time and recorded
};

/// Unix seconds now, by the system clock.
int64_t unix_now_s();

/// The writing side. One thread at a time; one writer a store (the daemon). A failed call leaves the
/// store as it was and the object usable: call again later with sums read then. When the file was removed or
/// replaced (a backup put back), the next call opens what stands under its name then, and makes it if need
/// be.
class UsageStore {
  public:
    /// Opens the store at `path`, creating the file (mode 0640) but no directory. Errors name the path and
    /// what to do: a missing directory, a symbolic link, a directory, no permission, a full disk, a file that
    /// is no store of ours or of a newer version (both left untouched). One daemon a store, told by a lock on
    /// `<path>.lock`: to each, the generations of another would be vanished ones.
    /// `sends`: what is counted goes to the database of a fleet as well (unsent()); opened once without, all
    /// of it is unsent.
    static Result<UsageStore> open(const std::string& path, const Retention& retention = {},
                                   bool sends = false);

    UsageStore(UsageStore&&) noexcept;
    UsageStore& operator=(UsageStore&&) noexcept;
    ~UsageStore();

    /// Adds what is new in `generations`, all or nothing, and returns once it is on the disk. Order,
    /// repetition and omission of keys do not matter. Per cell:
    /// - sums above the baseline: the difference goes to key_id's total, the baseline rises, last_used_s
    /// becomes
    ///   `now_s` (it never goes back);
    /// - a sum below its baseline or more than kImplausibleJump above it: the cell is quarantined. Nothing is
    ///   added, the baseline stays, a row in `quarantined` keeps what was seen first. A cell that becomes
    ///   plausible again counts on from its old baseline.
    /// - a generation already closed adds nothing, whatever it brings.
    /// Totals stop at 2^63 - 1.
    /// The same differences count for the minute, hour and day of `now_s`, and what is older than is kept
    /// goes, a step at a time. So do rows of past minutes go to where they stay, some at a time. Of a quota
    /// the later period is kept, and in it the larger count; a period further ahead than the next, of a clock
    /// that was set back since, becomes the present one with what was counted.
    Result<FlushSummary> flush(std::span<const GenerationCounts> generations, int64_t now_s = unix_now_s());

    /// Calls `visit` with what was taken of each quota in a period that is not over; rows of others are
    /// deleted where that can be done.
    Result<void> for_each_quota(const std::function<void(const QuotaCount&)>& visit,
                                int64_t now_s = unix_now_s());

    /// True once after another file was found under the store's name and opened: its baselines are others, so
    /// what is not new to the caller may be to it.
    bool take_reopened() { return std::exchange(reopened_, false); }

    /// Deletes a generation's baselines. Call it when its files are unlinked. Its `closed` row stays; one
    /// that was never closed (its files vanished with a reboot) gets one now: without baselines its sums must
    /// never be added.
    Result<void> forget(const GenerationUid& uid, int64_t now_s = unix_now_s());

    /// True when the last sums of this generation are in: a file that still carries the uid only needs
    /// unlinking.
    Result<bool> is_closed(const GenerationUid& uid);

    /// The generations that have baselines, in no order: at a start, those without files are to be forgotten.
    Result<std::vector<GenerationUid>> generations_with_baselines();

    /// Hours that changed since they were noted as sent, of at most so many keys; empty where none did. Of
    /// what a key was counted in the last minutes nothing is in it yet. Hours of codes are in it once a
    /// minute at most. What no batch had when its hour was forgotten (Retention) will be in none.
    Result<UsageBatch> unsent(size_t keys_max, int64_t now_s = unix_now_s());
    /// The database has this batch, and calls it so (UsageBatch::number). What changed since it was made is
    /// still unsent.
    Result<void> note_sent(const UsageBatch& batch, uint64_t number);
    /// The database does not have what was noted: all is unsent, and the last batch is called so.
    Result<void> send_anew(const UsageBatch& batch, uint64_t number);

  private:
    struct Impl;
    UsageStore(std::string path, const Retention& retention, bool sends, std::unique_ptr<Impl> impl,
               OwnedFd lock);
    static Result<OwnedFd> take_lock(const std::string& path);
    static Result<std::unique_ptr<Impl>> open_impl(const std::string& path, bool sends, int64_t mark_min);
    Result<void> follow_name();

    std::string path_;
    Retention retention_;
    bool sends_;
    std::unique_ptr<Impl> impl_;  // nullptr when the file was replaced by one that cannot be opened
    OwnedFd lock_;
    int64_t mark_min_ = 0;  ///< of what was marked before the store was opened once more
    bool reopened_ = false;
};

}  // namespace apikeyd
