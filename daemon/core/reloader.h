// Bringing the table to what the source says, in two phases.
//
// First, on the worker: read, compare the content's hash with the one in force, parse, and collect the
// difference against the live table. Nothing is applied before an error-free end of the source. Second, on
// the loop, in slices so that revocations never wait: additions and updates, then removals, then a new
// generation for what needs room.
//
// A key that was changed by the tool meanwhile is left alone, and another reload follows. A plan or an owner
// that was changed by the tool goes the same way without the source: on the worker the keys are found that it
// has to do with.
//
// Where a snapshot is kept of what the source says, it is told of all that is in force, and who asked for a
// change is answered when it is there too: what was told as done does not come undone with the machine.

#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "core/load.h"
#include "core/publisher.h"
#include "source/snapshot.h"
#include "source/source.h"

namespace apikeyd {

class AuditLog;

struct ReloaderOptions {
    std::shared_ptr<Source> source;  ///< used by the worker alone, once the reloader has it
    uint32_t max_loss_percent;
    AuditLog* audit = nullptr;                     ///< told what the source brought; may be nullptr
    std::shared_ptr<Snapshot> snapshot = nullptr;  ///< kept by `source`; nullptr for none
    /// Writes to it what was changed without the source, while that may be read. Not nullptr where there is
    /// one.
    Worker* snapshot_worker = nullptr;
    /// Of a snapshot, Unix seconds: what an earlier daemon left in force was read from it. 0: it was not.
    int64_t table_taken_s = 0;
};

/// Lives on the loop's thread. The worker is for reading and parsing.
class Reloader {
  public:
    Reloader(Loop& loop, Publisher& publisher, Worker& worker, ReloaderOptions options, Log& log);
    ~Reloader();

    using Done = std::function<void(const Result<ReloadReport>&)>;

    /// Reads the source at some moment after this call, and tells how it went. A set that lacks too many keys
    /// or brings revoked ones back is refused; `force` lifts that, and parses even what looks unchanged.
    /// Requests that come while one is under way share the next.
    void request(bool force, Done done);

    /// Changes made by the tool, already durable in the source. In force everywhere when `done` is told
    /// success. One that would make a revoked key anything else is refused, with all others of the call.
    /// `before` and `after` are the source's fingerprints around the tool's change: when `before` is in
    /// force, `after` is from now on, and the change's notice starts no parse. Else the source is read: after
    /// the changes were made, or, where it tells what changed, to make them, but for revocations.
    void apply(const std::vector<Change>& changes, const Fingerprint& before, const Fingerprint& after,
               Publisher::Done done);

    /// The same for what stands beside the keys; also done when what is in force is `after`. Where it is
    /// neither, or a load is on its way, the source is read, which says it too.
    void apply_policies(const std::vector<PolicyChange>& changes, const Fingerprint& before,
                        const Fingerprint& after, Publisher::Done done);

    /// Lets a load that is being parsed end soon; for the daemon's end, before the worker is waited for.
    void stop();

    /// Writes to the snapshot what it lacks; when no worker runs any more.
    void close_snapshot();

    const std::optional<Fingerprint>& fingerprint() const { return in_force_; }
    /// Empty, or what the last load was refused for; then what is in force stays.
    const std::string& last_error() const { return last_error_; }
    /// While what is in force was read from the snapshot; `why` is as of the last load.
    const std::optional<SnapshotUse>& snapshot_use() const { return snapshot_use_; }
    /// Why the snapshot could not be written; empty when it could, and when there is none.
    const std::string& snapshot_problem() const { return snapshot_problem_; }

  private:
    std::shared_ptr<Load> new_load() const;
    void start();
    void submit(const std::shared_ptr<Load>& load);
    void loaded(const std::shared_ptr<Load>& load);
    void apply_slice(const std::shared_ptr<Load>& load);
    void finish(const std::shared_ptr<Load>& load, Result<void> result);
    void serve_snapshot(const SnapshotUse& use, const Fingerprint& name);
    void serve_source(const Load& load);
    void keep_in_force(const Fingerprint& name, std::function<void()> then);
    Publisher::Done when_kept(const std::vector<Change>& changes, const Fingerprint& before,
                              const Fingerprint& after, Publisher::Done done);
    void keep_made();
    void note_snapshot();
    void place_additions(Load& load, bool policies_made);
    void retry_later(std::chrono::milliseconds delay);
    void tell_source(const Fingerprint& in_force);
    void tell_audit(const Load& load, const Result<void>& result) const;
    std::string refusal(const Load& load) const;
    std::string refusal(const std::vector<Change>& changes, const std::vector<Change>& others) const;
    std::vector<Change> other_forms(const std::vector<Change>& changes) const;
    void apply_before_the_source(const std::vector<Change>& changes, Publisher::Done done);
    void apply_out_of_step(const std::vector<Change>& changes, const Fingerprint& before,
                           const Fingerprint& after, Publisher::Done done);
    void step_back_to(const std::optional<Fingerprint>& earlier);
    void follow(const Fingerprint& before, const Fingerprint& after, bool in_step, bool made);

    Loop& loop_;
    Publisher& publisher_;
    Worker& worker_;
    ReloaderOptions options_;
    Log& log_;

    std::optional<Fingerprint> in_force_;
    std::vector<Load::Request> waiting_;
    TimerId retry_timer_;
    std::shared_ptr<std::atomic<bool>> stopping_ = std::make_shared<std::atomic<bool>>(false);
    bool loading_ = false;
    bool loaded_once_ = false;
    bool ended_once_ = false;                  // some load has, whatever became of it
    std::set<std::string> changed_meanwhile_;  // ids changed by the tool since the load began
    std::string last_error_;
    std::optional<SnapshotUse> snapshot_use_;
    std::string snapshot_problem_;
    struct Made {
        MadeChanges changes;
        Publisher::Done done;
    };
    std::vector<Made> made_;   // in force, and not yet on their way to the snapshot
    bool keeping_ = false;     // others of them are
    std::string last_untold_;  // why the source could not be told what is in force
};

}  // namespace apikeyd
