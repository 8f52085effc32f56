// A key with a quota and a rate of one request, which two threads of a server ask for at once: the one that
// is refused gives its part of the quota back, while the other one, as the daemon, has the meters go on to
// another generation, and to a third.
//
// Promises: a refusal is the rate's; a meter that was marked as moved never changes again.

#include "core/table_policies.h"
#include "shm/meters.h"
#include "tests/model/daemon.h"
#include "tests/model/server.h"

namespace apikey::model {
namespace {

class Owing : public Scenario {
  public:
    void before() override {
        apikeyd::LimitRow quota;
        quota.name = "quota";
        quota.form = apikeyd::LimitForm::kQuotaPerMonth;
        quota.requests = 9;
        apikeyd::LimitRow rate;
        rate.name = "rate";
        rate.requests = 1;
        rate.rate_seconds = 86400;
        rate.burst = 1;
        apikeyd::PolicySet policies;
        policies.plans = {{"plan", {quota, rate}}};
        auto terms = std::make_shared<apikeyd::KeyTerms>();
        terms->plan = "plan";
        key_.row.terms = terms;
        daemon_.set_policies(policies);
        daemon_.switch_to(1, {key_.row});
        server_.open(Server::kThreads);
        daemon_.start_build();
        daemon_.build(2, {});
        daemon_.build(3, {});
    }

    void thread(unsigned number) override {
        const apikey_code code = server_.validate(number, key_);
        expect(code == APIKEY_VALID || code == APIKEY_RATE_LIMITED, "a refusal is the rate's");
        if (number == 0) {
            for (const uint32_t generation : {2u, 3u}) {
                InstanceMemory::get().generation(generation).table().complete();
                daemon_.announce_built(generation);
                daemon_.move_to_announced({key_.row});
                if (generation == 2) {
                    daemon_.publish_built();
                }
            }
        }
    }

    void after() override {
        expect(server_.valid() == 1, "as many pass as the rate has");
        for (const uint32_t generation : {1u, 2u}) {
            for (unsigned word = 0; word < TableMemory::kMeterWords; ++word) {
                expect((InstanceMemory::get().generation(generation).meter(key_.row, word).load() &
                        shm::kMovedBit) != 0,
                       "a word that has moved never changes again");
            }
        }
        server_.close();
    }

  private:
    Daemon daemon_{InstanceMemory::get()};
    Server server_;
    ModelKey key_{'a'};
};

}  // namespace
}  // namespace apikey::model

int main(int argc, char** argv) {
    return apikey::model::simulate<apikey::model::Owing>(argc, argv, 2);
}
