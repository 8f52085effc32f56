// What a request spends of its key's limits: all of them or none.

#pragma once

#include "client/client.h"
#include "shm/meters.h"
#include "shm/policy_reader.h"

namespace apikey::client {

/// Where a request's key stands in a mapping.
struct KeyPlace {
    uint64_t index;         ///< of the slot
    const uint8_t* digest;  ///< of the presented key, whole
    const char* id;         ///< of the native form; nullptr: found by its digest
    uint64_t meta;          ///< of the slot, by which `policy` was found
    const shm::Policy* policy;
};

/// How spending ended.
enum class Spent : uint8_t {
    kAll,
    kRateLimited,    ///< nothing was spent
    kUsageExceeded,  ///< nothing was spent
    kMoved,          ///< the meters have gone on to the next generation; nothing was spent
    kMovedOwing,     ///< the same, but for what is owed
    kElsewhere,      ///< this generation cannot tell what the plan is
    kStale,          ///< the key or its owner has another plan meanwhile; nothing was spent
    kNotMetered,     ///< the meters cannot be written
    kByBill,         ///< nothing was spent: it takes a Bill to tell (single_rate.h)
};

/// One limit that a request has to pass, and what was taken of it.
struct Charge {
    shm::Word* word;
    shm::Limit limit;
    uint64_t now;  ///< units of the rate's clock, or the quota's period
    bool of_owner;
    bool taken;
    bool refused;  ///< would have been, in shadow mode
    union {
        shm::RateTaking rate;
        shm::QuotaTaking quota;
    };
};

/// Units of the clock that a rate is metered by: a window shorter than some ticks of the coarse one would
/// pass one burst a tick.
struct RateClock {
    bool fine;
    uint64_t operator()() const;
};

/// A request's charges, in the order of the plan, the key's own first.
class Bill {
  public:
    /// What of a request that met a moved meter was taken and could not be given back there. Says something
    /// only after kMovedOwing.
    struct Owed {
        uint32_t count;
        uint32_t cost;
        Charge charges[2 * shm::kMeterWordsMax];
    };

    /// What one charge says to a request that is not made.
    struct Look {
        apikey_limit state;  ///< as it is, with nothing of the request taken
        bool rate;           ///< else a quota
        bool of_owner;
        bool shadow;
        bool passes;
    };

    /// Finds the limits of the key's plan and its owner's. kAll: they are found, and nothing is spent yet.
    Spent draw_up(const Mapping& mapping, const KeyPlace& place);
    uint32_t count() const { return count_; }

    /// Spends `cost` of each, or of none. `now_ns` is the coarse clock's. With kMovedOwing, `owed` has what
    /// is to be given back in the next generation.
    Spent spend(uint32_t cost, uint64_t now_ns, Owed* owed);
    /// Looks at each and takes nothing; `out` has room for all of them. kAll, what the first that refuses
    /// makes of the request, or kMoved.
    Spent look_at_all(uint32_t cost, uint64_t now_ns, Look* out);
    /// After kMoved: begins those meters anew that are marked as moved and cannot be, by somebody who
    /// scribbled on them. False: they have moved indeed.
    bool mend_scribbled(const Mapping& mapping);
    /// True when a limit in shadow mode would have refused; of a rate, else of a quota.
    bool shadowed(bool rate) const;
    /// Tells what is left, after spend(), in `out`, which is all zeroes. Of limits in shadow mode only where
    /// the key has no other rate, or no other quota: what callers are told is what holds for them.
    void tell(uint32_t cost, uint64_t now_ns, Spent spent, apikey_limits* out) const;

    /// Gives back what is owed, in the generation that the key's meters have gone on to. False: these have
    /// gone on, too; `owed` has what is left.
    static bool pay_back(const Mapping& mapping, const KeyPlace& place, Owed* owed);

  private:
    Spent add_plan(const Mapping& mapping, uint32_t plan, const KeyPlace& place, bool of_owner);
    shm::Taken look(Charge& charge, uint32_t cost) const;
    shm::Taken take(Charge& charge, uint32_t cost) const;
    /// Whether a rate, else a quota, is not in shadow mode.
    bool enforces(bool rate) const;
    /// Whether the plan that this charge is of still is the key's, or its owner's.
    bool still_charged(const Charge& charge) const;
    /// False: there is something owed.
    bool give_back(uint32_t cost, Owed* owed);

    const shm::TableView* table_ = nullptr;
    KeyPlace place_{};
    uint32_t body_ = 0;         ///< of the key's plan
    uint32_t shared_ = 0;       ///< the owner's plan
    uint32_t shared_body_ = 0;  ///< of that
    uint32_t count_ = 0;
    Charge charges_[2 * shm::kMeterWordsMax];
};

}  // namespace apikey::client
