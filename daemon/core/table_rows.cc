#include "core/table_rows.h"

#include "core/table_policies.h"
#include "shm/index_hash.h"

namespace apikeyd {

using apikey::shm::DetailText;
using apikey::shm::DetailView;
using apikey::shm::DigestKey;
using apikey::shm::Found;
using apikey::shm::kNoSlot;
using apikey::shm::Meta;
using apikey::shm::SlotState;
using apikey::shm::TableView;
using apikey::shm::TableWriter;

namespace {

SlotState slot_state(KeyState state) {
    switch (state) {
        case KeyState::kDisabled:
            return SlotState::kDisabled;
        case KeyState::kRevoked:
            return SlotState::kRevoked;
        case KeyState::kActive:
            break;
    }
    return SlotState::kActive;
}

uint64_t expiry_of(const KeyRow& row) {
    return row.expires_s ? static_cast<uint64_t>(*row.expires_s) : Meta::kNever;
}

/// The id a slot's details name; empty when they cannot be read.
std::string_view id_of_slot(const TableView& table, uint64_t index) {
    DetailView detail;
    // Relaxed: asked by the thread that stores it.
    const uint32_t reference = table.slots[index].detail.load(std::memory_order_relaxed);
    return read_detail(table, reference, &detail) ? std::string_view(detail.id, detail.id_bytes)
                                                  : std::string_view();
}

/// True when the same digest stands in this table as the other of native and foreign. Counts are kept by
/// digest, so two cells of one generation must not share one. The other's path may cross the row's own slot.
bool has_other_form(const TableView& table, const KeyRow& row) {
    KeyRow other;
    other.id = row.id;
    other.digest = row.digest;
    other.foreign = !row.foreign;
    const Found found = find_slot(table, row_hash(other, table.hash_seed), row_digest(row));
    uint64_t meta = 0;
    DetailView detail;
    return found.index != kNoSlot &&
           (!see_slot(table, found.index, &meta, &detail) || detail.foreign == other.foreign);
}

bool alive(const Found& found) {
    return found.index != kNoSlot && Meta::state(found.meta) != SlotState::kDead;
}

void remove(TableWriter& table, const Found& found) {
    if (alive(found)) {
        table.set_meta(found.index, Meta::with_state(found.meta, SlotState::kDead));
    }
}

bool add(TableWriter& table, const Found& found, const KeyRow& row, uint64_t hash, uint32_t environment,
         Cells cells) {
    const DetailText detail = row_detail(row);
    if (cells == Cells::kInUse && has_other_form(table.view(), row)) {
        return false;
    }
    if (found.index != kNoSlot && cells == Cells::kInUse) {
        // A dead slot's counts belong to the id it had. The same id goes on with them; another needs fresh
        // cells.
        if (id_of_slot(table.view(), found.index) != row.id) {
            return false;
        }
    }
    if (!table.has_room(found.index == kNoSlot ? 1 : 0, TableWriter::detail_bytes(detail))) {
        return false;
    }
    const std::optional<uint32_t> policy = table.policies().policy(RowPolicy(row).text());
    const uint32_t reference = policy ? table.append_detail(detail) : 0;
    return reference != 0 && table.publish(hash, row_digest(row), row_meta(row, *policy, environment),
                                           reference, row.foreign) == TableWriter::Publish::kDone;
}

bool update(TableWriter& table, const Found& found, const KeyRow& row, uint32_t environment, Cells cells) {
    const DetailText detail = row_detail(row);
    const uint32_t old_reference = table.view().slots[found.index].detail.load(std::memory_order_relaxed);
    const bool same_detail = table.same_detail(old_reference, detail);
    const bool same_id =
        same_detail || cells == Cells::kFresh || id_of_slot(table.view(), found.index) == row.id;
    // A policy that there is no room for waits for a new generation; until then the key keeps the one it had.
    const std::optional<uint32_t> policy = table.policies().policy(RowPolicy(row).text());
    // Meta first: whatever becomes of the details, what tightens is in force.
    if (const uint64_t meta = row_meta(row, policy.value_or(Meta::policy(found.meta)), environment);
        meta != found.meta) {
        table.set_meta(found.index, meta);
    }
    if (same_detail) {
        return policy.has_value();
    }
    const uint32_t reference =
        same_id && table.has_room(0, TableWriter::detail_bytes(detail)) ? table.append_detail(detail) : 0;
    if (reference == 0) {
        return false;
    }
    table.set_detail(found.index, reference);
    return policy.has_value();
}

}  // namespace

uint64_t row_hash(const KeyRow& row, uint64_t seed) {
    return row.foreign ? apikey::shm::index_hash_digest(row.digest.data(), seed)
                       : apikey::shm::index_hash_id(row.id.data(), seed);
}

DigestKey row_digest(const KeyRow& row) {
    return DigestKey::from(row.digest.data());
}

std::string_view row_digest_bytes(const KeyRow& row) {
    return {reinterpret_cast<const char*>(row.digest.data()), sizeof(apikey::shm::Slot::digest)};
}

DetailText row_detail(const KeyRow& row) {
    DetailText text;
    text.id = row.id;
    text.owner = row.owner;
    text.name = row.name;
    text.metadata = row.metadata;
    text.created_s = static_cast<uint32_t>(row.created_s);
    text.foreign = row.foreign;
    return text;
}

uint64_t row_meta(const KeyRow& row, uint32_t policy, uint32_t environment) {
    return Meta::make(slot_state(row.state), expiry_of(row), policy, environment);
}

bool is_in(const TableView& table, const KeyRow& row) {
    return alive(find_slot(table, row_hash(row, table.hash_seed), row_digest(row)));
}

std::optional<KeyRow> row_of_slot(const TableView& table, uint64_t index) {
    const apikey::shm::Slot& slot = table.slots[index];
    uint64_t meta = 0;
    DetailView detail;
    if (!see_slot(table, index, &meta, &detail) || Meta::state(meta) == SlotState::kDead) {
        return std::nullopt;
    }
    KeyRow row;
    row.id.assign(detail.id, detail.id_bytes);
    std::memcpy(row.digest.data(), slot.digest, sizeof slot.digest);
    std::memcpy(row.digest.data() + sizeof slot.digest, &slot.tag, sizeof slot.tag);
    row.foreign = detail.foreign;
    row.state = Meta::state(meta) == SlotState::kRevoked    ? KeyState::kRevoked
                : Meta::state(meta) == SlotState::kDisabled ? KeyState::kDisabled
                                                            : KeyState::kActive;
    char environment[apikey::shm::kEnvironmentNameBytes + 1];
    read_environment(table, Meta::environment(meta), environment);
    row.environment = environment;
    row.owner.assign(detail.owner, detail.owner_bytes);
    row.name.assign(detail.name, detail.name_bytes);
    row.metadata.assign(detail.metadata, detail.metadata_bytes);
    row.created_s = detail.created_s;
    if (const uint64_t expires_s = Meta::expires_s(meta); expires_s != Meta::kNever) {
        row.expires_s = static_cast<int64_t>(expires_s);
    }
    if (Meta::policy(meta) != 0) {
        apikey::shm::Policy policy;
        read_policy(table, meta, &policy);
        row.terms = terms_of_policy(table, policy);
    }
    return row;
}

std::optional<KeyRow> row_in(const TableView& table, const KeyRow& row) {
    const Found found = find_slot(table, row_hash(row, table.hash_seed), row_digest(row));
    return found.index != kNoSlot ? row_of_slot(table, found.index) : std::nullopt;
}

std::vector<KeyRow> rows_of_other_form(const TableView& table, const KeyRow& row) {
    std::vector<KeyRow> others;
    const DigestKey digest = row_digest(row);
    for (uint64_t index = 0; index < table.slot_count(); ++index) {
        if (!same_digest(table.slots[index], digest)) {
            continue;
        }
        std::optional<KeyRow> other = row_of_slot(table, index);
        if (other && (other->id != row.id || other->foreign != row.foreign)) {
            others.push_back(*std::move(other));
        }
    }
    return others;
}

bool apply_change(TableWriter& table, const Change& change, Cells cells) {
    const uint64_t hash = row_hash(change.row, table.view().hash_seed);
    const Found found = find_slot(table.view(), hash, row_digest(change.row));
    if (change.kind == Change::Kind::kRemove) {
        remove(table, found);
        return true;
    }
    const std::optional<uint32_t> environment = table.environment(change.row.environment);
    if (alive(found)) {
        // An environment too many is named in a new generation; until then the key keeps the one it had.
        const bool made =
            update(table, found, change.row, environment.value_or(Meta::environment(found.meta)), cells);
        return made && environment;
    }
    return environment && add(table, found, change.row, hash, *environment, cells);
}

void apply_change_to_superseded(TableWriter& table, const Change& change, bool said_in_next) {
    const uint64_t hash = row_hash(change.row, table.view().hash_seed);
    const Found found = find_slot(table.view(), hash, row_digest(change.row));
    if (!alive(found)) {
        return;
    }
    uint64_t meta = Meta::with_state(found.meta, SlotState::kDead);
    if (change.kind == Change::Kind::kUpsert) {
        const std::optional<uint32_t> policy = table.policies().policy(RowPolicy(change.row).text());
        meta = row_meta(change.row, policy.value_or(0), Meta::environment(found.meta));
        if (!(policy && said_in_next) && Meta::state(meta) == SlotState::kActive) {
            meta = Meta::with_state(meta, SlotState::kElsewhere);
        }
    }
    // Stored even when it is the same: revoking a revoked key stores everywhere again.
    table.set_meta(found.index, meta);
}

}  // namespace apikeyd
