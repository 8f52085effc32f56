#include "core/publisher.h"

#include <algorithm>
#include <cassert>
#include <ctime>
#include <new>
#include <utility>

#include "core/builder.h"
#include "core/bus_guard.h"
#include "core/meter_mover.h"
#include "core/table_policies.h"
#include "core/table_rows.h"
#include "shm/denials.h"

namespace apikeyd {

using apikey::shm::ControlWriter;
using apikey::shm::Directory;
using apikey::shm::Generation;
using apikey::shm::Meta;
using apikey::shm::SlotState;
using apikey::shm::TableGeometry;
using apikey::shm::TableView;

namespace {

/// So many changes of a load are made in one turn of the loop: some milliseconds.
constexpr size_t kMadeAtOnceMax = 4096;

/// Generation numbers count seconds from here, so that they never repeat after the directory was lost.
constexpr int64_t kNumbersEpoch_s = 1577836800;  // 2020-01-01

/// Shares a generation whose cells a client may truncate without killing the daemon.
GenerationPtr guarded(std::unique_ptr<Generation> generation) {
    auto area = std::make_shared<BusGuardedArea>(generation->cells().base, generation->cells().bytes);
    return {generation.release(), [area = std::move(area)](const Generation* held) { delete held; }};
}

/// Without them its limits would begin anew.
Result<void> fail_for_meters(const Generation& waiting) {
    return fail(
        "cells." + std::to_string(waiting.number()) +
        ": cannot be opened now (no descriptor, or no memory), and its meters are to go on; its servers "
        "do; start again when there is some");
}

}  // namespace

/// One build under way: what the worker reads and what it leaves.
struct Publisher::Build {
    GenerationPtr from;  // keeps the live table mapped while the worker reads it
    BuildOrder order;
    std::vector<Waiting> waiting;
    std::vector<const ChangeSet*> changes;  // of those
    bool alone = false;                     // for one of several for whom together it failed
    Result<std::unique_ptr<Generation>> built = fail("the build has not run");
};

Result<std::unique_ptr<Publisher>> Publisher::open(Directory directory, gid_t clients_group,
                                                   uint64_t capacity_keys, Worker& worker, Log& log) {
    auto control = ControlWriter::open(directory.fd(), clients_group);
    if (!control) {
        return tl::unexpected(control.error());
    }
    std::unique_ptr<Publisher> publisher(
        new Publisher(std::move(directory), std::move(*control), clients_group, capacity_keys, worker, log));
    if (auto adopted = publisher->adopt(); !adopted) {
        return tl::unexpected(adopted.error());
    }
    return publisher;
}

Result<void> Publisher::adopt() {
    auto numbers = directory_.generations();
    if (!numbers) {
        return tl::unexpected(numbers.error());
    }
    const uint32_t announced = std::max(control_.current(), control_.next());
    for (const uint32_t number : *numbers) {
        Result<std::unique_ptr<Generation>> opened = Generation::open(directory_.fd(), number);
        if (!opened) {
            // Of another layout, or no memory for it now. Its servers go on with what it says.
            unread_.push_back(number);
            log_.error("generation.unreadable", {{"generation", number},
                                                 {"reason", opened.error().message},
                                                 {"advice", "restart the servers that were started before"}});
            continue;
        }
        GenerationPtr generation = guarded(std::move(*opened));
        // The configuration may name another group than the daemon before had.
        if (!generation->give_to_group(clients_group_)) {
            log_.warn("generation.wrong_group",
                      {{"generation", number}, {"group", uint64_t{clients_group_}}});
        }
        // Only a generation that control names, or named, was ever seen by a client. A control made anew
        // names none: then all of them may still be mapped by clients of the old one.
        if (announced != 0 && number > announced) {
            generation->unlink_files();
            log_.info("generation.discarded", {{"generation", number}, {"reason", "never announced"}});
            continue;
        }
        // Also with cells that a client scribbled on: the table is not theirs to write, and what it says of
        // revocations holds against the source. replace_spoilt() has another built.
        if (number == announced && generation->table().scan()) {
            if (generation->cells_wait()) {
                return fail_for_meters(*generation);
            }
            if (control_.next() > control_.current()) {
                if (!superseded_.empty() && superseded_.back()->number() == control_.current()) {
                    if (superseded_.back()->cells_wait()) {
                        return fail_for_meters(*superseded_.back());
                    }
                    move_meters(metered(*superseded_.back()), metered(*generation));
                }
                control_.publish();
                log_.info("generation.switch_finished", {{"generation", number}});
            }
            generation->use_huge_pages();  // quick where they are huge already
            current_ = std::move(generation);
            // For a build that comes before the first load.
            policies_ = std::make_shared<const PolicySet>(policies_of(current_->table().view()));
            log_.info("generation.adopted",
                      {{"generation", number},
                       {"keys", current_->table().header().live.load(std::memory_order_relaxed)}});
            continue;
        }
        superseded_.push_back(std::move(generation));
    }
    return {};
}

std::vector<GenerationPtr> Publisher::all() const {
    std::vector<GenerationPtr> all = superseded_;
    for (const GenerationPtr& generation : {current_, next_}) {
        if (generation != nullptr) {
            all.push_back(generation);
        }
    }
    return all;
}

uint32_t Publisher::next_number() const {
    const auto clock = static_cast<uint32_t>(std::max<int64_t>(1, time(nullptr) - kNumbersEpoch_s));
    uint32_t last = std::max(control_.current(), control_.next());
    if (!superseded_.empty()) {
        last = std::max(last, superseded_.back()->number());
    }
    if (!unread_.empty()) {
        last = std::max(last, unread_.back());
    }
    return std::max(clock, last + 1);
}

bool Publisher::make(const Change& change) {
    for (const GenerationPtr& generation : superseded_) {
        apply_change_to_superseded(generation->table(), change);
    }
    const GenerationPtr& live = next_ != nullptr ? next_ : current_;
    const bool made = live != nullptr && apply_change(live->table(), change, Cells::kInUse);
    if (next_ != nullptr) {
        apply_change_to_superseded(current_->table(), change, made);
    }
    if (building_ && next_ == nullptr) {
        log_of_changes_.push_back(change);
    }
    if (building_) {
        // What waits for the next build must not bring back an older state of this key.
        for (Waiting& waiting : waiting_) {
            waiting.changes.replace(change);
        }
    }
    return made;
}

bool Publisher::set_policies(std::shared_ptr<const PolicySet> policies) {
    policies_ = std::move(policies);
    for (const GenerationPtr& generation : superseded_) {
        set_policies_in_superseded(generation->table(), *policies_);
    }
    const GenerationPtr& live = next_ != nullptr ? next_ : current_;
    policies_made_ = live != nullptr && apikeyd::set_policies(live->table(), *policies_);
    if (next_ != nullptr) {
        set_policies_in_superseded(current_->table(), *policies_, &next_->table().view());
    }
    return policies_made_;
}

/// True for a table full of dead slots, and for an adopted one that was made by a configuration that asked
/// for less room.
bool Publisher::wants_rebuild() const {
    return current_->table().mostly_dead() ||
           current_->table().view().slot_count() < TableGeometry::for_keys(capacity_keys_, 0, {}).slot_count;
}

void Publisher::make_room_for(ChangeSet changes, Done done) {
    if (changes.empty() && current_ != nullptr && policies_made_) {
        done({});
        if (!building_ && wants_rebuild()) {
            start_build();
        }
        return;
    }
    waiting_.push_back({std::move(changes), std::move(done)});
    if (!building_) {
        start_build();
    }
}

Result<void> Publisher::reaches_all() const {
    const auto mapped = std::find_if(unread_.begin(), unread_.end(), [this](uint32_t number) {
        return Generation::is_mapped(directory_.fd(), number);
    });
    if (mapped == unread_.end()) {
        return {};
    }
    return fail("servers that started before the daemon's upgrade go on with table." +
                std::to_string(*mapped) + ", which this daemon cannot change; restart them");
}

void Publisher::apply(const std::vector<Change>& changes, Done done) {
    // A key that servers know may be one that may do less from now on.
    const GenerationPtr& live = next_ != nullptr ? next_ : current_;
    const bool tightens = std::any_of(changes.begin(), changes.end(), [&live](const Change& change) {
        return change.kind == Change::Kind::kRemove || change.row.state != KeyState::kActive ||
               (live != nullptr && is_in(live->table().view(), change.row));
    });
    done = [reached = tightens ? reaches_all() : Result<void>(),
            done = std::move(done)](Result<void> result) { done(result ? reached : std::move(result)); };

    std::vector<Change> unmade;
    for (const Change& change : changes) {
        if (!make(change)) {
            unmade.push_back(change);
        }
    }
    make_room_for(ChangeSet(unmade), std::move(done));
}

void Publisher::start_build(double growth) {
    auto build = std::make_shared<Build>();
    build->from = current_;
    build->order = {.directory_fd = directory_.fd(),
                    .generation = next_number(),
                    .predecessor = current_ != nullptr ? current_->number() : 0,
                    .clients_group = clients_group_,
                    .capacity_keys = capacity_keys_,
                    .policies = policies_,
                    .quotas = quotas_,
                    .growth = growth};
    build->alone = alone_ != 0;
    alone_ -= build->alone ? 1 : 0;
    const auto end = build->alone ? waiting_.begin() + 1 : waiting_.end();
    build->waiting.assign(std::make_move_iterator(waiting_.begin()), std::make_move_iterator(end));
    waiting_.erase(waiting_.begin(), end);
    size_t changes = 0;
    for (const Waiting& waiting : build->waiting) {
        build->changes.push_back(&waiting.changes);
        changes += waiting.changes.size();
    }
    building_ = true;
    log_of_changes_.clear();
    log_.info("generation.building", {{"generation", build->order.generation}, {"changes", changes}});
    const bool queued = worker_.submit(
        [build] {
            const TableView* from = build->from != nullptr ? &build->from->table().view() : nullptr;
            try {
                build->built = build_generation(build->order, from, build->changes);
            } catch (const std::bad_alloc&) {
                build->built = fail("no memory to build another generation");
            }
        },
        [this, build] { finish_build(build); });
    if (!queued) {
        build->built = fail("the builder is busy; try again");
        finish_build(build);
    }
}

/// Makes in the new table what changed while it was built, in the same order. False: some of it has no room
/// there.
bool Publisher::replay_log(const Build& build, Generation& built) const {
    bool all = apikeyd::set_policies(built.table(), *policies_,
                                     current_ != nullptr ? &current_->table().view() : nullptr);
    for (const Change& change : log_of_changes_) {
        all = apply_change(built.table(), change, Cells::kFresh) && all;
    }
    const BuildOrder& order = build.order;
    if (order.quotas != nullptr && (policies_ != order.policies || !log_of_changes_.empty())) {
        order.quotas->install(built);  // once more, since words have come or have other numbers now
    }
    return all;
}

/// Nobody has seen what was built, if anything was. The live table says all that it had room for, and those
/// who wait have the rest.
void Publisher::build_again(Build& build, double growth) {
    for (Waiting& waiting : build.waiting) {
        for (const Change& change : log_of_changes_) {
            waiting.changes.replace(change);
        }
    }
    waiting_.insert(waiting_.begin(), std::make_move_iterator(build.waiting.begin()),
                    std::make_move_iterator(build.waiting.end()));
    start_build(growth);
}

void Publisher::finish_build(const std::shared_ptr<Build>& build) {
    if (!build->built && build->waiting.size() > 1) {
        log_.warn("generation.build_failed", {{"reason", build->built.error().message},
                                              {"advice", "built once more for each who waits for it"}});
        alone_ += build->waiting.size();
        build_again(*build, 1);
        return;
    }
    if (!build->built) {
        conclude(*build, tl::unexpected(build->built.error()));
        return;
    }
    GenerationPtr built = guarded(std::move(*build->built));
    // A generation that lacks what the live one says would have limits that were begun there begin anew.
    if (!replay_log(*build, *built)) {
        built.reset();
        log_.info("generation.discarded", {{"generation", build->order.generation},
                                           {"reason", "no room for what changed while it was built"}});
        alone_ += build->alone ? 1 : 0;
        build_again(*build, 2 * build->order.growth);
        return;
    }
    if (Result<void> announced = announce(std::move(built)); !announced) {
        conclude(*build, std::move(announced));
        return;
    }
    policies_made_ = true;
    const bool moves = current_ != nullptr && has_meters(metered(*current_));
    const auto move = [from = current_, to = next_] { move_meters(metered(*from), metered(*to)); };
    const auto publish_it = [this, build] {
        publish();
        conclude(*build, {});
    };
    if (!moves) {
        publish_it();
    } else if (!worker_.submit(move, publish_it)) {
        move();
        publish_it();
    }
}

/// Answers those who waited for this build and, of those who came meanwhile, whose changes there is room for
/// now; has another one made for the others.
void Publisher::conclude(const Build& build, const Result<void>& result) {
    building_ = false;
    log_of_changes_.clear();
    if (!result) {
        log_.error("generation.build_failed", {{"reason", result.error().message}});
    }
    size_t alone = std::exchange(alone_, 0);
    std::vector<Done> made;
    std::vector<Waiting> came_meanwhile = std::exchange(waiting_, {});
    if (!result && current_ == nullptr) {
        // A table of these alone would refuse all keys of the load that failed; the next one says these too.
        for (const Waiting& waiting : build.waiting) {
            waiting.done(result);
        }
        for (const Waiting& waiting : came_meanwhile) {
            waiting.done(result);
        }
        return;
    }
    for (Waiting& waiting : came_meanwhile) {
        if (result && waiting.changes.size() <= kMadeAtOnceMax) {  // more are built
            ChangeSet unmade;
            waiting.changes.for_each([&](const Change& change) {
                if (!make(change)) {
                    unmade.put(change);
                }
            });
            waiting.changes = std::move(unmade);
        }
        const bool was_alone = alone != 0;
        alone -= was_alone ? 1 : 0;
        if (result && waiting.changes.empty() && policies_made_) {
            made.push_back(std::move(waiting.done));
        } else {
            alone_ += was_alone ? 1 : 0;
            waiting_.push_back(std::move(waiting));
        }
    }
    // First, so that whoever is told may ask for more.
    if (!waiting_.empty() || (result && !policies_made_)) {
        start_build();
    }
    for (const Waiting& waiting : build.waiting) {
        waiting.done(result);
    }
    for (const Done& done : made) {
        done({});
    }
}

Result<void> Publisher::announce(GenerationPtr built) {
    if (denial_room_ != 0) {
        open_denials(built->cells(), denial_room_);
    }
    if (auto named = built->name_files(); !named) {
        return named;
    }
    control_.announce(built->number());
    next_ = std::move(built);
    return {};
}

/// All meters have moved.
void Publisher::publish() {
    control_.publish();
    if (current_ != nullptr) {
        superseded_.push_back(std::move(current_));
    }
    current_ = std::move(next_);
    next_.reset();
    quotas_.reset();
    log_.info("generation.published",
              {{"generation", current_->number()},
               {"keys", current_->table().header().live.load(std::memory_order_relaxed)},
               {"slots", current_->table().view().slot_count()},
               {"bytes", current_->file_bytes()},
               {"huge_bytes", current_->huge_bytes()}});
}

void Publisher::tighten_superseded() {
    if (current_ == nullptr) {
        return;
    }
    const TableView& now = current_->table().view();
    for (const GenerationPtr& generation : superseded_) {
        set_policies_in_superseded(generation->table(), *policies_);
        const TableView& table = generation->table().view();
        for (uint64_t index = 0; index < table.slot_count(); ++index) {
            const std::optional<KeyRow> row = row_of_slot(table, index);
            if (!row) {
                continue;
            }
            const std::optional<KeyRow> is = row_in(now, *row);
            if (is != row) {
                apply_change_to_superseded(generation->table(), is ? Change{Change::Kind::kUpsert, *is}
                                                                   : Change{Change::Kind::kRemove, *row});
            }
        }
    }
}

std::vector<GenerationPtr> Publisher::open_waiting_cells() {
    std::vector<GenerationPtr> opened_now;
    for (GenerationPtr& generation : superseded_) {
        if (!generation->cells_wait()) {
            continue;
        }
        if (auto opened = Generation::open(directory_.fd(), generation->number())) {
            generation = guarded(std::move(*opened));
            opened_now.push_back(generation);
        }
    }
    return opened_now;
}

void Publisher::replace_spoilt() {
    if (current_ == nullptr || building_ || current_->cells_attachable()) {
        return;
    }
    log_.warn("generation.cells_spoilt", {{"generation", current_->number()},
                                          {"reason", "a client truncated them or wrote over their header"}});
    start_build();
}

void Publisher::drop_superseded(const GenerationPtr& generation) {
    std::erase(superseded_, generation);
}

}  // namespace apikeyd
