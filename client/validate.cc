// The hot path: from presented bytes to a counted verdict.
//
// One key:  mapping -> id -> index hash -> prefetch slot and cell -> SHA-256 -> probe -> state, expiry ->
// environment, address, scopes -> limits -> count. A batch does each step for a group of keys before the next
// step, so that their cache misses overlap.
//
// No branch depends on a secret: the key's bytes go into SHA-256, and digests are compared without an early
// exit.

#include <sched.h>

#include <cstring>

#include "client/denial.h"
#include "client/settle.h"
#include "client/validate.h"
#include "shm/index_hash.h"
#include "shm/key_form.h"

namespace apikey::client {
namespace {

static_assert(APIKEY_KEY_MIN == shm::kForeignKeyLengthMin && APIKEY_KEY_MAX == shm::kKeyLengthMax);
static_assert(APIKEY_ID_LENGTH == shm::kIdLength);
static_assert(APIKEY_UNAVAILABLE < shm::kCodesMax);

/// A host that has refreshed within this time has a housekeeping that switches for its requests.
constexpr uint64_t kHousekeepingMax_ns = 2500000000;
constexpr unsigned kSwitchesMax = 4;  // a call follows at most so many publications
constexpr size_t kGroup = 16;         // keys of a batch whose misses overlap; 32 were slower by a tenth

uint64_t verdict_tag(const shm::DigestKey& key, uint32_t generation) {
    return static_cast<uint64_t>(generation) << 32 | key.tag;
}

void clear_verdict(apikey_verdict* verdict, apikey_code code, uint32_t flags) {
    std::memset(verdict, 0, sizeof *verdict);
    verdict->code = code;
    verdict->flags = flags;
}

APIKEY_INLINE void fill_verdict(apikey_verdict* verdict, apikey_code code, uint32_t flags,
                                const Moment& moment, const Presented& key, const shm::Found& found) {
    const shm::DigestKey digest = shm::DigestKey::from(key.digest);
    const uint64_t expires = shm::Meta::expires_s(found.meta);
    verdict->code = code;
    verdict->flags = flags;
    verdict->expires_at = expires == shm::Meta::kNever ? 0 : static_cast<int64_t>(expires);
    if (key.id != nullptr) {
        std::memcpy(verdict->key_id, key.id, APIKEY_ID_LENGTH);
        std::memset(verdict->key_id + APIKEY_ID_LENGTH, 0, sizeof verdict->key_id - APIKEY_ID_LENGTH);
    } else {
        std::memset(verdict->key_id, 0, sizeof verdict->key_id);
    }
    verdict->ref[0] = verdict_tag(digest, moment.mapping->generation.table.generation);
    verdict->ref[1] = found.index;
    verdict->ref[2] = digest.digest[0];
    verdict->ref[3] = digest.digest[1];
}

APIKEY_INLINE Moment moment_of(const apikey_client* client, const Mapping* mapping, uint64_t now_ns) {
    Moment moment{mapping, now_ns, 0, 0, true, client->required_environment[0] != '\0'};
    const int cpu = sched_getcpu();  // reads the thread's rseq area
    moment.cpu = cpu > 0 ? static_cast<uint32_t>(cpu) : 0;
    if (mapping != nullptr) {
        moment.current = is_current(*mapping);
        moment.flags = flags_of(*client, *mapping, now_ns);
    }
    return moment;
}

APIKEY_INLINE void count_for_key(const Moment& moment, apikey_code code, uint64_t index) {
    const shm::CellsView& cells = moment.mapping->generation.cells;
    if (cells.base != nullptr) [[likely]] {
        shm::count_key(cells, index, moment.cpu, code == APIKEY_VALID);
    }
}

APIKEY_INLINE void prefetch_slot(const Mapping& mapping, uint64_t index) {
    __builtin_prefetch(&mapping.generation.table.slots[index & ~uint64_t{1}]);
}

/// What counting in the slot's cell will touch.
APIKEY_INLINE void prefetch_cell(const Mapping& mapping, uint64_t index, uint32_t cpu) {
    const shm::CellsView& cells = mapping.generation.cells;
    if (cells.base != nullptr) {
        __builtin_prefetch(&cells.cell(index, shm::shard_of(cpu, cells.shards)), 1);
        __builtin_prefetch(&cells.dirty[index >> cells.dirty_shift]);
    }
}

bool answers_from_any_generation(apikey_code code) {
    return code == APIKEY_VALID || code == APIKEY_REVOKED;
}

/// Where a foreign key is looked for.
void aim_by_digest(const Mapping& mapping, Presented* key) {
    const shm::TableView& table = mapping.generation.table;
    key->probe = shm::Probe(shm::index_hash_digest(key->digest, table.hash_seed), table);
}

APIKEY_INLINE shm::Found find(const Moment& moment, const Presented& key) {
    return shm::find_slot(moment.mapping->generation.table, key.probe, shm::DigestKey::from(key.digest));
}

bool is_alive(const shm::Found& found) {
    return found.index != shm::kNoSlot && shm::Meta::state(found.meta) != shm::SlotState::kDead;
}

/// What this generation says about a key that is not where its hash leads.
[[gnu::noinline]] apikey_code look_up_further(const Moment& moment, Presented* key) {
    const bool native = key->id != nullptr;
    key->found = {shm::kNoSlot, 0};
    if (!native) {
        return APIKEY_NOT_FOUND;
    }
    // An imported key can look like a native one. The count rises before such a key's slot is published, so a
    // key that was told before this call began is looked for; relaxed, as nothing else follows from it.
    const shm::TableView& table = moment.mapping->generation.table;
    if (table.header().foreign_keys.load(std::memory_order_relaxed) != 0) {
        const shm::Found foreign = shm::find_slot(table, shm::index_hash_digest(key->digest, table.hash_seed),
                                                  shm::DigestKey::from(key->digest));
        if (is_alive(foreign)) {
            key->found = foreign;
            key->id = nullptr;
            return code_of(foreign.meta, moment.now_ns);
        }
    }
    return shm::native_key_checksum_ok(key->data, key->len) ? APIKEY_NOT_FOUND : APIKEY_MALFORMED;
}

/// What it says about a key that was looked for by its hash.
APIKEY_INLINE apikey_code look_up(const Moment& moment, Presented* key) {
    return is_alive(key->found) ? code_of(key->found.meta, moment.now_ns) : look_up_further(moment, key);
}

[[gnu::noinline]] void refuse(const Moment& moment, apikey_code code, uint32_t flags, const Presented& key,
                              const Asked& asked, apikey_verdict* verdict) {
    count_denial(moment, code, &key, asked);
    if (key.found.index == shm::kNoSlot) {
        clear_verdict(verdict, code, flags);
        return;
    }
    fill_verdict(verdict, code, flags, moment, key, key.found);
    count_for_key(moment, code, key.found.index);
}

/// Answers for a key that was looked for, when this generation may answer. Everything is counted here but the
/// total of valid answers, which the caller adds in one piece.
APIKEY_INLINE Decided decide(const apikey_client& client, const Moment& moment, Presented* key,
                             const Asked& asked, Bill::Owed* owed, apikey_verdict* verdict) {
    apikey_code code = look_up(moment, key);
    const bool unsure = code == APIKEY_UNAVAILABLE;
    uint32_t flags = moment.flags;
    if (code == APIKEY_VALID && (moment.asks || shm::Meta::policy(key->found.meta) != 0)) [[unlikely]] {
        Terms terms;
        const Decided settled = settle_terms(client, moment, *key, asked, owed, &terms);
        if (settled != Decided::kYes) {
            return settled;
        }
        code = terms.code;
        flags |= terms.flags;
    }
    if (!answers_from_any_generation(code)) [[unlikely]] {
        // A refusal stands only if this generation is still the current one, as far as this thread can know;
        // else the key may have been added or enabled in the one that is.
        if (unsure || !is_current(*moment.mapping)) {
            return Decided::kInCurrent;
        }
    }
    if (code != APIKEY_VALID) [[unlikely]] {
        refuse(moment, code, flags, *key, asked, verdict);
        return Decided::kYes;
    }
    fill_verdict(verdict, code, flags, moment, *key, key->found);
    count_for_key(moment, code, key->found.index);
    return Decided::kYes;
}

/// True for a key that may be in a table at all, by its length.
APIKEY_INLINE bool may_be_known(const apikey_key& key) {
    return key.len - shm::kForeignKeyLengthMin <= shm::kKeyLengthMax - shm::kForeignKeyLengthMin &&
           key.data != nullptr;
}

/// Answers for one that may not. A short one is no key, whatever the table says: its SHA-256 hides nothing.
[[gnu::cold, gnu::noinline]] apikey_code refuse_by_length(const Moment& moment, const apikey_key& key,
                                                          const Asked& asked, apikey_verdict* verdict) {
    const bool is_short = key.data != nullptr && key.len != 0 && key.len < shm::kForeignKeyLengthMin;
    const apikey_code code = is_short ? APIKEY_NOT_FOUND : APIKEY_MALFORMED;
    clear_verdict(verdict, code, moment.flags);
    count_denial(moment, code, nullptr, asked);
    return code;
}

/// First half of a look-up: the id and its hash, for keys of the native form.
APIKEY_INLINE Presented present(const apikey_key& key, uint64_t seed) {
    Presented presented;
    presented.data = key.data;
    presented.len = key.len;
    presented.id = shm::native_key_id(key.data, key.len);
    presented.hash = presented.id != nullptr ? shm::index_hash_id(presented.id, seed) : 0;
    return presented;
}

apikey_code unavailable(const Moment& moment, const Asked& asked, apikey_verdict* verdict) {
    clear_verdict(verdict, APIKEY_UNAVAILABLE, moment.flags);
    if (moment.mapping != nullptr) {
        count_denial(moment, APIKEY_UNAVAILABLE, nullptr, asked);
    }
    return APIKEY_UNAVAILABLE;
}

/// True when the policy forbids answering at this moment.
APIKEY_INLINE bool too_stale(const apikey_client* client, const Moment& moment) {
    return (moment.flags & APIKEY_FLAG_STALE) != 0 && client->stale_policy == APIKEY_STALE_DENY;
}

/// True when there is nothing to catch up with: the usual call.
APIKEY_INLINE bool settled(const apikey_client* client, const Moment& moment) {
    return moment.mapping != nullptr && moment.current && (moment.flags & APIKEY_FLAG_STALE) == 0 &&
           client->reclaim_at_ns.load(std::memory_order_relaxed) == 0;
}

/// True when nobody changes this mapping any more: another daemon serves in another directory of the name.
bool is_left_behind(const Mapping& mapping) {
    return mapping.control.control->state.load(std::memory_order_relaxed) ==
           static_cast<uint32_t>(shm::ControlState::kSuperseded);
}

/// True when the host calls apikey_refresh() and so will switch before long: until then this mapping is as
/// good for what it accepts, since whatever tightens is stored in it too. Refusals look further (decide()).
bool is_kept(const apikey_client& client, const Mapping& mapping, uint64_t now_ns) {
    if (is_left_behind(mapping)) {
        return false;
    }
    const uint64_t refreshed_ns = client.refreshed_ns.load(std::memory_order_relaxed);
    return now_ns >= refreshed_ns && now_ns - refreshed_ns < kHousekeepingMax_ns;
}

/// Brings the call onto the current generation where that is possible now.
[[gnu::cold, gnu::noinline]] void catch_up(apikey_client* client, Reading* reading, Moment* moment) {
    if (moment->mapping == nullptr ||
        (!moment->current && !is_kept(*client, *moment->mapping, moment->now_ns))) [[unlikely]] {
        try_switch_mapping(client, reading, moment->now_ns,
                           moment->mapping == nullptr ? IfBusy::kSwitchToo : IfBusy::kLeaveIt,
                           Target::kCurrent);
        *moment = moment_of(client, reading->mapping(), moment->now_ns);
    }
    if ((moment->flags & APIKEY_FLAG_STALE) != 0) [[unlikely]] {
        // The daemon is silent: perhaps its directory was made anew, and another one serves there.
        if (try_refresh_stale(client, reading, moment->now_ns)) {
            *moment = moment_of(client, reading->mapping(), moment->now_ns);
        }
    }
    if (moment->mapping != nullptr && is_left_behind(*moment->mapping)) [[unlikely]] {
        moment->flags |= APIKEY_FLAG_STALE;  // and no other can be mapped now
    }
    if (client->reclaim_at_ns.load(std::memory_order_relaxed) != 0) [[unlikely]] {
        reclaim_later(client, moment->now_ns);
    }
}

/// After a switch that a moved meter asked for: gives back what had been taken before it was met. False:
/// these meters have gone on, too.
[[gnu::cold, gnu::noinline]] bool pay_back(const Moment& moment, const Presented& key, Bill::Owed* owed) {
    if (!is_alive(key.found)) {
        return true;
    }
    shm::Policy policy;
    shm::read_policy(moment.mapping->generation.table, key.found.meta, &policy);
    return Bill::pay_back(*moment.mapping, place_of(key, policy), owed);
}

/// Hashes the key, when it may be known at all, and looks for it in this generation.
APIKEY_INLINE Presented look_for(const apikey_client* client, const Moment& moment, const apikey_key& key) {
    Presented presented = present(key, moment.mapping->generation.table.hash_seed);
    if (presented.id != nullptr) [[likely]] {
        presented.probe = shm::Probe(presented.hash, moment.mapping->generation.table);
        prefetch_slot(*moment.mapping, presented.probe.first());
        prefetch_cell(*moment.mapping, presented.probe.first(), moment.cpu);
    }
    client->sha256->hash(key.data, key.len, presented.digest);
    if (presented.id == nullptr) [[unlikely]] {
        aim_by_digest(*moment.mapping, &presented);
    }
    presented.found = find(moment, presented);
    return presented;
}

/// The rest of a call that the first look did not answer. Each further one in the same generation means that
/// the operator has given the key, or its owner, another plan meanwhile.
[[gnu::cold, gnu::noinline]] apikey_code validate_further(apikey_client* client, Reading* reading,
                                                          Moment moment, const apikey_key& key,
                                                          const Asked& asked, Decided decided,
                                                          Bill::Owed* owed, apikey_verdict* verdict) {
    const bool asks = moment.asks;
    for (unsigned switches = 0; switches < kSwitchesMax;) {
        if (decided != Decided::kAgain) {
            ++switches;
            if (!try_switch_mapping(client, reading, moment.now_ns, IfBusy::kSwitchToo,
                                    target_of(*moment.mapping, decided))) {
                break;
            }
            moment = moment_of(client, reading->mapping(), moment.now_ns);
            moment.asks = asks;
            if (moment.mapping == nullptr || too_stale(client, moment)) {
                break;
            }
        }
        if (asked.limits != nullptr) {
            *asked.limits = {};  // what the generation before said
        }
        Presented presented = look_for(client, moment, key);
        if (decided == Decided::kOwing && !pay_back(moment, presented, owed)) {
            continue;
        }
        decided = decide(*client, moment, &presented, asked, owed, verdict);
        if (decided == Decided::kYes) {
            if (verdict->code == APIKEY_VALID) {
                count_answers(moment, APIKEY_VALID, 1);
            }
            return verdict->code;
        }
    }
    return unavailable(moment, asked, verdict);
}

/// A group's keys of the native form, on their way through one step after the other.
struct Natives {
    Presented* key[kGroup];
    size_t count;
};

/// Hashes two by two. The cells are asked for on the way: all lines of a group at once are more than a core
/// keeps requests for, and then it waits.
void hash_natives(const apikey_client* client, const Moment& moment, const Natives& natives) {
    size_t done = 0;
    for (; done + 1 < natives.count; done += 2) {
        prefetch_cell(*moment.mapping, natives.key[done]->probe.first(), moment.cpu);
        prefetch_cell(*moment.mapping, natives.key[done + 1]->probe.first(), moment.cpu);
        Presented& a = *natives.key[done];
        Presented& b = *natives.key[done + 1];
        client->sha256->hash_pair(a.data, a.len, a.digest, b.data, b.len, b.digest);
    }
    if (done < natives.count) {
        prefetch_cell(*moment.mapping, natives.key[done]->probe.first(), moment.cpu);
        Presented& last = *natives.key[done];
        client->sha256->hash(last.data, last.len, last.digest);
    }
}

/// Looks into each key's home line, and only then further for those that are not at home, so that their
/// misses overlap too. Nothing is counted in between: an atomic add waits for every load before it.
void find_natives(const Moment& moment, const Natives& natives) {
    const shm::TableView& table = moment.mapping->generation.table;
    Presented* away[kGroup];
    size_t away_count = 0;
    for (size_t i = 0; i < natives.count; ++i) {
        Presented& key = *natives.key[i];
        key.found = {shm::kNoSlot, 0};
        if (shm::find_in_line(table, key.probe, shm::DigestKey::from(key.digest), &key.found) ==
            shm::InLine::kNext) {
            shm::Probe next = key.probe;
            next.next_line(table);
            prefetch_slot(*moment.mapping, next.first());
            prefetch_cell(*moment.mapping, next.first(), moment.cpu);
            away[away_count++] = &key;
        }
    }
    for (size_t i = 0; i < away_count; ++i) {
        away[i]->found = find(moment, *away[i]);
    }
}

/// Keys of a group that the batch's mapping did not answer.
struct Left {
    bool key[kGroup];
    size_t owing = kGroup;  ///< one that owes; those behind it were not looked at
    Bill::Owed owed;
};

/// One group of a batch.
size_t validate_group(const apikey_client* client, const Moment& moment, const apikey_key* keys, size_t count,
                      apikey_verdict* verdicts, Left* left) {
    const uint64_t seed = moment.mapping->generation.table.hash_seed;
    Presented presented[kGroup];
    Natives natives;
    natives.count = 0;
    for (size_t i = 0; i < count; ++i) {
        left->key[i] = true;
        presented[i].id = nullptr;
        if (!may_be_known(keys[i])) [[unlikely]] {
            continue;
        }
        presented[i] = present(keys[i], seed);
        if (presented[i].id != nullptr) {
            natives.key[natives.count++] = &presented[i];
        }
    }
    for (size_t i = 0; i < natives.count; ++i) {
        natives.key[i]->probe = shm::Probe(natives.key[i]->hash, moment.mapping->generation.table);
        prefetch_slot(*moment.mapping, natives.key[i]->probe.first());
    }
    hash_natives(client, moment, natives);
    find_natives(moment, natives);
    size_t valid = 0;
    for (size_t i = 0; i < count; ++i) {
        if (!may_be_known(keys[i])) [[unlikely]] {
            refuse_by_length(moment, keys[i], Asked{}, &verdicts[i]);
            left->key[i] = false;
            continue;
        }
        if (presented[i].id == nullptr) [[unlikely]] {
            client->sha256->hash(keys[i].data, keys[i].len, presented[i].digest);
            aim_by_digest(*moment.mapping, &presented[i]);
            presented[i].found = find(moment, presented[i]);
        }
        const Decided decided = decide(*client, moment, &presented[i], Asked{}, &left->owed, &verdicts[i]);
        if (decided == Decided::kOwing) [[unlikely]] {
            left->owing = i;
            break;
        }
        left->key[i] = decided != Decided::kYes;
        valid += !left->key[i] && verdicts[i].code == APIKEY_VALID ? 1 : 0;
    }
    if (valid != 0) {
        count_answers(moment, APIKEY_VALID, valid);
    }
    return valid;
}

/// Holds the mapping for one group. False: nothing was decided, each key goes its own way.
bool hold_and_validate_group(apikey_client* client, const apikey_key* keys, size_t count,
                             apikey_verdict* verdicts, Left* left, size_t* valid) {
    Reading reading(client);
    if (reading.busy()) {
        return false;
    }
    Moment moment = moment_of(client, reading.mapping(), coarse_now_ns());
    if (!settled(client, moment)) [[unlikely]] {
        catch_up(client, &reading, &moment);
    }
    if (moment.mapping == nullptr || too_stale(client, moment)) {
        return false;
    }
    *valid = validate_group(client, moment, keys, count, verdicts, left);
    return true;
}

/// Goes on with a key of a batch that owes: its meters are in another generation than this thread's mapping.
[[gnu::cold, gnu::noinline]] apikey_code validate_owing(apikey_client* client, const apikey_key& key,
                                                        Bill::Owed* owed, apikey_verdict* verdict) {
    Reading reading(client);
    if (reading.busy()) {
        clear_verdict(verdict, APIKEY_UNAVAILABLE, 0);
        return APIKEY_UNAVAILABLE;
    }
    const Moment moment = moment_of(client, reading.mapping(), coarse_now_ns());
    return validate_further(client, &reading, moment, key, Asked{}, Decided::kOwing, owed, verdict);
}

}  // namespace

apikey_code validate(apikey_client* client, const char* data, size_t length, const Asked& asked,
                     apikey_verdict* verdict) {
    const apikey_key key{data, length};
    Reading reading(client);
    if (reading.busy()) [[unlikely]] {
        clear_verdict(verdict, APIKEY_UNAVAILABLE, 0);
        return APIKEY_UNAVAILABLE;
    }
    Moment moment = moment_of(client, reading.mapping(), coarse_now_ns());
    if (!settled(client, moment)) [[unlikely]] {
        catch_up(client, &reading, &moment);
    }
    moment.asks |= asked.scopes != nullptr;
    if (moment.mapping == nullptr || too_stale(client, moment)) [[unlikely]] {
        return unavailable(moment, asked, verdict);
    }
    if (!may_be_known(key)) [[unlikely]] {
        return refuse_by_length(moment, key, asked, verdict);
    }
    Presented presented = look_for(client, moment, key);
    Bill::Owed owed;
    const Decided decided = decide(*client, moment, &presented, asked, &owed, verdict);
    if (decided != Decided::kYes) [[unlikely]] {
        return validate_further(client, &reading, moment, key, asked, decided, &owed, verdict);
    }
    if (verdict->code == APIKEY_VALID) [[likely]] {
        count_answers(moment, APIKEY_VALID, 1);
    }
    return verdict->code;
}

size_t validate_many(apikey_client* client, const apikey_key* keys, size_t count, apikey_verdict* verdicts) {
    size_t valid = 0;
    for (size_t at = 0; at < count; at += kGroup) {
        const size_t group = count - at < kGroup ? count - at : kGroup;
        Left left;
        size_t group_valid = 0;
        const bool held =
            hold_and_validate_group(client, keys + at, group, verdicts + at, &left, &group_valid);
        for (size_t i = 0; i < group; ++i) {
            if (held && !left.key[i]) [[likely]] {
                continue;
            }
            const apikey_key& key = keys[at + i];
            apikey_verdict* verdict = &verdicts[at + i];
            const apikey_code code = i == left.owing ? validate_owing(client, key, &left.owed, verdict)
                                                     : validate(client, key.data, key.len, Asked{}, verdict);
            group_valid += code == APIKEY_VALID ? 1 : 0;
        }
        valid += group_valid;
    }
    return valid;
}

}  // namespace apikey::client
