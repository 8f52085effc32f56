// Two takers of a key's limits, and a daemon that gives the key another plan, whose limits have the same
// words: a quota with another tag, one of another kind whose tag happens to be the same, and a rate with
// other figures.
//
// Promise: neither plan's limits pass more than their maximum, also where a taker was halted between its look
// at the key's plan and the word.

#include "shm/meters.h"

#include "tests/model/simulation.h"

namespace apikey::model {
namespace {

// By the plan's number.
constexpr shm::Quota kQuotas[] = {{3, 3}, {4, 2}};
constexpr uint64_t kPeriod = 1000;
constexpr shm::Quota kAlike[] = {{3, 3}, {3, 2}};
constexpr uint64_t kPeriods[] = {1000, 200};  // as of a day's and of a month's
constexpr shm::Rate kRates[] = {{3, 10, 10}, {3, 10, 20}};
constexpr uint64_t kBursts[] = {1, 2};
constexpr uint64_t kNow = 5000;

class PlanChange : public Scenario {
  public:
    void thread(unsigned number) override {
        if (number == 0) {
            plan_.store(1, std::memory_order_release);  // as a slot's meta
        } else {
            for (int i = 0; i < 2; ++i) {
                take(number - 1);
            }
        }
    }

    void after() override {
        for (const unsigned plan : {0u, 1u}) {
            const auto sum = [&](Limit limit) { return passed_[0][plan][limit] + passed_[1][plan][limit]; };
            expect(sum(kQuota) <= kQuotas[plan].max, "a quota is not passed");
            expect(sum(kAlikeQuota) <= kAlike[plan].max, "a quota is not passed whose tag another one has");
            expect(sum(kRate) <= kBursts[plan], "a burst is not passed");
        }
    }

  private:
    enum Limit : uint8_t { kQuota, kAlikeQuota, kRate, kLimits };

    /// As requests, one for each limit: looked up, and again when its plan is another one.
    void take(unsigned thread) {
        for (const Limit limit : {kQuota, kAlikeQuota, kRate}) {
            for (;;) {
                const uint64_t plan = plan_.load(std::memory_order_acquire);
                const shm::Taken taken = take(limit, plan);
                if (taken != shm::Taken::kStale) {
                    passed_[thread][plan][limit] += taken == shm::Taken::kYes ? 1 : 0;
                    break;
                }
            }
        }
    }
    shm::Taken take(Limit limit, uint64_t plan) {
        const auto mine = [&] { return plan_.load(std::memory_order_relaxed) == plan; };
        shm::QuotaTaking quota;
        shm::RateTaking rate;
        switch (limit) {
            case kQuota:
                return shm::take_quota(
                    words_[limit], kQuotas[plan], 1, kPeriod, [] { return kPeriod; }, &quota, mine);
            case kAlikeQuota:
                return shm::take_quota(
                    words_[limit], kAlike[plan], 1, kPeriods[plan], [&] { return kPeriods[plan]; }, &quota,
                    mine);
            default:
                // As who has more than one limit.
                uint64_t ahead = 0;
                const shm::Taken passes = shm::look_at_rate(
                    words_[limit], kRates[plan], 1, kNow, [] { return kNow; }, &ahead, mine);
                return passes != shm::Taken::kYes
                           ? passes
                           : shm::take_rate(
                                 words_[limit], kRates[plan], 1, kNow, [] { return kNow; }, &rate, mine);
        }
    }

    shm::Atomic<uint64_t> plan_{0};
    shm::Word words_[kLimits] = {};
    unsigned passed_[2][2][kLimits] = {};  // by taker and plan
};

}  // namespace
}  // namespace apikey::model

int main(int argc, char** argv) {
    return apikey::model::simulate<apikey::model::PlanChange>(argc, argv, 3);
}
