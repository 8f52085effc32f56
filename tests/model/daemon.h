// A daemon in a model: the order of Publisher's, the builder's and Flusher's stores, on generations in
// memory.

#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "core/table_policies.h"
#include "shm/meters.h"

#include "tests/model/generation_memory.h"

namespace apikey::model {

class Daemon {
  public:
    explicit Daemon(InstanceMemory& instance) : instance_(instance) { instance.reset(); }

    /// Of the generations to come.
    void set_policies(const apikeyd::PolicySet& policies) { policies_ = policies; }

    /// Fills generation `number` and publishes it.
    void switch_to(uint32_t number, const std::vector<KeyRow>& rows, bool refuse_an_attach = false) {
        announce(number, rows);
        if (refuse_an_attach) {
            instance_.generation(number).refuse_an_attach();
        }
        instance_.control.publish();
        published_ = number;
    }
    /// The same for keys with limits, whose meters move before: all of these keys and one owner's, by a
    /// daemon that is killed after so many words, and by the next one. Another owner comes meanwhile.
    void move_to(uint32_t number, const std::vector<KeyRow>& rows, unsigned killed_after) {
        announce(number, rows);
        GenerationMemory& from = instance_.generation(number - 1);
        GenerationMemory& to = instance_.generation(number);
        apikeyd::PolicySet more = policies_;
        more.owners.push_back({"late", policies_.plans.front().name});
        expect(apikeyd::set_policies(from.table().writer(), more), "policies find room");
        move_meters(from, to, rows, killed_after);
        move_meters(from, to, rows, UINT32_MAX);
        instance_.control.publish();
        published_ = number;
    }
    /// As Publisher::set_policies().
    void change_policies(const apikeyd::PolicySet& policies) {
        policies_ = policies;
        for (uint32_t number = harvested_ + 1; number < published_; ++number) {
            apikeyd::set_policies_in_superseded(writer(number), policies);
        }
        const uint32_t live = next_ != 0 ? next_ : published_;
        expect(apikeyd::set_policies(writer(live), policies), "policies find room");
        if (next_ != 0) {
            apikeyd::set_policies_in_superseded(writer(published_), policies,
                                                &instance_.generation(next_).table().view());
        }
    }
    /// As Publisher::make(): older files first, then the live one, then the one that was; and into the log of
    /// a build.
    void make(const Change& change) {
        for (uint32_t number = harvested_ + 1; number < published_; ++number) {
            apikeyd::apply_change_to_superseded(writer(number), change);
        }
        expect(apply_change(writer(next_ != 0 ? next_ : published_), change, apikeyd::Cells::kInUse),
               "a change finds room");
        if (next_ != 0) {
            apikeyd::apply_change_to_superseded(writer(published_), change);
        }
        if (building_ && next_ == 0) {
            log_of_changes_.push_back(change);
        }
    }
    void change(const KeyRow& row) { make({Change::Kind::kUpsert, row}); }

    /// As Publisher::start_build(). Then one thread calls build(), while this one goes on with changes; when
    /// both are done, announce_built(), and after more changes publish_built().
    void start_build() {
        building_ = true;
        log_of_changes_.clear();
        ordered_policies_ = policies_;
    }
    /// As build_generation() with its fill(), on the worker.
    void build(uint32_t number, const std::vector<Change>& changes) {
        GenerationMemory& built = instance_.generation(number);
        built.create(number);
        const shm::TableView& from = instance_.generation(published_).table().view();
        expect(apikeyd::set_policies(writer(number), ordered_policies_, &from), "policies find room");
        for (uint64_t index = 0; index < from.slot_count(); ++index) {
            const std::optional<KeyRow> row = apikeyd::row_of_slot(from, index);
            if (row && std::none_of(changes.begin(), changes.end(), [&](const Change& change) {
                    return row_digest_bytes(change.row) == row_digest_bytes(*row);
                })) {
                make_fresh(number, {Change::Kind::kUpsert, *row});
            }
        }
        for (const Change& change : changes) {
            make_fresh(number, change);
        }
        built.table().complete();
    }
    /// As Publisher::finish_build(): replays the log and announces.
    void announce_built(uint32_t number) {
        const shm::TableView& from = instance_.generation(published_).table().view();
        expect(apikeyd::set_policies(writer(number), policies_, &from), "policies find room");
        for (const Change& change : log_of_changes_) {
            make_fresh(number, change);
        }
        instance_.control.announce(number);
        next_ = number;
    }
    /// As the worker does meanwhile, where nobody is killed.
    void move_to_announced(const std::vector<KeyRow>& rows) {
        move_meters(instance_.generation(published_), instance_.generation(next_), rows, UINT32_MAX);
    }
    void publish_built() {
        instance_.control.publish();
        published_ = std::exchange(next_, 0);
        building_ = false;
    }
    /// The oldest file, when nobody maps it.
    void harvest() {
        if (harvested_ + 1 < published_ &&
            instance_.generation(harvested_ + 1).harvest(&counted_, &answers_)) {
            ++harvested_;
        }
    }
    /// After the threads: everything that was ever counted.
    void count_the_rest() {
        while (harvested_ < published_) {
            instance_.generation(++harvested_).count(&counted_, &answers_);
        }
    }
    uint64_t counted_valid() const { return counted_.allowed; }
    uint64_t counted_answers() const { return answers_; }

  private:
    shm::TableWriter& writer(uint32_t number) { return instance_.generation(number).table().writer(); }
    void make_fresh(uint32_t number, const Change& change) {
        expect(apply_change(writer(number), change, apikeyd::Cells::kFresh), "a change finds room");
    }
    void announce(uint32_t number, const std::vector<KeyRow>& rows) {
        GenerationMemory& generation = instance_.generation(number);
        generation.create(number);
        expect(apikeyd::set_policies(generation.table().writer(), policies_), "policies find room");
        for (const KeyRow& row : rows) {
            generation.table().change(row);
        }
        generation.table().complete();
        instance_.control.announce(number);
    }
    /// As move_meters() of the daemon, which walks all slots.
    static void move_meters(GenerationMemory& from, GenerationMemory& to, const std::vector<KeyRow>& rows,
                            unsigned words) {
        for (const KeyRow& row : rows) {
            for (unsigned word = 0; word < TableMemory::kMeterWords && words > 0; ++word, --words) {
                shm::carry_over(from.meter(row, word), to.meter(row, word));
            }
        }
        if (words > 0) {
            shm::carry_over(from.owner_meter(1), to.owner_meter(1));
        }
    }

    apikeyd::PolicySet policies_;
    InstanceMemory& instance_;
    uint32_t published_ = 0;
    uint32_t next_ = 0;  ///< announced; 0: none
    uint32_t harvested_ = 0;
    bool building_ = false;
    apikeyd::PolicySet ordered_policies_;
    std::vector<Change> log_of_changes_;
    shm::CellSums counted_;
    uint64_t answers_ = 0;
};

}  // namespace apikey::model
