// A daemon in a model: the order of Publisher's and Flusher's stores, on generations in memory.

#pragma once

#include <vector>

#include "tests/model/generation_memory.h"

namespace apikey::model {

class Daemon {
  public:
    explicit Daemon(InstanceMemory& instance) : instance_(instance) { instance.reset(); }

    /// Fills generation `number` and publishes it.
    void switch_to(uint32_t number, const std::vector<KeyRow>& rows) {
        GenerationMemory& generation = instance_.generation(number);
        generation.create(number);
        for (const KeyRow& row : rows) {
            generation.table().change(row);
        }
        generation.table().complete();
        instance_.control.announce(number);
        instance_.control.publish();
        published_ = number;
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
    InstanceMemory& instance_;
    uint32_t published_ = 0;
    uint32_t harvested_ = 0;
    shm::CellSums counted_;
    uint64_t answers_ = 0;
};

}  // namespace apikey::model
