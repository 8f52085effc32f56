// Whether what passed was within limits: by the book, from what the lanes wrote of the clock.
//
// A limit of a key, or of an owner for all its keys, is an account. A change of it is told by begin_change()
// and end_change(): what passes in between may have passed by what was before or by what comes after, and so
// counts for both together in a quota, and not at all in a rate.

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "limit_tally.h"

namespace apikeyd::test {

struct AccountLimit {
    std::string name;       ///< as the plan has it
    uint64_t period_s = 0;  ///< of a quota; 0: a rate
    uint64_t requests = 0;  ///< a period, or a second
    uint64_t burst = 0;     ///< of a rate
};

class LimitLedger {
  public:
    /// Returns its number. `keys` are numbers of limited keys.
    size_t add(const std::string& whose, const AccountLimit& limit, const std::vector<size_t>& keys);
    const std::string& name(size_t account) const { return accounts_[account].limit.name; }

    /// From now on until end_change() it is not known what holds.
    void begin_change(size_t account);
    /// From now on `limit` holds. By another name it begins anew.
    void end_change(size_t account, const AccountLimit& limit);
    /// While nobody calls: all meters begin anew, whatever was taken.
    void forget(LimitTally& tally);

    /// Judges what was written up to a moment ago; all of it, when nobody calls.
    void collect(LimitTally& tally, bool all);
    /// While nobody calls, and all is collected: `remaining` of the quota were told to be left just now, when
    /// `lost` may have been spent that nobody knows of.
    void compare(size_t account, uint64_t remaining, uint64_t lost);

    /// What went wrong since the last call, a line each.
    std::vector<std::string> new_violations();
    uint64_t violations() const { return violations_; }
    /// Passes that took too long, or lay too near to a period's end, to say where they belong.
    uint64_t unjudged() const { return unjudged_; }
    uint64_t compared() const { return compared_; }

  private:
    struct Period {
        uint64_t passed = 0;
        uint64_t earlier = 0;  ///< what the quotas of other names allowed
        uint64_t allowed = 0;  ///< the most that the one of this name did
        bool certain = true;   ///< all that passed is known, and passed by what holds
    };
    struct Account {
        std::string whose;
        AccountLimit limit;
        uint64_t begun_ns = 0;    ///< what passed before is forgotten
        uint64_t since_ns = 0;    ///< when what holds began to
        uint64_t changes_ns = 0;  ///< when it may have ended to; 0: not
        // Of a rate, in billionths of requests.
        uint64_t backlog = 0;
        uint64_t last_ns = 0;
        uint64_t passed = 0;
        std::map<uint64_t, Period> periods;  ///< by their numbers
    };

    static void begin(Account& account);
    void judge(Account& account, const Pass& pass);
    void judge_rate(Account& account, const Pass& pass);
    void judge_quota(Account& account, const Pass& pass);
    static Period& period(Account& account, uint64_t time_ns);
    void violation(const Account& account, const std::string& what);

    std::vector<Account> accounts_;
    std::map<size_t, std::vector<size_t>> of_key_;  ///< accounts
    std::vector<Pass> waiting_;
    std::vector<std::string> told_;
    uint64_t violations_ = 0;
    uint64_t unjudged_ = 0;
    uint64_t compared_ = 0;
};

}  // namespace apikeyd::test
