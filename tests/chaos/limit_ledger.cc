#include "limit_ledger.h"

#include <algorithm>
#include <ctime>
#include <utility>

namespace apikeyd::test {
namespace {

constexpr uint64_t kSecond_ns = 1'000'000'000;
/// A pass is judged by its place in time when the call took no longer than this.
constexpr uint64_t kCall_ns = 10'000'000;
/// What comes later than this is too late to be put in its place.
constexpr uint64_t kLate_ns = 100'000'000;
constexpr size_t kToldMax = 16;

uint64_t now_ns(clockid_t clock = CLOCK_REALTIME) {
    timespec now{};
    clock_gettime(clock, &now);
    return static_cast<uint64_t>(now.tv_sec) * kSecond_ns + static_cast<uint64_t>(now.tv_nsec);
}

/// Of the coarse clock.
uint64_t tick_ns() {
    timespec tick{};
    clock_getres(CLOCK_REALTIME_COARSE, &tick);
    return static_cast<uint64_t>(tick.tv_nsec);
}

}  // namespace

size_t LimitLedger::add(const std::string& whose, const AccountLimit& limit,
                        const std::vector<size_t>& keys) {
    Account account;
    account.whose = whose;
    account.limit = limit;
    begin(account);
    accounts_.push_back(std::move(account));
    for (const size_t key : keys) {
        of_key_[key].push_back(accounts_.size() - 1);
    }
    return accounts_.size() - 1;
}

/// While nobody calls.
void LimitLedger::begin(Account& account) {
    account.begun_ns = now_ns(CLOCK_REALTIME_COARSE);  // no later than what any call reads from now on
    account.since_ns = account.last_ns = now_ns();
    account.backlog = account.passed = 0;
    account.periods.clear();
}

void LimitLedger::begin_change(size_t number) {
    Account& account = accounts_[number];
    account.changes_ns = now_ns();
    if (account.limit.period_s != 0) {
        period(account, account.changes_ns).certain = false;
    }
}

void LimitLedger::end_change(size_t number, const AccountLimit& limit) {
    Account& account = accounts_[number];
    const bool renamed = account.limit.name != limit.name;
    account.limit = limit;
    account.since_ns = account.last_ns = now_ns();
    account.changes_ns = 0;
    account.backlog = account.passed = 0;
    if (limit.period_s != 0) {
        Period& now = period(account, account.since_ns);
        now.certain = false;
        if (renamed) {
            now.earlier += std::exchange(now.allowed, 0);
        }
        now.allowed = std::max(now.allowed, limit.requests);
    }
}

void LimitLedger::forget(LimitTally& tally) {
    tally.take();
    tally.forget_lost();
    waiting_.clear();
    for (Account& account : accounts_) {
        begin(account);
    }
}

/// That this time lies in.
LimitLedger::Period& LimitLedger::period(Account& account, uint64_t time_ns) {
    const auto [found, is_new] = account.periods.try_emplace(time_ns / kSecond_ns / account.limit.period_s);
    if (is_new) {
        found->second.allowed = account.limit.requests;
    }
    return found->second;
}

void LimitLedger::collect(LimitTally& tally, bool all) {
    const uint64_t until_ns = now_ns() - kLate_ns;
    const std::vector<Pass> written = tally.take();
    waiting_.insert(waiting_.end(), written.begin(), written.end());
    std::sort(waiting_.begin(), waiting_.end(),
              [](const Pass& a, const Pass& b) { return a.after_ns < b.after_ns; });
    const auto end = all ? waiting_.end()
                         : std::find_if(waiting_.begin(), waiting_.end(),
                                        [&](const Pass& pass) { return pass.after_ns > until_ns; });
    for (auto pass = waiting_.begin(); pass != end; ++pass) {
        for (const size_t account : of_key_[pass->key]) {
            judge(accounts_[account], *pass);
        }
    }
    waiting_.erase(waiting_.begin(), end);
}

void LimitLedger::judge(Account& account, const Pass& pass) {
    if (pass.before_ns < account.begun_ns) {
        return;
    }
    account.limit.period_s == 0 ? judge_rate(account, pass) : judge_quota(account, pass);
}

/// In any window of the times that calls may have read: a leaky bucket, which holds what calls may be apart
/// from where they are put, and a tick, beside the burst.
void LimitLedger::judge_rate(Account& account, const Pass& pass) {
    if (pass.before_ns < account.since_ns ||
        (account.changes_ns != 0 && pass.after_ns >= account.changes_ns)) {
        return;
    }
    const uint64_t rate = account.limit.requests;
    const uint64_t burst = account.limit.burst * kSecond_ns;
    account.passed += pass.cost * kSecond_ns;
    if (account.passed > burst + rate * (pass.after_ns - account.since_ns + tick_ns())) {
        violation(account, std::to_string(account.passed / kSecond_ns) + " passed since its beginning, " +
                               std::to_string((pass.after_ns - account.since_ns) / 1'000'000) + " ms");
    }
    if (pass.after_ns - pass.before_ns > kCall_ns || pass.after_ns < account.last_ns) {
        ++unjudged_;
        return;
    }
    const uint64_t drained = rate * (pass.after_ns - account.last_ns);
    account.backlog = (account.backlog > drained ? account.backlog - drained : 0) + pass.cost * kSecond_ns;
    account.last_ns = pass.after_ns;
    if (account.backlog > burst + rate * (kCall_ns + tick_ns())) {
        violation(account, "a window was passed by " +
                               std::to_string((account.backlog - burst - rate * (kCall_ns + tick_ns())) /
                                              (kSecond_ns / 1000)) +
                               " thousandths of a request");
    }
}

void LimitLedger::judge_quota(Account& account, const Pass& pass) {
    Period& first = period(account, pass.before_ns);
    Period& last = period(account, pass.after_ns + kCall_ns);  // whose clock may be a tick ahead
    if (&first != &last) {
        ++unjudged_;
        first.certain = last.certain = false;
        return;
    }
    first.passed += pass.cost;
    if (first.passed > first.earlier + first.allowed) {
        violation(account, std::to_string(first.passed) + " passed of " +
                               std::to_string(first.earlier + first.allowed));
    }
}

void LimitLedger::compare(size_t number, uint64_t remaining, uint64_t lost) {
    Account& account = accounts_[number];
    const Period& now = period(account, now_ns());
    if (!now.certain) {
        return;
    }
    ++compared_;
    const uint64_t spent = account.limit.requests - std::min(remaining, account.limit.requests);
    if (spent < now.passed || spent - now.passed > lost) {
        violation(account, std::to_string(spent) + " are spent of " + std::to_string(account.limit.requests) +
                               ", " + std::to_string(now.passed) + " passed and at most " +
                               std::to_string(lost) + " were lost with who was killed");
    }
}

void LimitLedger::violation(const Account& account, const std::string& what) {
    ++violations_;
    if (told_.size() < kToldMax) {
        told_.push_back(account.whose + ", limit " + account.limit.name + ": " + what);
    }
}

std::vector<std::string> LimitLedger::new_violations() {
    return std::exchange(told_, {});
}

}  // namespace apikeyd::test
