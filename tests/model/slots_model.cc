// A table while the daemon changes it, and a thread that looks keys up and describes them.
//
// Promises: a key that was in the table when a look-up began is found, whatever is added meanwhile; one that
// nobody added is not; who finds a slot reads its digest, its environment's name and its details whole, also
// those of a key that left and came back, and those that were changed; what was seen of a key is never
// followed by something older.

#include "tests/model/table_memory.h"

namespace apikey::model {
namespace {

using shm::Found;
using shm::Meta;
using shm::SlotState;

class Slots : public Scenario {
  public:
    void before() override {
        table().format(1);
        table().change(stays_.row);
        table().change(revoked_.row);
        table().change(returns_.row);
        table().change(renamed_.row);
        expect(apply_change(table().writer(), {Change::Kind::kRemove, returns_.row}, apikeyd::Cells::kInUse),
               "a key leaves");
    }

    void thread(unsigned number) override { number == 0 ? write() : read(); }

  private:
    static TableMemory& table() {
        static TableMemory memory;
        return memory;
    }

    void write() {
        table().change(with_environment(added_.row));
        table().change(revoked_.as(KeyState::kRevoked));
        table().change(returns_.row);
        KeyRow renamed = renamed_.row;
        renamed.name = "new";
        table().change(renamed);
    }
    static KeyRow with_environment(KeyRow row) {
        row.environment = "live";
        return row;
    }

    void read() {
        // As whoever walks the table: without having looked for the key.
        if (const std::optional<KeyRow> added = described(home(added_))) {
            expect(added == with_environment(added_.row), "a new key is whole");
        }
        const SlotState first = Meta::state(find(revoked_).meta);
        expect(Meta::state(find(stays_).meta) == SlotState::kActive, "a key that stays is found");
        expect(find(nobodys_).index == shm::kNoSlot, "a key that nobody added is not found");
        const SlotState second = Meta::state(find(revoked_).meta);
        expect(first != SlotState::kRevoked || second == SlotState::kRevoked,
               "a revocation that was seen stays seen");
        if (second == SlotState::kRevoked) {
            expect(find(added_).index != shm::kNoSlot, "what was added before it is found too");
        }
        const Found returned = find(returns_);
        if (Meta::state(returned.meta) != SlotState::kDead) {
            expect(described(returned.index) == returns_.row, "a key that came back is whole");
        }
        const std::string name = described(find(renamed_).index)->name;
        expect(name.empty() || name == "new", "a name is the old one or the new one");
    }

    static Found find(const ModelKey& key) {
        const shm::TableView& view = table().view();
        return find_slot(view, row_hash(key.row, view.hash_seed), row_digest(key.row));
    }
    static uint64_t home(const ModelKey& key) {
        const shm::TableView& view = table().view();
        return shm::Probe(row_hash(key.row, view.hash_seed), view).first();
    }
    /// The row of a slot, as far as the table knows its digest.
    static std::optional<KeyRow> described(uint64_t index) {
        std::optional<KeyRow> row = apikeyd::row_of_slot(table().view(), index);
        if (row) {
            ModelKey whole(row->id.empty() ? 'x' : row->id[0]);
            row->digest = whole.row.digest;
        }
        return row;
    }

    const ModelKey stays_{'a'};
    const ModelKey revoked_{'b'};
    const ModelKey added_{'c'};
    const ModelKey returns_{'d'};
    const ModelKey renamed_{'e'};
    const ModelKey nobodys_{'f'};
};

}  // namespace
}  // namespace apikey::model

int main(int argc, char** argv) {
    return apikey::model::simulate<apikey::model::Slots>(argc, argv, 2);
}
