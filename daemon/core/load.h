// What a reload does on the worker: the source is read and compared with the live table. Nothing is applied
// here; reloader.h tells what becomes of what was found.

#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "core/audit_entry.h"
#include "core/publisher.h"
#include "core/row_spool.h"
#include "source/snapshot.h"
#include "source/source.h"

namespace apikeyd {

struct ReloadReport {
    bool unchanged = false;  ///< the content is what is in force already
    uint64_t keys = 0;
    uint64_t added = 0;
    uint64_t updated = 0;
    uint64_t removed = 0;
};

/// That a snapshot serves in the source's place.
struct SnapshotUse {
    int64_t taken_s = 0;  ///< when the source was last known to say what it says
    std::string why;      ///< the source was not read
};

/// One load on its way: filled on the worker, applied on the loop.
class Load {
  public:
    struct Request {
        bool force;
        std::function<void(const Result<ReloadReport>&)> done;
    };

    // For the worker, set before it begins.
    std::vector<Request> requests;
    bool force = false;
    GenerationPtr live;  // keeps the table mapped while the worker compares
    std::optional<Fingerprint> in_force;
    /// Beside the keys, with that fingerprint; replaced where the load brings others.
    std::shared_ptr<const PolicySet> policies;
    std::shared_ptr<Source> source;
    std::shared_ptr<Snapshot>
        snapshot;  // read where neither the source can be nor a table is there; may be nullptr
    std::shared_ptr<const std::atomic<bool>> stopping;
    /// False for a change of the policies alone: `policies` and `fingerprint` are given, and no source is
    /// read.
    bool reads_source = true;
    int directory_fd = -1;  // where new keys are kept when they are many; the instance's

    // What it finds.
    Fingerprint fingerprint{};
    std::string error;
    std::optional<SnapshotUse> from_snapshot;  // all of the rest is of it
    std::vector<std::string> warnings;
    ReloadReport report;
    uint64_t live_keys = 0;
    bool unread = false;               // the error is one of reading, not of what was read
    bool no_room = false;              // of keeping it while it was read
    bool keeps_revocations = false;    // of a set that is refused: `changes` and `audit` are these alone
    std::vector<std::string> revived;  // ids of revoked keys that the source has in another state
    std::shared_ptr<RowSpool> additions;
    uint64_t additions_bytes = 0;  // of details
    std::vector<Change> changes;   // of keys that are there: updates, then removals
    LoadAudit audit;               // begun by who wants it

    // The loop's.
    bool policies_set = false;
    std::optional<RowSpool::Cursor> adding;  // those that the live table has room for
    size_t applied = 0;
    std::vector<Change> unmade;

    /// On the worker. Without memory there is an error, and nothing to apply.
    void run();
    /// Of a set that was read and is refused: what is for ever, and no reason to refuse the rest holds up.
    void keep_revocations();

  private:
    /// What became of a slot's key: in the source, and with changes.
    struct Slots {
        std::vector<bool> seen;
        std::vector<bool> changed;
    };
    void read_and_compare();
    void compare_all();
    void read_snapshot();
    void take_content(SourceContent content);
    void compare_changes(SourceChanges found);
    void compare_policies();
    void leave_revived_out();
    void collect(const KeyRow& row, Slots& slots);
    void collect_sharing(const Slots& slots);
    void collect_removals(const Slots& slots);
    void collect_removal(KeyRow row);
    void find_revived();
};

}  // namespace apikeyd
