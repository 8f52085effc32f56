// Two takers of a rate and of a quota, one of which gives back what it took, the other looks before it takes
// and goes over to the announced generation without having met a mark, while the clock runs and the meters
// are carried over there.
//
// Promises: in any window of the times that the takers read, a rate passes no more than its burst and what
// the time allows; a quota passes no more than its maximum in a period, and exactly that where takers enough
// come; what was given back is there for others.

#include "shm/meters.h"

#include <vector>

#include "tests/model/simulation.h"

namespace apikey::model {
namespace {

constexpr uint64_t kTag = 3;
constexpr uint64_t kStart = 1000;
constexpr shm::Rate kRate{kTag, 10, 20};  // a burst of 2
constexpr shm::Quota kQuota{kTag, 2};

class Meters : public Scenario {
  public:
    void thread(unsigned number) override {
        if (number == 0) {
            run_clock();
        } else {
            for (int i = 0; i < 3; ++i) {
                take(number - 1, number == 2 && i == 1);
            }
        }
    }

    void after() override {
        check_rate();
        for (const uint64_t period : {kStart, kStart + 1, kStart + 2}) {
            uint64_t used = 0;
            for (const std::vector<uint64_t>& periods : charged_) {
                for (const uint64_t charged : periods) {
                    used += charged == period ? 1 : 0;
                }
            }
            expect(used <= kQuota.max, "a quota is not passed");
        }
    }

  private:
    /// Longer than a window, longer than a period.
    void run_clock() {
        for (int step = 0; step < 2; ++step) {
            time_.fetch_add(30, std::memory_order_relaxed);
            period_.fetch_add(1, std::memory_order_relaxed);
        }
        shm::carry_over(rate_word_, next_rate_word_);
        shm::carry_over(quota_word_, next_quota_word_);
    }
    // A look at the clock sees what any look before it saw, and orders nothing.
    uint64_t time() { return time_.load(std::memory_order_relaxed); }
    uint64_t period() { return period_.load(std::memory_order_relaxed); }

    /// As who has more than one limit does before any is taken from.
    void look() {
        uint64_t ahead = 0;
        uint64_t used = 0;
        shm::look_at_rate(
            rate_word_, kRate, 1, kStart, [&] { return time(); }, &ahead);
        shm::look_at_quota(
            quota_word_, kQuota, 1, kStart, [&] { return period(); }, &used);
    }

    /// As who has the announced generation mapped.
    static shm::Word& carried(shm::Word& from, shm::Word& to) {
        if (to.load(std::memory_order_relaxed) == 0) {
            shm::carry_over(from, to);
        }
        return to;
    }

    void take(unsigned thread, bool from_next) {
        if (thread == 1) {
            look();
        }
        uint64_t now = time();
        shm::RateTaking rate;
        const auto take_from = [&](shm::Word& word) {
            return shm::take_rate(
                word, kRate, 1, now, [&] { return now = time(); }, &rate);
        };
        shm::Taken taken = take_from(from_next ? carried(rate_word_, next_rate_word_) : rate_word_);
        if (taken == shm::Taken::kMoved) {
            shm::carry_over(rate_word_, next_rate_word_);
            taken = take_from(next_rate_word_);
        }
        const uint64_t mine = period();
        shm::QuotaTaking quota;
        const auto charge = [&](shm::Word& word) {
            return shm::take_quota(
                word, kQuota, 1, mine, [&] { return period(); }, &quota);
        };
        shm::Taken counted = charge(from_next ? carried(quota_word_, next_quota_word_) : quota_word_);
        if (counted == shm::Taken::kMoved) {
            shm::carry_over(quota_word_, next_quota_word_);
            counted = charge(next_quota_word_);
        }
        if (thread == 0 && given_back_++ == 0) {
            if (counted == shm::Taken::kYes && !shm::give_back_quota(quota_word_, kQuota, quota, 1)) {
                shm::carry_over(quota_word_, next_quota_word_);
                expect(shm::give_back_quota(next_quota_word_, kQuota, quota, 1), "there it stays");
            }
            if (taken == shm::Taken::kYes && !shm::give_back_rate(rate_word_, rate)) {
                shm::carry_over(rate_word_, next_rate_word_);
                expect(shm::give_back_rate(next_rate_word_, rate), "there it stays");
            }
            return;
        }
        if (taken == shm::Taken::kYes) {
            passed_[thread].push_back(now);
        }
        if (counted == shm::Taken::kYes) {
            charged_[thread].push_back(quota.period);
        }
    }

    void check_rate() {
        std::vector<uint64_t> passed = passed_[0];
        passed.insert(passed.end(), passed_[1].begin(), passed_[1].end());
        for (const uint64_t from : passed) {
            for (const uint64_t to : passed) {
                uint64_t count = 0;
                for (const uint64_t one : passed) {
                    count += from <= one && one <= to ? 1 : 0;
                }
                expect(from > to || count <= (kRate.window + to - from) / kRate.interval,
                       "a rate passes its burst and what the time allows");
            }
        }
    }

    shm::Atomic<uint64_t> time_{kStart};
    shm::Atomic<uint64_t> period_{kStart};
    shm::Word rate_word_{0};
    shm::Word next_rate_word_{0};
    shm::Word quota_word_{0};
    shm::Word next_quota_word_{0};
    unsigned given_back_ = 0;  // of thread 0 alone
    std::vector<uint64_t> passed_[2];
    std::vector<uint64_t> charged_[2];
};

}  // namespace
}  // namespace apikey::model

int main(int argc, char** argv) {
    return apikey::model::simulate<apikey::model::Meters>(argc, argv, 3);
}
