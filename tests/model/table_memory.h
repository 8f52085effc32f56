// A table of the smallest size, formatted, checked and changed by the project's own code.

#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "core/table_rows.h"
#include "shm/header_checks.h"
#include "shm/key_form.h"
#include "shm/sha256.h"
#include "tests/model/shared_memory.h"

namespace apikey::model {

using apikeyd::Change;
using apikeyd::KeyRow;
using apikeyd::KeyState;

/// A key made from one letter, of the native form.
struct ModelKey {
    std::string text;
    KeyRow row;

    explicit ModelKey(char letter)
        : text("ak_live_" + std::string(shm::kIdLength, letter) + "_" +
               std::string(shm::kSecretLength + shm::kCrcLength, letter)) {
        row.id.assign(shm::kIdLength, letter);
        shm::sha256_kernel().hash(text.data(), text.size(), row.digest.data());
    }
    KeyRow as(KeyState state) const {
        KeyRow changed = row;
        changed.state = state;
        return changed;
    }
};

class TableMemory {
  public:
    static constexpr uint32_t kMeterWords = 2;
    TableMemory() : memory_(geometry().file_bytes()) {}

    /// An empty table, for a run.
    void format(uint32_t generation) {
        constexpr uint8_t kUid[shm::kUidLength] = {1};
        constexpr uint64_t kSeed = 1;
        memory_.clear();
        shm::TableWriter::format(memory_.data(), geometry(), generation, 0, kUid, kSeed);
        writer_.emplace(memory_.data(), checked(memory_.data(), generation), kMeterWords);
    }
    /// Everything that is written once stands: geometry, seeds, uid. Simulated as one word, the file's first.
    void complete() { plain_store(memory_.data(), Where::current()); }
    shm::TableWriter& writer() { return *writer_; }
    const shm::TableView& view() const { return writer_->view(); }
    /// The table as one more server maps it.
    shm::TableView view_of_a_server() {
        const uint8_t* base = memory_.alias();
        plain_load(base, Where::current());
        return checked(base, view().generation);
    }

    /// Slots where none of these keys is at home are no places to preempt for who walks the table.
    void leave_out_but(const std::vector<const ModelKey*>& keys) {
        std::vector<bool> homes(view().slot_count());
        for (const ModelKey* key : keys) {
            const shm::Probe home(row_hash(key->row, view().hash_seed), view());
            homes[home.first()] = homes[home.second()] = true;
        }
        for (uint64_t index = 0, end = 0; index < homes.size(); index = end + 1) {
            end = std::find(homes.begin() + index, homes.end(), true) - homes.begin();
            leave_out(&view().slots[index], (end - index) * sizeof(shm::Slot));
        }
    }

    /// As the daemon makes a change in the live table.
    void change(const KeyRow& row) {
        const bool made = apply_change(*writer_, {Change::Kind::kUpsert, row}, apikeyd::Cells::kInUse);
        expect(made, "a change finds room");
    }

  private:
    static shm::TableGeometry geometry() {
        shm::TableGeometry geometry{};
        geometry.slot_count = shm::kSlotsPerLine * shm::kProbeLinesMax;  // the fewest that a reader accepts
        geometry.details_bytes = shm::kPageBytes;
        geometry.policy_capacity = 8;
        geometry.plan_capacity = 8;
        geometry.owner_capacity = 4;
        geometry.scope_capacity = 4;
        return geometry;
    }
    shm::TableView checked(const uint8_t* base, uint32_t generation) const {
        shm::TableView view;
        expect(shm::check_table(base, memory_.bytes(), generation, &view) == shm::AttachResult::kOk,
               "a table is whole");
        return view;
    }

    SharedMemory memory_;
    std::optional<shm::TableWriter> writer_;
};

}  // namespace apikey::model
