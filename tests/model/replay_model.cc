// A generation is built while the live table changes: the loop adds, changes, revokes and removes keys and
// logs it, a worker copies the table, and a server validates from before the build until after the switch.
//
// Promises: a key that stays valid is never refused; what was told to be revoked, removed or disabled is
// accepted by no call that begins later, whichever generation answers; a key that was removed and added again
// is; the new generation has every key as it was last; every answer is counted.

#include "tests/model/daemon.h"
#include "tests/model/server.h"

namespace apikey::model {
namespace {

constexpr uint32_t kBuilt = 2;

apikeyd::PolicySet policies_of(std::vector<std::string> scopes, const std::vector<const char*>& plans) {
    apikeyd::LimitRow limit;
    limit.name = "monthly";
    limit.form = apikeyd::LimitForm::kQuotaPerMonth;
    limit.requests = 1;
    apikeyd::PolicySet set;
    set.scopes = std::move(scopes);
    for (const char* plan : plans) {
        set.plans.push_back({plan, {limit}});
    }
    return set;
}

class Replay : public Scenario {
  public:
    void before() override {
        daemon_.set_policies(policies_of({"a"}, {"plan"}));
        daemon_.switch_to(1, {stays("first", {"a"}), revoked_.row, removed_.row, returns_.row, late_.row});
        server_.open(1);
        InstanceMemory::get().generation(1).table().leave_out_but(
            {&stays_, &revoked_, &removed_, &returns_, &late_, &added_});
        daemon_.start_build();
    }

    void thread(unsigned number) override {
        if (number == 2) {
            serve();
            return;
        }
        if (number == 0) {
            change_while_building();
        } else {
            daemon_.build(kBuilt, {{Change::Kind::kUpsert, stays("second", {"a"})}});
        }
        // The loop goes on when the worker is done; here, in whichever thread is the later one.
        if (done_.fetch_add(1) != 0) {
            finish();
        }
    }

    void after() override {
        expect_row(stays_, stays("third", {"a", "b"}));
        expect_row(revoked_, revoked_.as(KeyState::kRevoked));
        expect_row(removed_, std::nullopt);
        expect_row(returns_, returns_.row);
        expect_row(late_, late_.as(KeyState::kRevoked));
        expect_row(added_, added_.as(KeyState::kDisabled));
        daemon_.count_the_rest();
        expect(daemon_.counted_answers() == server_.answers(), "every answer is counted");
        server_.close();
    }

  private:
    void change_while_building() {
        daemon_.change_policies(policies_of({"a", "b"}, {"plan", "other"}));
        daemon_.make({Change::Kind::kUpsert, revoked_.as(KeyState::kRevoked)});
        told_revoked_.store(1, std::memory_order_release);
        daemon_.make({Change::Kind::kRemove, removed_.row});
        told_removed_.store(1, std::memory_order_release);
        daemon_.make({Change::Kind::kRemove, returns_.row});
        daemon_.make({Change::Kind::kUpsert, returns_.row});
        told_returned_.store(1, std::memory_order_release);
        daemon_.make({Change::Kind::kUpsert, stays("third", {"a", "b"})});
        daemon_.make({Change::Kind::kUpsert, added_.row});
        daemon_.make({Change::Kind::kUpsert, added_.as(KeyState::kDisabled)});
        told_disabled_.store(1, std::memory_order_release);
    }
    void finish() {
        daemon_.announce_built(kBuilt);
        daemon_.make({Change::Kind::kUpsert, late_.as(KeyState::kRevoked)});
        told_late_.store(1, std::memory_order_release);
        daemon_.publish_built();
    }

    void serve() {
        for (int round = 0; round < 4; ++round) {
            expect_refused(revoked_, told_revoked_);
            expect_refused(removed_, told_removed_);
            const bool returned = told_returned_.load(std::memory_order_acquire) != 0;
            expect(server_.validate(0, returns_) == APIKEY_VALID || !returned,
                   "a key is accepted once it was told that it is back");
            expect_refused(added_, told_disabled_);
            expect_refused(late_, told_late_);
            expect(server_.validate(0, stays_) == APIKEY_VALID, "a key that stays valid is accepted");
        }
    }
    void expect_refused(const ModelKey& key, const shm::Atomic<uint32_t>& told) {
        const bool refused = told.load(std::memory_order_acquire) != 0;
        expect(server_.validate(0, key) != APIKEY_VALID || !refused,
               "a key is refused once it was told that it is");
    }

    KeyRow stays(const char* name, std::vector<std::string> scopes) const {
        KeyRow row = stays_.row;
        row.name = name;
        auto terms = std::make_shared<apikeyd::KeyTerms>();
        terms->scopes = std::move(scopes);
        row.terms = terms;
        return row;
    }
    /// In the new generation; nullopt: it has no such key.
    static void expect_row(const ModelKey& key, const std::optional<KeyRow>& as) {
        const shm::TableView& table = InstanceMemory::get().generation(kBuilt).table().view();
        const shm::Found found = find_slot(table, row_hash(key.row, table.hash_seed), row_digest(key.row));
        std::optional<KeyRow> is;
        if (found.index != shm::kNoSlot) {
            is = apikeyd::row_of_slot(table, found.index);
        }
        if (is) {
            is->digest = key.row.digest;  // of which a table has a part
        }
        expect(is == as, "the new generation has a key as it was last");
    }

    Daemon daemon_{InstanceMemory::get()};
    Server server_;
    shm::Atomic<uint32_t> done_{0};
    shm::Atomic<uint32_t> told_revoked_{0};
    shm::Atomic<uint32_t> told_removed_{0};
    shm::Atomic<uint32_t> told_returned_{0};
    shm::Atomic<uint32_t> told_disabled_{0};
    shm::Atomic<uint32_t> told_late_{0};
    const ModelKey stays_{'a'};
    const ModelKey revoked_{'b'};
    const ModelKey removed_{'c'};
    const ModelKey returns_{'d'};
    const ModelKey late_{'e'};
    const ModelKey added_{'f'};
};

}  // namespace
}  // namespace apikey::model

int main(int argc, char** argv) {
    return apikey::model::simulate<apikey::model::Replay>(argc, argv, 3);
}
