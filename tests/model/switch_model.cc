// A server's two threads validate by libapikey's own code while the daemon builds, announces, publishes and
// harvests generations, enables a key and revokes one.
//
// Promises: a key that stays valid is never refused; one that was added or enabled is accepted by every call
// that begins after that was told, and one that was revoked by none; a key that nobody added is never
// accepted; nothing is read of a mapping before it was seen to begin, or after it ended; every answer is
// counted once, in a generation that was not yet harvested; what was replaced is not forgotten.

#include "client/validate.h"
#include "tests/model/generation_memory.h"

namespace apikey::model {
namespace {

constexpr unsigned kDaemon = 0;
constexpr uint32_t kFirst = 1;

class Switch : public Scenario {
  public:
    ~Switch() override { apikey_close(client_); }

    void before() override {
        instance_.reset();
        build(kFirst, {});
        publish(kFirst);
        leave_out_spare_records();
        expect(apikey_open(nullptr, &client_) == APIKEY_OK, "a client attaches");
        keep_per_thread(reinterpret_cast<void**>(&client::t_record));
    }

    void thread(unsigned number) override { number == kDaemon ? be_daemon() : serve(number - 1); }

    void after() override {
        for (uint32_t number = kFirst; number <= published_; ++number) {
            if (number > harvested_) {
                instance_.generation(number).count(&counted_, &counted_answers_);
            }
        }
        expect(counted_answers_ == tallies_[0].answers + tallies_[1].answers, "every answer is counted");
        expect(counted_.allowed == tallies_[0].valid + tallies_[1].valid, "every VALID for its key");
        for (client::Mapping* node = client_->nodes.load(); node != nullptr; node = node->next) {
            expect(node->state.load() != client::NodeState::kRetired || client_->reclaim_at_ns.load() != 0,
                   "what was replaced is looked at again");
        }
    }

  private:
    struct Tally {
        uint64_t answers = 0;
        uint64_t valid = 0;
    };

    void be_daemon() {
        build(2, {added_.row});
        publish(2);
        change(enabled_.row);
        told_good_.store(1, std::memory_order_release);
        harvest(1);
        build(3, {added_.row, enabled_.row});
        publish(3);
        change(revoked_.as(KeyState::kRevoked));
        told_revoked_.store(1, std::memory_order_release);
        harvest(1);
        harvest(2);
    }

    void build(uint32_t number, const std::vector<KeyRow>& more) {
        GenerationMemory& generation = instance_.generation(number);
        generation.create(number);
        for (const KeyRow& row : {stable_.row, revoked_.row, enabled_.as(KeyState::kDisabled)}) {
            generation.table().change(row);
        }
        for (const KeyRow& row : more) {
            generation.table().change(row);
        }
    }
    void publish(uint32_t number) {
        instance_.control.announce(number);
        instance_.control.publish();
        published_ = number;
    }
    /// As Publisher::make(): older files first, the current one last.
    void change(const KeyRow& row) {
        const Change change{Change::Kind::kUpsert, row};
        for (uint32_t number = harvested_ + 1; number < published_; ++number) {
            apply_change_to_superseded(instance_.generation(number).table().writer(), change);
        }
        instance_.generation(published_).table().change(row);
    }
    void harvest(uint32_t number) {
        if (harvested_ + 1 == number && instance_.generation(number).harvest(&counted_, &counted_answers_)) {
            harvested_ = number;
        }
    }

    void serve(unsigned server) {
        Tally& tally = tallies_[server];
        const bool good = told_good_.load(std::memory_order_acquire) != 0;
        const apikey_code added = validate(added_, &tally);
        const apikey_code enabled = validate(enabled_, &tally);
        const bool revoked = told_revoked_.load(std::memory_order_acquire) != 0;
        const apikey_code withdrawn = validate(revoked_, &tally);
        expect(validate(stable_, &tally) == APIKEY_VALID, "a key that stays valid is accepted");
        expect(added == APIKEY_VALID || (!good && added == APIKEY_MALFORMED),
               "a key is accepted once it was told that it is there");
        expect(enabled == APIKEY_VALID || (!good && enabled == APIKEY_DISABLED),
               "a key is accepted once it was told that it is enabled");
        expect(withdrawn == APIKEY_REVOKED || (!revoked && withdrawn == APIKEY_VALID),
               "a key is refused once it was told that it is revoked");
        expect(validate(nobodys_, &tally) == APIKEY_MALFORMED, "a key that nobody added is not accepted");
    }
    apikey_code validate(const ModelKey& key, Tally* tally) {
        apikey_verdict verdict;
        const apikey_code code = client::validate(client_, key.text.data(), key.text.size(), &verdict);
        ++tally->answers;
        tally->valid += code == APIKEY_VALID ? 1 : 0;
        return code;
    }

    /// Two threads claim one record each: all others are places that nobody stores to.
    static void leave_out_spare_records() {
        static const client::Record* const mine = [] {
            expect(client::records_prepare(), "there are records");
            return client::claim_record();
        }();
        constexpr size_t kClaimed = 3;  // this one, and one a thread
        leave_out(mine + kClaimed, (client::kRecords - kClaimed) * sizeof(client::Record));
    }

    InstanceMemory& instance_ = InstanceMemory::get();
    apikey_client* client_ = nullptr;
    shm::Atomic<uint32_t> told_good_{0};
    shm::Atomic<uint32_t> told_revoked_{0};
    Tally tallies_[2];
    // The daemon's.
    uint32_t published_ = 0;
    uint32_t harvested_ = 0;
    shm::CellSums counted_;
    uint64_t counted_answers_ = 0;

    const ModelKey stable_{'a'};
    const ModelKey revoked_{'b'};
    const ModelKey enabled_{'c'};
    const ModelKey added_{'d'};
    const ModelKey nobodys_{'e'};
};

}  // namespace
}  // namespace apikey::model

int main(int argc, char** argv) {
    return apikey::model::simulate(argc, argv, 3, []() -> std::unique_ptr<apikey::model::Scenario> {
        return std::make_unique<apikey::model::Switch>();
    });
}
