#include "client/metering.h"

#include <algorithm>
#include <cstring>

#include "client/limit_state.h"
#include "client/single_rate.h"
#include "shm/index_hash.h"

namespace apikey::client {
namespace {

constexpr uint64_t kSecond_ns = 1'000'000'000;

uint64_t fine_now_ns() {
    timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return static_cast<uint64_t>(now.tv_sec) * kSecond_ns + static_cast<uint64_t>(now.tv_nsec);
}

struct PeriodClock {
    shm::LimitKind kind;
    uint64_t operator()() const { return period_of(kind, coarse_now_ns()); }
};

/// What a limit's word is compared with.
uint64_t now_of(const shm::Limit& limit, uint64_t now_ns) {
    if (!is_rate(limit)) {
        return period_of(limit.kind, now_ns);
    }
    return (limit.flags & shm::kLimitFine) != 0 ? RateClock{true}() : now_ns / shm::kMeterUnit_ns;
}

/// The slot of the key in the generation before; kNoSlot when it has none there.
uint64_t index_before(const Mapping& mapping, const KeyPlace& place) {
    const shm::TableView& table = mapping.before.table;
    const uint64_t hash = place.id != nullptr ? shm::index_hash_id(place.id, table.hash_seed)
                                              : shm::index_hash_digest(place.digest, table.hash_seed);
    return shm::find_slot(table, hash, shm::DigestKey::from(place.digest)).index;
}

bool same_name(const shm::NameView& a, const shm::NameView& b) {
    return a.text != nullptr && b.text != nullptr && a.bytes == b.bytes &&
           std::memcmp(a.text, b.text, a.bytes) == 0;
}

/// The owner's number in the generation before; 0 when it has none there. Owners keep their order, so it is
/// looked for from where it was.
uint64_t owner_before(const Mapping& mapping, uint32_t owner) {
    const shm::TableView& now = mapping.generation.table;
    const shm::TableView& before = mapping.before.table;
    const shm::NameView name = shm::read_name(now, now.owners[owner].name);
    const uint64_t used = before.header().owners_used.load(std::memory_order_acquire);  // SYNC owner-named
    const uint64_t count = used < before.owner_count ? used : before.owner_count;
    for (uint64_t i = 0; i < count; ++i) {
        const uint64_t number = (owner + i) % count;
        if (number != 0 && same_name(name, shm::read_name(before, before.owners[number].name))) {
            return number;
        }
    }
    return 0;
}

/// The word that went on in the one with this number of the key or of its owner; nullptr when there is none.
shm::Word* word_before(const Mapping& mapping, const KeyPlace& place, uint8_t number, bool of_owner) {
    const shm::CellsView& cells = mapping.before.cells;
    if (cells.base == nullptr) {
        return nullptr;
    }
    if (of_owner) {
        const uint64_t owner = owner_before(mapping, place.policy->owner);
        return owner != 0 && owner < cells.owner_count ? &cells.owners[owner].words[number] : nullptr;
    }
    const uint64_t index = index_before(mapping, place);
    return index != shm::kNoSlot && number < cells.meter_words ? &cells.meter(index, number) : nullptr;
}

/// The meter word, with what the generation before has left of it. nullptr when the cells have none.
shm::Word* meter_word(const Mapping& mapping, const KeyPlace& place, uint8_t number, bool of_owner) {
    const shm::CellsView& cells = mapping.generation.cells;
    const bool there = of_owner ? place.policy->owner < cells.owner_count && number < shm::kMeterWordsMax
                                : number < cells.meter_words;
    if (!there) {
        return nullptr;
    }
    shm::Word& word =
        of_owner ? cells.owners[place.policy->owner].words[number] : cells.meter(place.index, number);
    // Of a generation that was published before it was mapped, 0 means that nothing was taken yet; of one
    // that was announced, that nobody has carried it over. That it was published since makes no difference:
    // then it was carried over, or nothing was ever taken. Relaxed: who takes or gives back looks again.
    if (mapping.before.table.base != nullptr && word.load(std::memory_order_relaxed) == 0) [[unlikely]] {
        if (shm::Word* before = word_before(mapping, place, number, of_owner)) {
            shm::carry_over(*before, word);
        }
    }
    return &word;
}

/// True when this generation's meters may have gone on to another one, for who has acquired a mark.
bool has_moved_on(const Mapping& mapping) {
    const uint64_t word = mapping.control.control->current_next.load(std::memory_order_relaxed);
    return shm::current_of(word) != mapping.current_while ||
           shm::next_of(word) > mapping.generation.table.generation;
}

/// What one charge has left.
apikey_limit state_of(const Charge& charge, uint32_t cost, uint64_t now_ns, bool refused) {
    const shm::Limit& limit = charge.limit;
    if (is_rate(limit)) {
        return state_of_rate(limit, charge.rate.ahead, cost, refused);
    }
    return state_of_quota(limit, charge.quota.used, cost, now_ns, refused);
}

bool is_shadow(const Charge& charge) {
    return (charge.limit.flags & shm::kLimitShadow) != 0;
}

Spent refusal(const Charge& charge) {
    return is_rate(charge.limit) ? Spent::kRateLimited : Spent::kUsageExceeded;
}

/// The one that refused, else the one with the smaller part left.
void keep_tighter(const apikey_limit& state, apikey_limit* tightest) {
    const auto part_left = [](const apikey_limit& limit) {
        return limit.allowance != 0
                   ? static_cast<double>(limit.remaining) / static_cast<double>(limit.allowance)
                   : 0.0;
    };
    if (tightest->name[0] == '\0' || state.retry_after_ms > tightest->retry_after_ms ||
        (state.retry_after_ms == tightest->retry_after_ms && part_left(state) < part_left(*tightest))) {
        *tightest = state;
    }
}

}  // namespace

uint64_t RateClock::operator()() const {
    return (fine ? fine_now_ns() : coarse_now_ns()) / shm::kMeterUnit_ns;
}

void tell_single_rate(const shm::Limit& stored, uint64_t ahead, uint32_t cost, bool refused,
                      apikey_limits* out) {
    out->rate = state_of_rate(shm::read_value(stored), ahead, cost, refused);
}

Spent Bill::add_plan(const Mapping& mapping, uint32_t plan, const KeyPlace& place, bool of_owner) {
    const shm::TableView& table = mapping.generation.table;
    const uint32_t body = shm::plan_body(table, plan);
    (of_owner ? shared_body_ : body_) = body;
    if (body == 0 || body == shm::kPlanElsewhere) {
        return Spent::kElsewhere;
    }
    const shm::ListReader<shm::Limit> limits(table, body);
    if (!limits.found() || limits.count() > shm::kMeterWordsMax) {
        return Spent::kElsewhere;
    }
    for (uint32_t i = 0; i < limits.count(); ++i) {
        Charge& charge = charges_[count_];
        charge.limit = limits.get(i);
        charge.of_owner = of_owner;
        charge.taken = charge.refused = false;
        if (!of_owner && place.policy->overrides != 0) {
            override_figures(table, *place.policy, &charge.limit);
        }
        charge.word = meter_word(mapping, place, charge.limit.word, of_owner);
        if (charge.word == nullptr || (is_rate(charge.limit) && charge.limit.interval == 0)) {
            return Spent::kElsewhere;
        }
        ++count_;
    }
    return Spent::kAll;
}

Spent Bill::draw_up(const Mapping& mapping, const KeyPlace& place) {
    count_ = 0;
    table_ = &mapping.generation.table;
    place_ = place;
    shared_ = shm::owner_plan(*table_, place.policy->owner);
    if (place.policy->plan == 0 && shared_ == 0) {
        return Spent::kAll;
    }
    if (mapping.generation.cells.base == nullptr) {
        return Spent::kNotMetered;
    }
    Spent found = Spent::kAll;
    if (place.policy->plan != 0) {
        found = add_plan(mapping, place.policy->plan, place, false);
    }
    if (shared_ != 0 && found == Spent::kAll) {
        found = add_plan(mapping, shared_, place, true);
    }
    return found;
}

shm::Taken Bill::look(Charge& charge, uint32_t cost) const {
    const shm::Limit& limit = charge.limit;
    const auto mine = [&] { return still_charged(charge); };
    return is_rate(limit)
               ? shm::look_at_rate(*charge.word, rate_of(limit), cost, charge.now,
                                   RateClock{(limit.flags & shm::kLimitFine) != 0}, &charge.rate.ahead, mine)
               : shm::look_at_quota(*charge.word, quota_of(limit), cost, charge.now, PeriodClock{limit.kind},
                                    &charge.quota.used, mine);
}

bool Bill::still_charged(const Charge& charge) const {
    const uint32_t owner = place_.policy->owner;
    return charge.of_owner
               ? shm::owner_plan(*table_, owner) == shared_ &&
                     shm::plan_body(*table_, shared_) == shared_body_
               : shm::key_has_plan(*table_, place_.index, place_.meta, place_.policy->plan, body_);
}

shm::Taken Bill::take(Charge& charge, uint32_t cost) const {
    const shm::Limit& limit = charge.limit;
    const auto mine = [&] { return still_charged(charge); };
    return is_rate(limit)
               ? shm::take_rate(*charge.word, rate_of(limit), cost, charge.now,
                                RateClock{(limit.flags & shm::kLimitFine) != 0}, &charge.rate, mine)
               : shm::take_quota(*charge.word, quota_of(limit), cost, charge.now, PeriodClock{limit.kind},
                                 &charge.quota, mine);
}

bool Bill::give_back(uint32_t cost, Owed* owed) {
    owed->count = 0;
    owed->cost = cost;
    for (uint32_t i = 0; i < count_; ++i) {
        Charge& charge = charges_[i];
        if (!charge.taken) {
            continue;
        }
        charge.taken = false;
        const bool given = is_rate(charge.limit) ? shm::give_back_rate(*charge.word, charge.rate)
                                                 : shm::give_back_quota(*charge.word, quota_of(charge.limit),
                                                                        charge.quota, cost);
        if (!given) {
            owed->charges[owed->count++] = charge;
        }
    }
    return owed->count == 0;
}

Spent Bill::spend(uint32_t cost, uint64_t now_ns, Owed* owed) {
    for (uint32_t i = 0; i < count_; ++i) {
        charges_[i].now = now_of(charges_[i].limit, now_ns);
    }
    // All are looked at before any is taken from, so that what is refused is rarely taken and given back.
    for (uint32_t i = 0; count_ > 1 && i < count_; ++i) {
        const shm::Taken passes = look(charges_[i], cost);
        if (passes == shm::Taken::kMoved || passes == shm::Taken::kStale) {
            return passes == shm::Taken::kMoved ? Spent::kMoved : Spent::kStale;
        }
        if (passes == shm::Taken::kNo && !is_shadow(charges_[i])) {
            charges_[i].refused = true;
            return refusal(charges_[i]);
        }
    }
    // Quotas first: they can be given back to the last request, a rate only while nobody else takes.
    for (const bool rates : {false, true}) {
        for (uint32_t i = 0; i < count_; ++i) {
            Charge& charge = charges_[i];
            if (is_rate(charge.limit) != rates) {
                continue;
            }
            const shm::Taken taken = take(charge, cost);
            charge.taken = taken == shm::Taken::kYes;
            charge.refused = taken == shm::Taken::kNo;
            if (taken == shm::Taken::kMoved || taken == shm::Taken::kStale ||
                (charge.refused && !is_shadow(charge))) {
                if (!give_back(cost, owed)) {
                    return Spent::kMovedOwing;
                }
                return taken == shm::Taken::kMoved   ? Spent::kMoved
                       : taken == shm::Taken::kStale ? Spent::kStale
                                                     : refusal(charge);
            }
        }
    }
    return Spent::kAll;
}

Spent Bill::look_at_all(uint32_t cost, uint64_t now_ns, Look* out) {
    Spent met = Spent::kAll;
    for (uint32_t i = 0; i < count_; ++i) {
        Charge& charge = charges_[i];
        charge.now = now_of(charge.limit, now_ns);
        const shm::Taken passes = look(charge, cost);
        if (passes == shm::Taken::kMoved) {
            return Spent::kMoved;
        }
        // By the plan that was read, also where it is another one by now.
        const bool refused = passes != shm::Taken::kYes;
        const bool shadow = is_shadow(charge);
        out[i] = {state_of(charge, cost, now_ns, refused), is_rate(charge.limit), charge.of_owner, shadow,
                  !refused};
        met = refused && !shadow && met == Spent::kAll ? refusal(charge) : met;
    }
    return met;
}

bool Bill::mend_scribbled(const Mapping& mapping) {
    for (uint32_t i = 0; i < count_; ++i) {
        // SYNC meter-moved: acquire, so that who meets a mark that is none of a scribbler's finds another
        // generation announced. Looked for at each word: the next one may be marked by now.
        uint64_t seen = charges_[i].word->load(std::memory_order_acquire);
        if ((seen & shm::kMovedBit) == 0) {
            continue;
        }
        if (has_moved_on(mapping)) {
            return false;
        }
        // Relaxed: takers look again.
        charges_[i].word->compare_exchange_strong(seen, 0, std::memory_order_relaxed,
                                                  std::memory_order_relaxed);
    }
    return true;
}

bool Bill::shadowed(bool rate) const {
    for (uint32_t i = 0; i < count_; ++i) {
        if (charges_[i].refused && is_rate(charges_[i].limit) == rate) {
            return true;
        }
    }
    return false;
}

bool Bill::enforces(bool rate) const {
    return std::any_of(charges_, charges_ + count_, [&](const Charge& charge) {
        return is_rate(charge.limit) == rate && !is_shadow(charge);
    });
}

void Bill::tell(uint32_t cost, uint64_t now_ns, Spent spent, apikey_limits* out) const {
    for (uint32_t i = 0; i < count_; ++i) {
        const Charge& charge = charges_[i];
        // Where one refused, others may not have been looked at. A shadow is told where nothing is enforced.
        if ((spent != Spent::kAll && !charge.refused) ||
            (is_shadow(charge) && enforces(is_rate(charge.limit)))) {
            continue;
        }
        keep_tighter(state_of(charge, cost, now_ns, charge.refused),
                     is_rate(charge.limit) ? &out->rate : &out->quota);
    }
}

bool Bill::pay_back(const Mapping& mapping, const KeyPlace& place, Owed* owed) {
    Owed left;
    left.count = 0;
    left.cost = owed->cost;
    for (uint32_t i = 0; i < owed->count; ++i) {
        Charge& charge = owed->charges[i];
        if (charge.of_owner && place.policy->owner == 0) {
            continue;  // shares with nobody any more
        }
        charge.word = meter_word(mapping, place, charge.limit.word, charge.of_owner);
        if (charge.word == nullptr) {
            continue;  // the limit is gone
        }
        const bool given = is_rate(charge.limit) ? shm::give_back_rate(*charge.word, charge.rate)
                                                 : shm::give_back_quota(*charge.word, quota_of(charge.limit),
                                                                        charge.quota, owed->cost);
        // SYNC meter-moved: acquire, so that who goes on from here finds the next generation announced.
        // Without a mark by now, the meter was begun anew, and there is nothing to give back.
        if (!given && (charge.word->load(std::memory_order_acquire) & shm::kMovedBit) != 0) {
            left.charges[left.count++] = charge;
        }
    }
    *owed = left;
    return left.count == 0;
}

}  // namespace apikey::client
