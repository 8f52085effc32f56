// Two takers of a key's quota, and a daemon that gives the key another plan, whose quota has the same word.
//
// Promise: neither plan's quota passes more than its maximum, also where a taker was halted between its look
// at the key's plan and the word.

#include "shm/meters.h"

#include "tests/model/simulation.h"

namespace apikey::model {
namespace {

constexpr uint64_t kPeriod = 1000;
constexpr shm::Quota kQuotas[] = {{3, 3}, {4, 2}};  // by the plan's number

class PlanChange : public Scenario {
  public:
    void thread(unsigned number) override {
        if (number == 0) {
            plan_.store(1, std::memory_order_release);  // as a slot's meta
        } else {
            for (int i = 0; i < 3; ++i) {
                take(number - 1);
            }
        }
    }

    void after() override {
        for (const unsigned plan : {0u, 1u}) {
            expect(passed_[0][plan] + passed_[1][plan] <= kQuotas[plan].max, "a quota is not passed");
        }
    }

  private:
    /// As a request: looked up, and again when its plan is another one.
    void take(unsigned thread) {
        for (;;) {
            const uint64_t plan = plan_.load(std::memory_order_acquire);
            shm::QuotaTaking taking;
            const shm::Taken taken = shm::take_quota(
                word_, kQuotas[plan], 1, kPeriod, [] { return kPeriod; }, &taking,
                [&] { return plan_.load(std::memory_order_relaxed) == plan; });
            if (taken != shm::Taken::kStale) {
                passed_[thread][plan] += taken == shm::Taken::kYes ? 1 : 0;
                return;
            }
        }
    }

    shm::Atomic<uint64_t> plan_{0};
    shm::Word word_{0};
    unsigned passed_[2][2] = {};
};

}  // namespace
}  // namespace apikey::model

int main(int argc, char** argv) {
    return apikey::model::simulate<apikey::model::PlanChange>(argc, argv, 3);
}
