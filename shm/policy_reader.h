// What many keys share, as readers see it: scopes, address lists, plans and their limits.
//
// Thread safety: any number of readers in any number of processes; one writer (PolicyWriter).
//
// Invariants
//  1. A policy, a list and a name are complete before anything leads there, and never change.
//  2. What a plan says changes by one store of its slot's body, for all its keys at once.
//                                                                                   (SYNC plan-published)
//
// What is read is copied, bounded by the mapping: a hostile segment can make a reader answer wrongly, but not
// crash or loop.

#pragma once

#include "shm/table_reader.h"

namespace apikey::shm {

/// A value that stands in the table, read once.
template <typename Value>
inline Value read_value(const Value& stored) {
    Value value;
    read_plain(&value, &stored, sizeof value);
    return value;
}

/// Where the policy stands that a meta names. The meta was loaded with acquire, so the entry is complete.
inline const Policy& stored_policy(const TableView& table, uint64_t meta) {
    const uint32_t index = Meta::policy(meta);
    // One beyond the area grants nothing, as entry 0.
    return table.policies[index < table.policy_count ? index : 0];
}
inline void read_policy(const TableView& table, uint64_t meta, Policy* out) {
    *out = read_value(stored_policy(table, meta));
}

/// A list in the details, whose elements are copied one by one.
template <typename Element>
class ListReader {
  public:
    /// Empty where the reference leads to none, or to one that does not fit the file.
    ListReader(const TableView& table, uint32_t reference) {
        const uint64_t at = uint64_t{reference} * kDetailUnit;
        if (reference == 0 || at + sizeof head_ > table.details_bytes) {
            return;
        }
        PolicyList head{};
        read_plain(&head, table.details + at, sizeof head);
        if (head.count <= (table.details_bytes - at - sizeof head) / sizeof(Element)) {
            head_ = head;
            elements_ = table.details + at + sizeof head;
        }
    }
    bool found() const { return elements_ != nullptr; }
    uint32_t count() const { return head_.count; }
    uint32_t words_used() const { return head_.words_used; }
    Element get(uint32_t number) const { return read_value(stored(number)); }
    /// Where it stands in the table.
    const Element& stored(uint32_t number) const {
        return *reinterpret_cast<const Element*>(elements_ + number * sizeof(Element));
    }

  private:
    PolicyList head_{};
    const uint8_t* elements_ = nullptr;
};

/// What a plan says now: a reference to its list of Limits, kPlanElsewhere, or 0 for no such plan.
inline uint32_t plan_body(const TableView& table, uint32_t plan) {
    // SYNC plan-published: acquire; pairs with PolicyWriter::set_plan(). The list is complete.
    return plan != 0 && plan < table.plan_count ? table.plans[plan].body.load(std::memory_order_acquire) : 0;
}

/// The plan whose limits an owner's keys share; 0: none.
inline uint32_t owner_plan(const TableView& table, uint32_t owner) {
    // SYNC plan-published: acquire; pairs with PolicyWriter::set_owner().
    return owner != 0 && owner < table.owner_count ? table.owners[owner].plan.load(std::memory_order_acquire)
                                                   : 0;
}

/// Whether a key that had this meta and a plan with this body still has both. Relaxed and acquire: SYNC
/// meter-owner.
inline bool key_has_plan(const TableView& table, uint64_t index, uint64_t meta, uint32_t plan,
                         uint32_t body) {
    return table.slots[index].meta.load(std::memory_order_relaxed) == meta && plan_body(table, plan) == body;
}

}  // namespace apikey::shm
