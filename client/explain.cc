#include "client/explain.h"

#include <cstring>

#include "client/request.h"
#include "shm/index_hash.h"

namespace apikey::client {
namespace {

constexpr unsigned kSwitchesMax = 4;  // as of a call that validates

/// A key by its id, from what the details say; a slot has only digests.
struct KeyById {
    uint64_t index = shm::kNoSlot;
    uint64_t meta = 0;
    bool foreign = false;
};

bool is_key(const shm::TableView& table, uint64_t index, const char* id, KeyById* key) {
    shm::DetailView detail;
    if (!shm::see_slot(table, index, &key->meta, &detail) ||
        shm::Meta::state(key->meta) == shm::SlotState::kDead || detail.id_bytes != APIKEY_ID_LENGTH ||
        std::memcmp(detail.id, id, APIKEY_ID_LENGTH) != 0) {
        return false;
    }
    key->index = index;
    key->foreign = detail.foreign;
    return true;
}

KeyById find_by_id(const shm::TableView& table, const char* id) {
    KeyById key;
    shm::Probe probe(shm::index_hash_id(id, table.hash_seed), table);
    for (uint32_t lines = 0; lines < table.probe_lines_max; ++lines, probe.next_line(table)) {
        if (is_key(table, probe.first(), id, &key) || is_key(table, probe.second(), id, &key)) {
            return key;
        }
    }
    // An imported key stands where its digest leads.
    for (uint64_t index = 0; index < table.slot_count(); ++index) {
        if (is_key(table, index, id, &key)) {
            return key;
        }
    }
    return {};
}

Finding finding(bool asked, bool passed) {
    return !asked ? Finding::kNotAsked : passed ? Finding::kPassed : Finding::kFailed;
}

/// The limits, as settle.cc comes to them.
Decided look_at_limits(const apikey_client& client, const Moment& moment, const KeyPlace& place,
                       const Asked& asked, Explanation* out) {
    Bill bill;
    out->metered = bill.draw_up(*moment.mapping, place);
    Spent met = out->metered;
    if (met == Spent::kAll) {
        met = bill.look_at_all(asked.cost, moment.now_ns, out->limits);
        if (met == Spent::kMoved && bill.mend_scribbled(*moment.mapping)) {
            met = bill.look_at_all(asked.cost, moment.now_ns, out->limits);
        }
    }
    apikey_code code = APIKEY_VALID;
    switch (met) {
        case Spent::kAll:
        case Spent::kRateLimited:
        case Spent::kUsageExceeded:
            out->limit_count = bill.count();
            code = met == Spent::kRateLimited     ? APIKEY_RATE_LIMITED
                   : met == Spent::kUsageExceeded ? APIKEY_USAGE_EXCEEDED
                                                  : APIKEY_VALID;
            break;
        case Spent::kNotMetered:
            code = client.metering == APIKEY_METERING_OPTIONAL ? APIKEY_VALID : APIKEY_UNAVAILABLE;
            break;
        case Spent::kMoved:
            return Decided::kInNext;
        default:
            return Decided::kInCurrent;
    }
    out->code = out->code == APIKEY_VALID ? code : out->code;
    return Decided::kYes;
}

/// The checks up to the limits.
void check(const apikey_client& client, const Moment& moment, const KeyById& key, const shm::Policy& policy,
           const Asked& asked, Explanation* out) {
    const shm::TableView& table = moment.mapping->generation.table;
    const uint64_t active = shm::Meta::with_state(key.meta, shm::SlotState::kActive);
    const uint64_t expires_s = shm::Meta::expires_s(key.meta);
    out->code = code_of(key.meta, moment.now_ns);
    out->state_code = out->code == APIKEY_EXPIRED ? APIKEY_VALID : out->code;
    out->state = finding(true, out->state_code == APIKEY_VALID);
    out->expires_at = expires_s == shm::Meta::kNever ? 0 : static_cast<int64_t>(expires_s);
    out->expiry = finding(true, code_of(active, moment.now_ns) == APIKEY_VALID);
    shm::read_environment(table, shm::Meta::environment(key.meta), out->key_environment);
    out->environment =
        finding(client.required_environment[0] != '\0', environment_allowed(client, table, key.meta));
    out->networks = shm::ListReader<shm::AddressRange>(table, policy.addresses).count();
    out->address = finding(policy.addresses != 0, address_allowed(table, policy.addresses, asked.address));
    out->scopes = finding(asked.scopes != nullptr,
                          asked.scopes == nullptr || grants(table, policy.scopes, asked.scopes));
    if (out->code == APIKEY_VALID) {
        out->code = check_terms(client, table, key.meta, policy, asked);
    }
}

/// What this generation says; whether it may.
Decided look(const apikey_client& client, const Moment& moment, const char* id, const Asked& asked,
             Explanation* out) {
    const shm::TableView& table = moment.mapping->generation.table;
    *out = {};
    out->flags = moment.flags;
    const KeyById key = find_by_id(table, id);
    out->known = finding(true, key.index != shm::kNoSlot);
    if (key.index == shm::kNoSlot) {
        out->code = APIKEY_NOT_FOUND;
        return is_current(*moment.mapping) ? Decided::kYes : Decided::kInCurrent;
    }
    if (shm::Meta::state(key.meta) == shm::SlotState::kElsewhere) {
        return Decided::kInCurrent;
    }
    shm::Policy policy;
    shm::read_policy(table, key.meta, &policy);
    check(client, moment, key, policy, asked, out);
    uint8_t digest[shm::kDigestLength] = {};
    std::memcpy(digest, table.slots[key.index].digest, sizeof table.slots[key.index].digest);
    std::memcpy(digest + sizeof table.slots[key.index].digest, &table.slots[key.index].tag,
                sizeof table.slots[key.index].tag);
    const KeyPlace place{key.index, digest, key.foreign ? nullptr : id, key.meta, &policy};
    return policy.plan != 0 || policy.owner != 0 ? look_at_limits(client, moment, place, asked, out)
                                                 : Decided::kYes;
}

}  // namespace

Explanation explain(apikey_client* client, const char* id, const Asked& asked) {
    Explanation found{};
    Reading reading(client);
    for (unsigned switches = 0; !reading.busy() && reading.mapping() != nullptr; ++switches) {
        const uint64_t now_ns = coarse_now_ns();
        const Moment moment{
            reading.mapping(), now_ns, 0, flags_of(*client, *reading.mapping(), now_ns), true, true};
        const Decided decided = look(*client, moment, id, asked, &found);
        if (decided == Decided::kYes) {
            return found;
        }
        if (switches == kSwitchesMax || !try_switch_mapping(client, &reading, now_ns, IfBusy::kSwitchToo,
                                                            target_of(*reading.mapping(), decided))) {
            break;
        }
    }
    found.code = APIKEY_UNAVAILABLE;
    return found;
}

}  // namespace apikey::client
