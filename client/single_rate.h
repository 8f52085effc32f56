// The short way for what most limited keys have: one rate, of their own plan or of their owner's. It does
// what a Bill would, without copying limits and walking lists.

#pragma once

#include "client/metering.h"

namespace apikey::client {

/// Tells what is left of a rate that stands in the table.
void tell_single_rate(const shm::Limit& stored, uint64_t ahead, uint32_t cost, bool refused,
                      apikey_limits* out);

/// Spends `cost` of it. kAll or kRateLimited; kByBill for every other key, or when the meter has moved or is
/// another plan's.
/// `policy` stands in the table; of it and of the limit only what is used is read, a value at a time: copies
/// of either cost as much as all the rest. `out` (nullptr: not wanted) is all zeroes.
APIKEY_INLINE Spent spend_single_rate(const Mapping& mapping, const shm::Found& found,
                                      const shm::Policy& policy, uint32_t cost, uint64_t now_ns,
                                      apikey_limits* out) {
    const shm::TableView& table = mapping.generation.table;
    const shm::CellsView& cells = mapping.generation.cells;
    const uint32_t plan = shm::read_value(policy.plan);
    const uint32_t owner = shm::read_value(policy.owner);
    const uint32_t shared = shm::owner_plan(table, owner);
    const bool of_owner = plan == 0;
    if ((!of_owner && shared != 0) || shm::read_value(policy.overrides) != 0 ||
        mapping.before.table.base != nullptr) [[unlikely]] {
        return Spent::kByBill;
    }
    const uint32_t body = shm::plan_body(table, of_owner ? shared : plan);
    const shm::ListReader<shm::Limit> limits(table, body);  // none for kPlanElsewhere
    if (limits.count() != 1) [[unlikely]] {
        return Spent::kByBill;
    }
    const shm::Limit& limit = limits.stored(0);
    const shm::Rate rate{shm::read_value(limit.tag), shm::read_value(limit.interval),
                         shm::read_value(limit.allowance)};
    const uint8_t number = shm::read_value(limit.word);
    const bool metered =
        of_owner ? owner < cells.owner_count && number < shm::kMeterWordsMax : number < cells.meter_words;
    if (shm::read_value(limit.kind) != shm::LimitKind::kRate || shm::read_value(limit.flags) != 0 ||
        rate.interval == 0 || !metered) [[unlikely]] {
        return Spent::kByBill;
    }
    shm::Word& word = of_owner ? cells.owners[owner].words[number] : cells.meter(found.index, number);
    shm::RateTaking taking;
    // Another plan's word is the Bill's to look into: to capture what that takes costs a third of all this.
    const auto mine = [] { return false; };
    const shm::Taken taken =
        shm::take_rate(word, rate, cost, now_ns / shm::kMeterUnit_ns, RateClock{false}, &taking, mine);
    if (taken == shm::Taken::kMoved || taken == shm::Taken::kStale) [[unlikely]] {
        return Spent::kByBill;
    }
    const bool refused = taken == shm::Taken::kNo;
    if (out != nullptr) {
        tell_single_rate(limit, taking.ahead, cost, refused, out);
    }
    return refused ? Spent::kRateLimited : Spent::kAll;
}

}  // namespace apikey::client
