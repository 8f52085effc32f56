// A plan changes after a generation was announced, and the current one has no room for what it says then: a
// server that has a key of the plan there goes on to the announced one.
//
// Promise: the key, which has enough left of either, is accepted all the time.

#include "tests/model/daemon.h"
#include "tests/model/server.h"

namespace apikey::model {
namespace {

constexpr uint32_t kAnnounced = 2;
constexpr uint64_t kLeast = 9;

apikeyd::PolicySet policies_of(uint64_t requests) {
    apikeyd::LimitRow limit;
    limit.name = "monthly";
    limit.form = apikeyd::LimitForm::kQuotaPerMonth;
    limit.requests = requests;
    apikeyd::PolicySet set;
    set.plans = {{"plan", {limit}}};
    return set;
}

class Elsewhere : public Scenario {
  public:
    void before() override {
        auto terms = std::make_shared<apikeyd::KeyTerms>();
        terms->plan = "plan";
        key_.row.terms = terms;
        daemon_.set_policies(policies_of(kLeast));
        daemon_.switch_to(1, {key_.row});
        uint64_t requests = kLeast;
        while (apikeyd::set_policies(InstanceMemory::get().generation(1).table().writer(),
                                     policies_of(++requests))) {
        }
        server_.open(Server::kThreads);
        daemon_.start_build();
        daemon_.build(kAnnounced, {});
    }

    void thread(unsigned number) override {
        if (number == 0) {
            InstanceMemory::get().generation(kAnnounced).table().complete();
            daemon_.announce_built(kAnnounced);
            daemon_.change_policies(policies_of(kLeast - 1));
            return;
        }
        for (int i = 0; i < 3; ++i) {
            expect(server_.validate(0, key_) == APIKEY_VALID, "a key that stays valid is accepted");
        }
    }

    void after() override { server_.close(); }

  private:
    Daemon daemon_{InstanceMemory::get()};
    Server server_;
    ModelKey key_{'a'};
};

}  // namespace
}  // namespace apikey::model

int main(int argc, char** argv) {
    return apikey::model::simulate<apikey::model::Elsewhere>(argc, argv, 2);
}
