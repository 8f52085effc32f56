// Keys with a rate, a quota and their owner's quota, taken by two threads of a server, one by one and in a
// batch, while the daemon moves their meters to another generation, and to a third, and is killed in the
// middle of one of the moves.
//
// Promises: as many requests are VALID as the tightest limit has, never more, whatever moves when; a request
// that is refused is refused for a limit.

#include "core/table_policies.h"
#include "shm/meters.h"
#include "tests/model/daemon.h"
#include "tests/model/server.h"

namespace apikey::model {
namespace {

constexpr uint64_t kPasses = 2;  // of each key

apikeyd::LimitRow quota(const char* name, uint64_t requests) {
    apikeyd::LimitRow limit;
    limit.name = name;
    limit.form = apikeyd::LimitForm::kQuotaPerMonth;
    limit.requests = requests;
    return limit;
}

apikeyd::LimitRow rate(uint32_t burst) {
    apikeyd::LimitRow limit;
    limit.name = "rate";
    limit.requests = 1;
    limit.rate_seconds = 86400;
    limit.burst = burst;
    return limit;
}

class Moves : public Scenario {
  public:
    void before() override {
        apikeyd::PolicySet policies;
        policies.plans = {{"counted", {rate(9), quota("own", kPasses)}},
                          {"timed", {rate(kPasses), quota("own", 9)}},
                          {"shared", {quota("shared", 2 * kPasses + 1)}}};
        policies.owners = {{"owner", "shared"}};
        daemon_.set_policies(policies);
        for (ModelKey* key : {&counted_, &timed_}) {
            auto terms = std::make_shared<apikeyd::KeyTerms>();
            terms->plan = key == &counted_ ? "counted" : "timed";
            key->row.terms = terms;
            key->row.owner = "owner";
            rows_.push_back(key->row);
        }
        daemon_.switch_to(1, rows_);
        server_.open(Server::kThreads);
    }

    void thread(unsigned number) override {
        if (number == 0) {
            daemon_.move_to(2, rows_, 1);  // killed after one word, and finished by the next
            daemon_.move_to(3, rows_, 0);
            return;
        }
        if (number == 1) {
            for (const ModelKey* key : {&counted_, &timed_, &counted_}) {
                check(key, server_.validate(0, *key));
            }
            return;
        }
        const ModelKey* const keys[] = {&counted_, &timed_, &timed_};
        apikey_verdict verdicts[std::size(keys)];
        server_.validate_many(1, keys, verdicts);
        for (size_t i = 0; i < std::size(keys); ++i) {
            check(keys[i], static_cast<apikey_code>(verdicts[i].code));
        }
    }

    void after() override {
        daemon_.count_the_rest();
        expect(daemon_.counted_answers() == server_.answers(), "every answer is counted");
        expect(server_.valid() == 2 * kPasses, "as many pass as the limits have");
        server_.close();
    }

  private:
    void check(const ModelKey* key, apikey_code code) const {
        expect(
            code == APIKEY_VALID || code == (key == &counted_ ? APIKEY_USAGE_EXCEEDED : APIKEY_RATE_LIMITED),
            "a refusal is a limit's");
    }

    Daemon daemon_{InstanceMemory::get()};
    Server server_;
    ModelKey counted_{'a'};
    ModelKey timed_{'b'};
    std::vector<KeyRow> rows_;
};

}  // namespace
}  // namespace apikey::model

int main(int argc, char** argv) {
    return apikey::model::simulate<apikey::model::Moves>(argc, argv, 3);
}
