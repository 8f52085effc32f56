// Quota words of a generation as counts for the usage store, and back into words after a reboot.

#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <boost/unordered/unordered_flat_set.hpp>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "shm/generation.h"
#include "usage/usage_store.h"

namespace apikeyd {

/// A quota of a plan in a table, as its meter words know it.
struct PlanQuota {
    QuotaName name;
    uint64_t tag;
    uint32_t word;
};

/// What the plans of a table say of quotas. Not thread-safe; the table may be changed meanwhile.
class PlanQuotas {
  public:
    /// Those of the plan as it is now; kept here, and in their place, also when it is moved.
    const std::vector<PlanQuota>& of(const apikey::shm::TableView& table, uint32_t plan);

  private:
    boost::unordered_flat_map<uint32_t, std::vector<PlanQuota>> by_list_;  // which never changes
};

/// One sweep's look at the quota words of those who were counted. Cells are clients' to scribble on: what is
/// taken from them is a count below 2^34 of this period or the next, and whose it is comes from the table.
class QuotaSweep {
  public:
    explicit QuotaSweep(uint64_t now_ns);

    /// Those of the key in a slot with this meta. To be called after the cell's sums were read, so that what
    /// was counted is in them; its owner is looked at by note_owners().
    void note_key(const apikey::shm::Generation& generation, uint64_t index, uint64_t meta);
    /// Those of the owners of all keys that were noted, after all cells' sums were read.
    void note_owners(const apikey::shm::Generation& generation);

    /// Views into this object, and into the generation, which must outlive it.
    const std::vector<QuotaCount>& counts() const { return counts_; }

  private:
    void note(const PlanQuota& quota, std::string_view holder, bool of_owner, uint64_t word);

    uint64_t present_[4];  // numbers of periods, by LimitKind
    PlanQuotas plans_;
    boost::unordered_flat_set<uint32_t> owners_;
    std::vector<QuotaCount> counts_;
};

/// What the usage store says was taken, for a generation whose meters come from no other one.
class StoredQuotas {
  public:
    void add(const QuotaCount& count);
    /// Puts it into the words of keys and owners. The generation was not announced yet.
    void install(const apikey::shm::Generation& generation) const;

  private:
    struct Taken {
        uint32_t period;
        uint64_t used;
    };
    const Taken* of_key(const KeyDigest& digest, const PlanQuota& quota) const;
    const Taken* of_owner(const std::string& name, const PlanQuota& quota) const;

    /// Quotas have numbers here: there are few, and many keys.
    boost::unordered_flat_map<std::string, uint32_t> numbers_;
    boost::unordered_flat_map<std::pair<uint32_t, KeyDigest>, Taken> of_keys_;
    boost::unordered_flat_map<std::pair<uint32_t, std::string>, Taken> of_owners_;
};

}  // namespace apikeyd
