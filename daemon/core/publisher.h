// All generations of the instance, and every change that is made in them.
//
// The rules (shm/LAYOUT.md, "Who may change what"):
//  - A change goes to every file that anyone may still map, older files first, the current one last, before
//    it is answered. So what tightens is in force in every process, whatever generation it reads.
//  - A new generation is built on the worker when room runs out. Changes meanwhile are made in the live one
//    and logged; the log is replayed into the new one, which is then named and announced. One that has no
//    room for all of the log is thrown away, and another built with twice as much, so that some build ends.
//  - What cannot be built for several who wait is built for each alone: one may have asked for what no table
//    can hold.
//  - From the announcement on every change goes to both, the new one first, additions to the new one only. So
//    whoever takes of a plan in the old one leaves it to a file that says the same plan. The worker moves the
//    meters; when all have moved the generation is published, and what came meanwhile is answered.
//  - An announced generation is finished by whoever is daemon next.
//  - A superseded generation goes when nobody maps it and its last counts are in the usage store.

#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "base/result.h"
#include "core/change.h"
#include "core/change_set.h"
#include "core/quota_words.h"
#include "runtime/log.h"
#include "runtime/worker.h"
#include "shm/control_writer.h"
#include "shm/directory.h"
#include "shm/generation.h"

namespace apikeyd {

using GenerationPtr = std::shared_ptr<apikey::shm::Generation>;

/// Lives on the loop's thread. The worker it is given is its own for builds and shares nothing else with it.
class Publisher {
  public:
    /// Takes over what an earlier daemon left: finishes an announced switch, adopts the current generation if
    /// a scan proves its table whole, keeps older ones until they are harvested, deletes what was never
    /// announced. Fails when meters that are to go on cannot be opened now.
    static Result<std::unique_ptr<Publisher>> open(apikey::shm::Directory directory, gid_t clients_group,
                                                   uint64_t capacity_keys, Worker& worker, Log& log);

    /// Told once the changes are in force in every process, or with the reason why some are not.
    using Done = std::function<void(Result<void>)>;

    /// Makes one change now, everywhere. False: it needs room that the live table has not. What tightens is
    /// in force all the same; the rest is for make_room_for().
    bool make(const Change& change);
    /// Has a generation built that holds `changes` too, and tells when it is published. With no changes,
    /// tells at once when there is a generation already.
    void make_room_for(ChangeSet changes, Done done);
    /// Both: for sets small enough not to hold up the loop.
    void apply(const std::vector<Change>& changes, Done done);

    /// Scopes, plans and owners, for all keys at once, and for the builds to come. False: the live table has
    /// no room for them; what needs them is for make_room_for(), with or without changes.
    bool set_policies(std::shared_ptr<const PolicySet> policies);
    const PolicySet& policies() const { return *policies_; }
    std::shared_ptr<const PolicySet> policies_in_force() const { return policies_; }
    /// Fails while servers map generations that this daemon cannot write: nothing can be taken away from
    /// them.
    Result<void> reaches_all() const;

    /// What the usage store says was taken of quotas: it goes into the first generation. For a start without
    /// one whose meters would go on, before the first load.
    void restore_quotas(std::shared_ptr<const StoredQuotas> quotas) { quotas_ = std::move(quotas); }

    /// What each code's denials have room for in a new generation's ring, from its first answer on; 0: the
    /// ring is closed. See DenialLog.
    void set_denial_room(uint64_t room) { denial_room_ = room; }

    /// Makes every superseded file no more permissive than the current generation. For start-up, after the
    /// source was loaded: changes that an earlier daemon was killed in the middle of reach all files.
    void tighten_superseded();

    /// Has another generation built when clients have spoilt the current one's cells so that no server that
    /// is started now could attach. To be called now and then.
    void replace_spoilt();

    /// nullptr before the first.
    const GenerationPtr& current() const { return current_; }
    /// Announced and not published yet: clients may count in it. nullptr outside of a switch.
    const GenerationPtr& next() const { return next_; }
    const std::vector<GenerationPtr>& superseded() const { return superseded_; }
    /// All of these, the superseded ones first.
    std::vector<GenerationPtr> all() const;
    /// Numbers of generations in the directory that this daemon cannot read: no change reaches them.
    const std::vector<uint32_t>& unread() const { return unread_; }
    /// Opens superseded generations anew whose cells could not be opened before; returns those.
    std::vector<GenerationPtr> open_waiting_cells();
    /// Forgets a superseded generation whose files are gone.
    void drop_superseded(const GenerationPtr& generation);
    bool building() const { return building_; }

    apikey::shm::ControlWriter& control() { return control_; }
    const apikey::shm::Directory& directory() const { return directory_; }

  private:
    struct Waiting {
        ChangeSet changes;  ///< what could not be made in the live table
        Done done;
    };
    struct Build;

    Publisher(apikey::shm::Directory directory, apikey::shm::ControlWriter control, gid_t clients_group,
              uint64_t capacity_keys, Worker& worker, Log& log)
        : directory_(std::move(directory)),
          control_(std::move(control)),
          clients_group_(clients_group),
          capacity_keys_(capacity_keys),
          worker_(worker),
          log_(log) {}

    Result<void> adopt();
    uint32_t next_number() const;
    bool wants_rebuild() const;
    void start_build(double growth = 1);
    void finish_build(const std::shared_ptr<Build>& build);
    bool replay_log(const Build& build, apikey::shm::Generation& built) const;
    void build_again(Build& build, double growth);
    Result<void> announce(GenerationPtr built);
    void publish();
    void conclude(const Build& build, const Result<void>& result);

    apikey::shm::Directory directory_;
    apikey::shm::ControlWriter control_;
    gid_t clients_group_;
    uint64_t capacity_keys_;
    Worker& worker_;
    Log& log_;

    std::shared_ptr<const PolicySet> policies_ = std::make_shared<const PolicySet>();
    bool policies_made_ = true;                   // in the live table
    std::shared_ptr<const StoredQuotas> quotas_;  // until the first generation is published
    GenerationPtr current_;
    GenerationPtr next_;
    std::vector<GenerationPtr> superseded_;  // ascending
    std::vector<Waiting> waiting_;           // for the next build
    size_t alone_ = 0;                       // so many of them, the first ones, are for a build each
    std::vector<uint32_t> unread_;
    uint64_t denial_room_ = 0;
    bool building_ = false;
    std::vector<Change> log_of_changes_;  // made in the live table since the build began
};

}  // namespace apikeyd
