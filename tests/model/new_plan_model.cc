// Keys get another plan, one by its own row and one by its owner's, between the announcement of a generation
// and its publication, while the worker moves meters there and a server takes from either file.
//
// Promise: no plan's quota passes more than its maximum. The new plan's limits have the same words as the old
// one's: where a taker of the one could follow a taker of the other in two files, counts would be forgotten.

#include "tests/model/daemon.h"
#include "tests/model/server.h"

namespace apikey::model {
namespace {

constexpr uint32_t kAnnounced = 2;
constexpr uint64_t kPasses = 1;  // of each quota

apikeyd::PlanRow plan(const char* name) {
    apikeyd::LimitRow limit;
    limit.name = name;
    limit.form = apikeyd::LimitForm::kQuotaPerMonth;
    limit.requests = kPasses;
    return {name, {limit}};
}

class NewPlan : public Scenario {
  public:
    void before() override {
        policies_.plans = {plan("first"), plan("second")};
        policies_.owners = {{"owner", "first"}};
        set_terms(own_.row, "first");
        shared_.row.owner = "owner";
        daemon_.set_policies(policies_);
        daemon_.switch_to(1, {own_.row, shared_.row});
        server_.open(Server::kThreads);
        daemon_.start_build();
        daemon_.build(kAnnounced, {});
        InstanceMemory::get().generation(kAnnounced).table().complete();
        daemon_.announce_built(kAnnounced);
    }

    void thread(unsigned number) override {
        if (number == 0) {
            set_terms(own_.row, "second");
            daemon_.change(own_.row);
            policies_.owners = {{"owner", "second"}};
            daemon_.change_policies(policies_);
            return;
        }
        if (number == 1) {
            daemon_.move_to_announced({own_.row, shared_.row});
        }
        const ModelKey* const keys[] = {&own_, &own_, &shared_, &shared_};
        // From both ends, so that the one key's turn comes no later than the other's.
        for (size_t i = 0; i < std::size(keys); ++i) {
            const ModelKey* key = keys[number == 1 ? i : std::size(keys) - 1 - i];
            apikey_limits limits{};
            if (server_.validate(number - 1, *key, nullptr, {.limits = &limits}) == APIKEY_VALID) {
                ++passed_[number - 1][key == &own_][limits.quota.name[0] == 's'];
            }
        }
    }

    void after() override {
        for (const bool own : {false, true}) {
            for (const bool second : {false, true}) {
                expect(passed_[0][own][second] + passed_[1][own][second] <= kPasses, "a quota is not passed");
            }
        }
        server_.close();
    }

  private:
    static void set_terms(KeyRow& row, const char* plan_name) {
        auto terms = std::make_shared<apikeyd::KeyTerms>();
        terms->plan = plan_name;
        row.terms = terms;
    }

    Daemon daemon_{InstanceMemory::get()};
    Server server_;
    ModelKey own_{'a'};
    ModelKey shared_{'b'};
    apikeyd::PolicySet policies_;
    uint64_t passed_[Server::kThreads][2][2] = {};  // by server thread, key and plan
};

}  // namespace
}  // namespace apikey::model

int main(int argc, char** argv) {
    return apikey::model::simulate<apikey::model::NewPlan>(argc, argv, 3);
}
