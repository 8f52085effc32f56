// The keys of chaos that have limits: which, what passes of them, and whether it may.
//
// Some have plans that stay as they are, in every form: a rate, one of the fine clock, a quota, several at
// once, others for each key, shared by an owner's keys. Of these a quota's remainder is compared with what
// passed. The plan of the others changes its figures, and now and then its limits' names.

#pragma once

#include <string>
#include <vector>

#include "limit_ledger.h"
#include "limit_tally.h"
#include "support/key_book.h"
#include "support/site.h"

namespace apikeyd::test {

class LimitedKeys {
  public:
    static constexpr size_t kKeys = 28;

    /// `first`: how many keys the book draws before. `lanes` are the clients'; the operator has one more.
    LimitedKeys(size_t first, unsigned lanes)
        : first_(first), lanes_(lanes), tally_(first, kKeys, lanes + 1) {}

    LimitWitness* witness() { return &tally_; }
    size_t first() const { return first_; }
    void lane_ended(unsigned lane) { tally_.lane_ended(lane); }

    /// Puts the keys into the book.
    void draw(KeyBook& book);
    /// From here on what passes is judged. The key set is in force, and nobody has called.
    void begin();
    void begin_change(KeyBook& book);
    void end_change();
    void collect(bool all) { ledger_.collect(tally_, all); }
    /// While nobody calls: asks for one key of each quota that did not change what is left.
    void compare(KeyBoard& board, apikey_client* client);
    /// While nobody calls, and no generation is on its way: begins all meters of the current one anew.
    void begin_anew(const Site& site);

    const LimitTally& tally() const { return tally_; }
    LimitLedger& ledger() { return ledger_; }
    const LimitLedger& ledger() const { return ledger_; }

  private:
    struct Holder {
        std::string whose;
        std::vector<size_t> keys;
        std::vector<AccountLimit> limits;
    };
    struct Account {
        size_t number;
        std::vector<size_t> keys;
        bool is_quota;
    };

    std::vector<AccountLimit> changing_limits() const;
    std::string head() const;
    void add(const Holder& holder, std::vector<Account>* accounts);

    size_t first_;
    unsigned lanes_;
    LimitTally tally_;
    LimitLedger ledger_;
    std::vector<Holder> steady_;
    std::vector<Holder> changing_;
    std::vector<Account> steady_accounts_;
    std::vector<Account> changing_accounts_;
    unsigned version_ = 0;
};

}  // namespace apikeyd::test
