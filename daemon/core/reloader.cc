#include "core/reloader.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/clock.h"
#include "core/audit_log.h"
#include "core/table_rows.h"
#include "source/rfc3339.h"

namespace apikeyd {

using apikey::shm::Found;
using apikey::shm::kNoSlot;
using apikey::shm::Meta;
using apikey::shm::SlotState;
using apikey::shm::TableView;

namespace {

/// Changes applied in one turn of the loop: some hundred microseconds.
constexpr size_t kSliceChanges = 256;
/// Below so many keys the loss guard does not speak: small sets are edited by hand.
constexpr uint64_t kLossGuardKeysMin = 10;
constexpr std::chrono::milliseconds kRetryDelay{30000};
constexpr std::chrono::milliseconds kReadRetryDelay{1000};

}  // namespace

Reloader::Reloader(Loop& loop, Publisher& publisher, Worker& worker, ReloaderOptions options, Log& log)
    : loop_(loop), publisher_(publisher), worker_(worker), options_(std::move(options)), log_(log) {
    if (options_.table_taken_s != 0) {
        snapshot_use_ = SnapshotUse{options_.table_taken_s, "the source was not read since the start"};
    }
}

Reloader::~Reloader() = default;

void Reloader::stop() {
    stopping_->store(true, std::memory_order_relaxed);
    options_.source->stop();
}

void Reloader::request(bool force, Done done) {
    waiting_.push_back({force, std::move(done)});
    if (!loading_) {
        start();
    }
}

std::shared_ptr<Load> Reloader::new_load() const {
    auto load = std::make_shared<Load>();
    load->live = publisher_.current();
    load->in_force = in_force_;
    load->source = options_.source;
    load->snapshot = options_.snapshot;
    load->policies = publisher_.policies_in_force();
    load->stopping = stopping_;
    load->directory_fd = publisher_.directory().fd();
    // Where there is no table nobody knows what a key was before.
    if (options_.audit != nullptr && options_.audit->on() && load->live != nullptr) {
        load->audit.begin(publisher_.policies_in_force(), loaded_once_);
    }
    return load;
}

void Reloader::start() {
    const std::shared_ptr<Load> load = new_load();
    load->requests = std::move(waiting_);
    waiting_.clear();
    load->force = std::any_of(load->requests.begin(), load->requests.end(),
                              [](const Load::Request& request) { return request.force; });
    submit(load);
}

void Reloader::submit(const std::shared_ptr<Load>& load) {
    loading_ = true;
    changed_meanwhile_.clear();
    if (!worker_.submit([load] { load->run(); }, [this, load] { loaded(load); })) {
        finish(load, fail("the loader is busy; try again"));
    }
}

/// Why this set must not be applied without force; empty when it may.
std::string Reloader::refusal(const Load& load) const {
    if (load.force) {
        return {};
    }
    if (!load.revived.empty()) {
        return options_.source->place() + ": would bring back " + std::to_string(load.revived.size()) +
               " revoked keys, the first " + load.revived.front() +
               " (an old copy of the file? `apikeyctl reload --force` if that is meant)";
    }
    if (load.live_keys < kLossGuardKeysMin ||
        load.report.removed * 100 <= load.live_keys * options_.max_loss_percent) {
        return {};
    }
    return options_.source->place() + ": would remove " + std::to_string(load.report.removed) + " of " +
           std::to_string(load.live_keys) + " keys, more than the allowed " +
           std::to_string(options_.max_loss_percent) +
           "% (`apikeyctl reload --force` if that is meant, or raise reload.max_loss_percent)";
}

void Reloader::loaded(const std::shared_ptr<Load>& load) {
    if (load->error.empty()) {
        load->error = refusal(*load);
        // A database's transactions are not one edit, as a file is: the revocation is another operator's.
        if (!load->error.empty() && options_.source->tells_changes()) {
            load->keep_revocations();
        }
    }
    if (load->keeps_revocations) {
        apply_slice(load);
        return;
    }
    if (!load->error.empty()) {
        finish(load, fail(load->error));
        return;
    }
    if (load->report.unchanged) {
        finish(load, {});
        return;
    }
    if (!load->reads_source && (load->live != publisher_.current() || publisher_.next() != nullptr)) {
        // Another table has keys that it knows nothing of; the source says it all.
        waiting_.insert(waiting_.begin(), load->requests.begin(), load->requests.end());
        start();
        return;
    }
    // First, for all keys at once; which of them are to have new ones is told by the changes.
    const bool made = *load->policies == publisher_.policies() || publisher_.set_policies(load->policies);
    load->policies_set = true;
    place_additions(*load, made);
    apply_slice(load);
}

/// Where the live table has room for all new keys, and for their policies, they come first; else all of them
/// wait for the generation that is built for them, so that none is in force when that cannot be built.
void Reloader::place_additions(Load& load, bool policies_made) {
    const GenerationPtr& live = publisher_.current();
    if (live != nullptr && policies_made &&
        live->table().has_room(load.additions->size(), load.additions_bytes)) {
        load.adding.emplace(*load.additions);
    }
}

void Reloader::apply_slice(const std::shared_ptr<Load>& load) {
    const auto apply_one = [&](const Change& change) {
        if (!changed_meanwhile_.contains(change.row.id) && !publisher_.make(change)) {
            load->unmade.push_back(change);
        }
    };
    size_t left = kSliceChanges;
    for (Change addition{Change::Kind::kUpsert, {}}; left != 0 && load->adding; --left) {
        if (load->adding->next(addition.row)) {
            apply_one(addition);
        } else {
            load->adding.reset();
            load->additions.reset();
        }
    }
    for (; left != 0 && load->applied < load->changes.size(); --left) {
        apply_one(load->changes[load->applied++]);
    }
    if (load->adding || load->applied < load->changes.size()) {
        loop_.after(std::chrono::milliseconds(0), [this, load] { apply_slice(load); });
        return;
    }
    if (load->keeps_revocations) {
        when_kept(load->changes, {}, {}, [](const Result<void>&) {})({});
        finish(load, fail(load->error));
        return;
    }
    std::erase_if(load->unmade,
                  [&](const Change& change) { return changed_meanwhile_.contains(change.row.id); });
    for (const std::string& id : changed_meanwhile_) {
        if (load->additions != nullptr) {
            load->additions->leave_out(id);
        }
    }
    publisher_.make_room_for(ChangeSet(load->unmade, std::move(load->additions)),
                             [this, load](Result<void> result) { finish(load, std::move(result)); });
}

void Reloader::finish(const std::shared_ptr<Load>& load, Result<void> result) {
    loading_ = false;
    tell_audit(*load, result);
    Result<ReloadReport> outcome = fail("");
    // What the tool changed since the source was read may not be what it said then.
    const bool again = result && !changed_meanwhile_.empty();
    // Nobody has asked for a change yet, and the daemon opens its door behind it.
    const bool opens_the_door = !std::exchange(ended_once_, true);
    if (result) {
        loop_.cancel(retry_timer_);
        if (load->from_snapshot) {
            outcome = fail(load->from_snapshot->why);
            serve_snapshot(*load->from_snapshot, load->fingerprint);
        } else {
            outcome = load->report;
            serve_source(*load);
        }
        if (again) {
            step_back_to(load->in_force);
        }
        for (const std::string& warning : load->warnings) {
            log_.warn("source.warning", {{"reason", warning}});
        }
        if (!load->report.unchanged && load->reads_source && !load->from_snapshot) {
            log_.info("reload.done", {{"source", load->source->place()},
                                      {"keys", load->report.keys},
                                      {"added", load->report.added},
                                      {"updated", load->report.updated},
                                      {"removed", load->report.removed}});
        }
    } else {
        outcome = tl::unexpected(result.error());
        if (load->policies_set) {
            step_back_to(load->in_force);  // some of it is in force
        }
        if (load->error.empty() || load->no_room) {
            retry_later(kRetryDelay);
        } else if (load->unread && (options_.source->tells_changes() || snapshot_use_)) {
            retry_later(kReadRetryDelay);
        }
        publisher_.control().refused();
        if (snapshot_use_ && load->unread) {
            snapshot_use_->why = result.error().message;
        }
        if (result.error().message != last_error_ || !(load->source->tells_changes() || snapshot_use_)) {
            log_.error("reload.refused",
                       {{"source", load->source->place()}, {"reason", result.error().message}});
        }
        last_error_ = result.error().message;
    }
    const auto answer = [load, outcome] {
        for (const Load::Request& request : load->requests) {
            request.done(outcome);
        }
    };
    const bool from_source = result && !load->from_snapshot;
    const bool keeps = from_source && options_.snapshot != nullptr;
    if (keeps && !opens_the_door) {
        keep_in_force(load->fingerprint, answer);
    } else {
        answer();
    }
    if (keeps && opens_the_door) {
        keep_in_force(load->fingerprint, [] {});
    }
    // While servers go on with a table that no change reaches, it is not in force.
    if (from_source && load->reads_source && publisher_.reaches_all()) {
        tell_source(load->fingerprint);
    }
    if (again) {
        request(false, [](const Result<ReloadReport>&) {});
    } else if (!loading_ && !waiting_.empty()) {  // a done may have asked for a reload, and begun it
        start();
    }
}

/// What the source said when it could be read last is in force, and clients are told how old that is: the
/// daemon's sign of life is as old. The source is asked again and again, and all of it read when it answers.
void Reloader::serve_snapshot(const SnapshotUse& use, const Fingerprint& name) {
    const uint64_t taken_ns = static_cast<uint64_t>(use.taken_s) * 1'000'000'000;
    snapshot_use_ = use;
    last_error_ = use.why;
    in_force_.reset();
    publisher_.control().applied(fingerprint_word(name), taken_ns);
    publisher_.control().refused();
    publisher_.control().beat(taken_ns);
    log_.warn("snapshot.in_use", {{"snapshot", options_.snapshot->path()},
                                  {"taken", format_rfc3339(use.taken_s)},
                                  {"reason", use.why}});
    retry_later(kReadRetryDelay);
}

void Reloader::serve_source(const Load& load) {
    last_error_.clear();
    if (!loaded_once_) {
        // Changes that an earlier daemon was killed in the middle of reach all files now.
        publisher_.tighten_superseded();
        loaded_once_ = true;
    }
    in_force_ = load.fingerprint;
    if (load.report.unchanged) {
        publisher_.control().accepted();
    } else {
        publisher_.control().applied(fingerprint_word(load.fingerprint), realtime_now_ns());
    }
    if (snapshot_use_) {
        snapshot_use_.reset();
        publisher_.control().beat(realtime_now_ns());
        log_.info("snapshot.replaced", {{"source", load.source->place()}});
    }
}

/// Calls `then` when the snapshot says what was read under this fingerprint, or cannot be made to.
void Reloader::keep_in_force(const Fingerprint& name, std::function<void()> then) {
    if (!worker_.submit([snapshot = options_.snapshot, name] { snapshot->in_force(name); },
                        [this, then] {
                            note_snapshot();
                            then();
                        })) {
        then();  // the next read makes up for it
    }
}

/// `done`, for changes that were made without the source being read, once the snapshot has them.
Publisher::Done Reloader::when_kept(const std::vector<Change>& changes, const Fingerprint& before,
                                    const Fingerprint& after, Publisher::Done done) {
    if (options_.snapshot == nullptr) {
        return done;
    }
    MadeChanges made{before, after};
    for (const Change& change : changes) {
        (change.kind == Change::Kind::kRemove ? made.gone : made.rows).push_back(change.row);
    }
    return [this, made = std::move(made), done = std::move(done)](Result<void> result) {
        if (!result) {
            done(std::move(result));
            return;
        }
        made_.push_back({made, done});
        keep_made();
    };
}

/// One job at a time, for all that came while the last one ran.
void Reloader::keep_made() {
    if (keeping_ || made_.empty()) {
        return;
    }
    const auto batch = std::make_shared<const std::vector<Made>>(std::exchange(made_, {}));
    const auto are_kept = std::make_shared<bool>(false);
    const auto tell = [batch] {
        for (const Made& one : *batch) {
            one.done({});
        }
    };
    const auto told = [this, are_kept, tell] {
        note_snapshot();
        if (*are_kept || !snapshot_problem_.empty()) {
            tell();
        } else {  // it lacks what came before them; a read brings all of it
            request(false, [tell](const Result<ReloadReport>&) { tell(); });
        }
        keeping_ = false;
        keep_made();
    };
    keeping_ = true;
    const bool submitted = options_.snapshot_worker->submit(
        [snapshot = options_.snapshot, batch, are_kept] {
            std::vector<MadeChanges> all;
            for (const Made& one : *batch) {
                all.push_back(one.changes);
            }
            *are_kept = snapshot->made(all);
        },
        told);
    if (!submitted) {
        told();
    }
}

/// Once for each reason.
void Reloader::note_snapshot() {
    std::string problem = options_.snapshot->problem();
    if (problem == snapshot_problem_) {
        return;
    }
    snapshot_problem_ = std::move(problem);
    if (snapshot_problem_.empty()) {
        log_.info("snapshot.written", {{"snapshot", options_.snapshot->path()}});
    } else {
        log_.warn("snapshot.failed", {{"reason", snapshot_problem_}});
    }
}

void Reloader::close_snapshot() {
    if (options_.snapshot == nullptr) {
        return;
    }
    if (in_force_) {
        options_.snapshot->in_force(*in_force_);
    }
    options_.snapshot->close();
    note_snapshot();
}

/// On the worker: it is the source's thread. What it cannot do anything with is logged once.
void Reloader::tell_source(const Fingerprint& in_force) {
    const auto told = std::make_shared<Result<void>>();
    const bool busy = !worker_.submit(
        [source = options_.source, in_force, told] { *told = source->note_in_force(in_force); },
        [this, told] {
            const std::string problem = *told ? "" : told->error().message;
            if (!problem.empty() && problem != last_untold_) {
                log_.warn("source.warning", {{"reason", problem}});
            }
            last_untold_ = problem;
        });
    static_cast<void>(busy);  // the next reading tells it
}

/// What the tool changed meanwhile it tells itself; what is refused again for the same reason is told once.
void Reloader::tell_audit(const Load& load, const Result<void>& result) const {
    const bool nothing_new = result ? load.report.unchanged : result.error().message == last_error_;
    if (options_.audit == nullptr || !load.reads_source || (nothing_new && !load.keeps_revocations)) {
        return;
    }
    const Result<void> made = load.keeps_revocations ? Result<void>() : result;
    for (const AuditEntry& entry : load.audit.entries()) {
        if ((load.error.empty() || load.keeps_revocations) && !changed_meanwhile_.contains(entry.id)) {
            options_.audit->changed(nullptr, entry, made);
        }
    }
    if (load.from_snapshot) {
        options_.audit->loaded(load, fail(load.from_snapshot->why + "; in its place serves the snapshot of " +
                                          format_rfc3339(load.from_snapshot->taken_s)));
        return;
    }
    options_.audit->loaded(load, result);
}

/// For a set that was right and found no room, and for a commit that could not be read: no notice will come
/// when there is some, and it can.
void Reloader::retry_later(std::chrono::milliseconds delay) {
    loop_.cancel(retry_timer_);
    retry_timer_ = loop_.after(delay, [this] {
        if (!loading_) {
            request(false, [](const Result<ReloadReport>&) {});
        }
    });
}

/// Removals of what the live table has of the changes' keys in another form or under another id. There is
/// such only while the source says something else than the table.
std::vector<Change> Reloader::other_forms(const std::vector<Change>& changes) const {
    std::vector<Change> removals;
    if (publisher_.current() == nullptr) {
        return removals;
    }
    for (const Change& change : changes) {
        for (KeyRow& row : rows_of_other_form(publisher_.current()->table().view(), change.row)) {
            removals.push_back({Change::Kind::kRemove, std::move(row)});
        }
    }
    return removals;
}

/// Why the changes must not be made; empty when they may. No verb takes a revocation back. `others`: the same
/// keys in other forms.
std::string Reloader::refusal(const std::vector<Change>& changes, const std::vector<Change>& others) const {
    if (publisher_.current() == nullptr) {
        return {};
    }
    for (const Change& change : changes) {
        const auto fault = change.kind == Change::Kind::kUpsert
                               ? terms_fault(terms_of(change.row), publisher_.policies())
                               : std::nullopt;
        if (fault) {
            return change.row.id + ": " + *fault;
        }
    }
    const TableView& table = publisher_.current()->table().view();
    for (const Change& change : changes) {
        if (change.kind == Change::Kind::kRemove || change.row.state == KeyState::kRevoked) {
            continue;
        }
        const Found found = find_slot(table, row_hash(change.row, table.hash_seed), row_digest(change.row));
        const bool revoked = (found.index != kNoSlot && Meta::state(found.meta) == SlotState::kRevoked) ||
                             std::any_of(others.begin(), others.end(), [&](const Change& other) {
                                 return other.row.state == KeyState::kRevoked &&
                                        row_digest_bytes(other.row) == row_digest_bytes(change.row);
                             });
        if (revoked) {
            return change.row.id + ": is revoked, and that is for ever";
        }
    }
    return {};
}

/// The source was never loaded. A table with these keys alone would refuse all others; what tightens goes
/// into the files that an earlier daemon left, and the rest comes with the source, which says it too.
void Reloader::apply_before_the_source(const std::vector<Change>& changes, Publisher::Done done) {
    for (const Change& change : changes) {
        publisher_.make(change);
    }
    request(false, [reached = publisher_.reaches_all(),
                    done = std::move(done)](const Result<ReloadReport>& report) {
        done(report ? reached : fail("the source has not been loaded yet: " + report.error().message));
    });
}

/// Others change the source as well, and which change of a key was the last only the source can tell: it is
/// read. But a revocation is for ever, and in force at once, whatever load is under way.
void Reloader::apply_out_of_step(const std::vector<Change>& changes, const Fingerprint& before,
                                 const Fingerprint& after, Publisher::Done done) {
    const TableView& table = publisher_.current()->table().view();
    std::vector<Change> revocations;
    for (const Change& change : changes) {
        std::optional<KeyRow> row = row_in(table, change.row);
        if (row && change.kind == Change::Kind::kUpsert && change.row.state == KeyState::kRevoked) {
            row->digest = change.row.digest;
            row->state = KeyState::kRevoked;
            revocations.push_back({Change::Kind::kUpsert, *std::move(row)});
        }
    }
    if (revocations.size() == changes.size()) {
        for (const Change& change : revocations) {
            changed_meanwhile_.insert(change.row.id);
        }
        publisher_.apply(revocations, when_kept(changes, before, after, std::move(done)));
        request(false, [](const Result<ReloadReport>&) {});
        return;
    }
    request(false,
            [reached = publisher_.reaches_all(), done = std::move(done)](const Result<ReloadReport>& report) {
                done(report ? reached : tl::unexpected(report.error()));
            });
}

/// Of what came after `earlier`, memory has some and lacks some. Where the source can tell what changed
/// since, that is read again; else no fingerprint keeps the next content from being taken for 'unchanged'.
void Reloader::step_back_to(const std::optional<Fingerprint>& earlier) {
    in_force_ = options_.source->tells_changes() ? earlier : std::nullopt;
}

/// After the tool's changes: what is in force is `after`, where it was `before`; else the source is read.
void Reloader::follow(const Fingerprint& before, const Fingerprint& after, bool in_step, bool made) {
    if (made && in_step && in_force_ == before) {
        in_force_ = after;
        publisher_.control().applied(fingerprint_word(after), realtime_now_ns());
    } else if (!made || in_force_ != after) {
        step_back_to(in_force_);
        request(false, [](const Result<ReloadReport>&) {});
    }
}

void Reloader::apply(const std::vector<Change>& changes, const Fingerprint& before, const Fingerprint& after,
                     Publisher::Done done) {
    const bool in_step = in_force_ == before;
    if (!in_step && options_.source->tells_changes() && publisher_.current() != nullptr) {
        apply_out_of_step(changes, before, after, std::move(done));
        return;
    }
    std::vector<Change> others = in_step ? std::vector<Change>() : other_forms(changes);
    if (std::string refused = refusal(changes, others); !refused.empty()) {
        done(fail(std::move(refused)));
        return;
    }
    if (loading_) {
        for (const Change& change : changes) {
            changed_meanwhile_.insert(change.row.id);
        }
    }
    if (publisher_.current() == nullptr && !publisher_.building()) {
        apply_before_the_source(changes, std::move(done));
        return;
    }
    // What must not be accepted any more goes first; what stays acceptable only when its other form is there.
    const bool tightens = std::any_of(changes.begin(), changes.end(), [](const Change& change) {
        return change.kind == Change::Kind::kRemove || change.row.state != KeyState::kActive;
    });
    std::vector<Change> all = tightens ? others : std::vector<Change>();
    all.insert(all.end(), changes.begin(), changes.end());
    publisher_.apply(all, [this, in_step, before, after, others = std::move(others),
                           done = when_kept(changes, before, after, std::move(done))](Result<void> result) {
        for (const Change& other : others) {
            if (result) {
                publisher_.make(other);
            }
        }
        follow(before, after, in_step, result.has_value());
        done(std::move(result));
    });
}

void Reloader::apply_policies(const std::vector<PolicyChange>& changes, const Fingerprint& before,
                              const Fingerprint& after, Publisher::Done done) {
    Done told = [reached = publisher_.reaches_all(),
                 done = std::move(done)](const Result<ReloadReport>& report) {
        done(report ? reached : tl::unexpected(report.error()));
    };
    if (loading_ || in_force_ != before || options_.source->tells_changes()) {
        request(false, std::move(told));
        return;
    }
    const std::shared_ptr<Load> load = new_load();
    load->requests.push_back({false, std::move(told)});
    load->reads_source = false;
    load->policies = std::make_shared<const PolicySet>(with_changes(publisher_.policies(), changes));
    load->fingerprint = after;
    submit(load);
}

}  // namespace apikeyd
