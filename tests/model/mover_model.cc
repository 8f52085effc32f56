// The worker moves meters to the announced generation, where one of the owners is not any more, while the
// loop gives both files another owner, and a server takes from either.
//
// Promises: an owner's name is whole wherever it is read; a meter that was marked as moved never changes
// again, also where it goes on nowhere; keys that have enough left are accepted.

#include "core/meter_mover.h"
#include "tests/model/daemon.h"
#include "tests/model/server.h"

namespace apikey::model {
namespace {

constexpr uint32_t kAnnounced = 2;

apikeyd::PolicySet policies_of(const std::vector<const char*>& owners) {
    apikeyd::LimitRow limit;
    limit.name = "monthly";
    limit.form = apikeyd::LimitForm::kQuotaPerMonth;
    limit.requests = 9;
    apikeyd::PolicySet set;
    set.plans = {{"plan", {limit}}};
    for (const char* owner : owners) {
        set.owners.push_back({owner, "plan"});
    }
    return set;
}

class Mover : public Scenario {
  public:
    void before() override {
        alone_.row.owner = "gone";
        stays_.row.owner = "stays";
        daemon_.set_policies(policies_of({"gone", "stays"}));
        daemon_.switch_to(1, {alone_.row, stays_.row});
        server_.open(Server::kThreads);
        // Numbers of owners differ in the two files: a client looks for one from a place where another comes.
        daemon_.set_policies(policies_of({"first", "second", "stays"}));
        daemon_.start_build();
        alone_.row.owner = "";
        daemon_.build(kAnnounced, {{Change::Kind::kUpsert, alone_.row}});
        for (const uint32_t number : {1u, kAnnounced}) {
            InstanceMemory::get().generation(number).table().leave_out_but({&alone_, &stays_});
        }
    }

    void thread(unsigned number) override {
        if (number == 0) {
            daemon_.announce_built(kAnnounced);
            announced_.store(1, std::memory_order_release);
            daemon_.change_policies(policies_of({"first", "second", "stays"}));
        } else if (number == 1) {
            while (announced_.load(std::memory_order_acquire) == 0) {
            }
            move();
        } else {
            for (const ModelKey* key : {&alone_, &alone_, &stays_}) {
                expect(server_.validate(0, *key) == APIKEY_VALID, "a key with enough left is accepted");
            }
        }
    }

    void after() override {
        expect((InstanceMemory::get().generation(1).owner_meter(1).load() & shm::kMovedBit) != 0,
               "a word that has moved never changes again");
        server_.close();
    }

  private:
    void move() {
        GenerationMemory& from = InstanceMemory::get().generation(1);
        GenerationMemory& to = InstanceMemory::get().generation(kAnnounced);
        apikeyd::move_meters({from.table().view(), from.cells()}, {to.table().view(), to.cells()});
    }

    Daemon daemon_{InstanceMemory::get()};
    Server server_;
    shm::Atomic<uint32_t> announced_{0};
    ModelKey alone_{'a'};
    ModelKey stays_{'b'};
};

}  // namespace
}  // namespace apikey::model

int main(int argc, char** argv) {
    return apikey::model::simulate<apikey::model::Mover>(argc, argv, 3);
}
