// A daemon in a model: the order of Publisher's and Flusher's stores, on generations in memory.

#pragma once

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
    /// As Publisher::set_policies(), in the published generation.
    void change_policies(const apikeyd::PolicySet& policies) {
        expect(apikeyd::set_policies(instance_.generation(published_).table().writer(), policies),
               "policies find room");
    }
    /// As Publisher::make(): older files first, the current one last.
    void change(const KeyRow& row) {
        for (uint32_t number = harvested_ + 1; number < published_; ++number) {
            apikeyd::apply_change_to_superseded(instance_.generation(number).table().writer(),
                                                {Change::Kind::kUpsert, row});
        }
        instance_.generation(published_).table().change(row);
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
    uint32_t harvested_ = 0;
    shm::CellSums counted_;
    uint64_t answers_ = 0;
};

}  // namespace apikey::model
