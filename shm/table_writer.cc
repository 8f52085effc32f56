#include "shm/table_writer.h"

#include <algorithm>
#include <cassert>

#include "shm/group_seeds.h"
#include "shm/index_hash.h"

namespace apikey::shm {
namespace {

constexpr uint64_t kPoliciesSpare = 64;
constexpr uint64_t kSlotsMin = 1024;
constexpr uint64_t kDetailsSpareBytes = 64 << 10;

constexpr uint64_t round_up(uint64_t value, uint64_t unit) {
    return (value + unit - 1) / unit * unit;
}

bool in_use(uint64_t meta) {
    return Meta::state(meta) != SlotState::kEmpty && Meta::state(meta) != SlotState::kDead;
}

}  // namespace

TableGeometry TableGeometry::for_keys(uint64_t keys, uint64_t details_bytes, const Policies& policies) {
    // A multiple of 8, so that everything behind is aligned.
    const auto with_spare = [](uint64_t entries) {
        return round_up(entries + entries / 4, kPoliciesSpare) + kPoliciesSpare;
    };
    TableGeometry geometry{};
    geometry.slot_count =
        std::max(kSlotsMin, round_up(keys * 100 / kLoadBuilt + 1, kSlotsPerLine * kGroupLines));
    geometry.details_bytes = round_up(details_bytes + details_bytes / 4 + kDetailsSpareBytes, kPageBytes);
    geometry.policy_capacity = std::min(with_spare(policies.policies), Meta::kPolicyMask + 1);
    geometry.plan_capacity = with_spare(policies.plans);
    geometry.owner_capacity = with_spare(policies.owners);
    geometry.scope_capacity = kScopesMax;
    return geometry;
}

uint64_t TableGeometry::file_bytes() const {
    return round_up(details_offset() + details_bytes, kPageBytes);
}

void TableWriter::format(void* base, const TableGeometry& geometry, uint32_t generation, uint32_t predecessor,
                         const uint8_t (&uid)[kUidLength], uint64_t hash_seed) {
    auto& header = *static_cast<TableHeader*>(base);
    header.abi = kAbi;
    header.header_bytes = sizeof(TableHeader);
    header.file_bytes = geometry.file_bytes();
    header.generation = generation;
    header.predecessor = predecessor;
    std::memcpy(header.uid, uid, sizeof uid);
    header.slots_offset = geometry.slots_offset();
    header.slot_count = geometry.slot_count;
    header.slot_stride = sizeof(Slot);
    header.digest_offset = offsetof(Slot, digest);
    header.digest_length = sizeof(Slot::digest);
    header.meta_offset = offsetof(Slot, meta);
    header.layout_hash = layout_hash();
    header.hash_seed = hash_seed;
    header.probe_lines_max = kProbeLinesMax;
    header.policies_offset = geometry.policies_offset();
    header.policy_capacity = geometry.policy_capacity;
    header.plans_offset = geometry.plans_offset();
    header.plan_capacity = geometry.plan_capacity;
    header.owners_offset = geometry.owners_offset();
    header.owner_capacity = geometry.owner_capacity;
    header.scopes_offset = geometry.scopes_offset();
    header.scopes_bytes = geometry.scope_capacity * sizeof(ScopeName);
    header.details_offset = geometry.details_offset();
    header.details_bytes = geometry.details_bytes;
    header.seeds_offset = geometry.seeds_offset();
    header.seed_count = geometry.seed_count();
    header.details_used.store(kDetailUnit, std::memory_order_relaxed);  // reference 0 means none
    for (Word* used : {&header.policies_used, &header.plans_used, &header.owners_used}) {
        used->store(1, std::memory_order_relaxed);  // and so does entry 0
    }
    header.magic = kTableMagic;
}

TableWriter::TableWriter(void* base, const TableView& view, uint32_t meter_words)
    : base_(static_cast<uint8_t*>(base)),
      view_(view),
      details_(base, view),
      policies_(base, view, meter_words),
      owners_(0, NameHash{&view_}, NameEqual{&view_}) {
    assert(view.base == base_);
}

void TableWriter::spread(std::vector<uint64_t> hashes, unsigned threads) {
    assert(header().live.load(std::memory_order_relaxed) + header().dead.load(std::memory_order_relaxed) ==
           0);
    choose_group_seeds(std::move(hashes), {const_cast<uint8_t*>(view_.group_seeds), view_.group_count},
                       threads);
}

uint64_t TableWriter::owner_bytes(std::string_view owner) {
    return owner.empty() ? 0 : DetailsWriter::name_bytes(owner);
}

uint64_t TableWriter::detail_bytes(const DetailText& text) {
    return round_up(sizeof(DetailEntry) + text.id.size() + text.name.size() + text.metadata.size(),
                    kDetailUnit) +
           owner_bytes(text.owner);
}

bool TableWriter::has_room(uint64_t keys, uint64_t details_bytes) const {
    const uint64_t used =
        header().live.load(std::memory_order_relaxed) + header().dead.load(std::memory_order_relaxed);
    return (used + keys) * 100 <= view_.slot_count() * kLoadMax &&
           header().details_used.load(std::memory_order_relaxed) + details_bytes <= view_.details_bytes;
}

bool TableWriter::mostly_dead() const {
    return header().dead.load(std::memory_order_relaxed) * 4 > view_.slot_count();
}

std::optional<uint32_t> TableWriter::environment(std::string_view name) {
    if (name.empty()) {
        return 0;
    }
    if (name.size() >= kEnvironmentNameBytes) {
        return std::nullopt;
    }
    for (uint32_t index = 1; index < kEnvironmentsMax; ++index) {
        char* stored = mutable_header().environments[index];
        if (stored[0] == '\0') {
            // SYNC slot-published: readers come here only by a meta that names the index, which is stored
            // later.
            write_plain(stored, name.data(), name.size());
            return index;
        }
        if (std::string_view(stored, strnlen(stored, kEnvironmentNameBytes)) == name) {
            return index;
        }
    }
    return std::nullopt;
}

uint32_t TableWriter::intern_owner(std::string_view name) {
    if (const auto known = owners_.find(name); known != owners_.end()) {
        return *known;
    }
    const uint32_t reference = details_.append_name(name);
    if (reference != 0) {
        owners_.insert(reference);
    }
    return reference;
}

uint32_t TableWriter::append_detail(const DetailText& text) {
    assert(text.id.size() <= kDetailIdMax && text.name.size() <= kDetailNameMax &&
           text.metadata.size() <= kDetailMetadataMax && text.owner.size() <= kDetailOwnerMax);
    DetailEntry entry{};
    if (!text.owner.empty()) {
        entry.owner = intern_owner(text.owner);
        if (entry.owner == 0) {
            return 0;
        }
    }
    entry.created_s = text.created_s;
    entry.form_and_metadata_bytes =
        static_cast<uint16_t>(text.metadata.size() | (text.foreign ? kDetailForeign : 0));
    entry.name_bytes = static_cast<uint8_t>(text.name.size());
    entry.id_bytes = static_cast<uint8_t>(text.id.size());
    const uint32_t reference =
        details_.append(sizeof entry + text.id.size() + text.name.size() + text.metadata.size());
    if (reference == 0) {
        return 0;
    }
    uint8_t* at = details_.at(reference);
    write_plain(at, &entry, sizeof entry);
    at += sizeof entry;
    for (const std::string_view part : {text.id, text.name, text.metadata}) {
        write_plain(at, part.data(), part.size());
        at += part.size();
    }
    return reference;
}

bool TableWriter::same_detail(uint32_t reference, const DetailText& text) const {
    DetailView stored;
    if (!read_detail(view_, reference, &stored)) {
        return false;
    }
    return std::string_view(stored.id, stored.id_bytes) == text.id &&
           std::string_view(stored.owner, stored.owner_bytes) == text.owner &&
           std::string_view(stored.name, stored.name_bytes) == text.name &&
           std::string_view(stored.metadata, stored.metadata_bytes) == text.metadata &&
           stored.created_s == text.created_s && stored.foreign == text.foreign;
}

bool TableWriter::is_foreign(uint64_t index) const {
    DetailView detail;
    return read_detail(view_, view_.slots[index].detail.load(std::memory_order_relaxed), &detail) &&
           detail.foreign;
}

/// Keeps the counts in the header. A count of foreign keys rises before the first such key can be found.
void TableWriter::count_change(uint64_t old_meta, uint64_t new_meta, bool foreign) {
    TableHeader& header = mutable_header();
    // Relaxed: nothing follows from these words but themselves. Where the count of foreign keys rises, the
    // slot's own store comes after and is told after it.
    const auto add = [](Word& word, int64_t delta) {
        word.store(word.load(std::memory_order_relaxed) + static_cast<uint64_t>(delta),
                   std::memory_order_relaxed);
    };
    const int live = static_cast<int>(in_use(new_meta)) - static_cast<int>(in_use(old_meta));
    const int dead = static_cast<int>(Meta::state(new_meta) == SlotState::kDead) -
                     static_cast<int>(Meta::state(old_meta) == SlotState::kDead);
    if (foreign) {
        add(header.foreign_keys, live);
    }
    add(header.live, live);
    add(header.dead, dead);
}

TableWriter::Publish TableWriter::publish(uint64_t hash, const DigestKey& key, uint64_t meta, uint32_t detail,
                                          bool foreign) {
    assert(in_use(meta));
    Probe probe(hash, view_);
    for (uint32_t lines = 0; lines < view_.probe_lines_max; ++lines, probe.next_line(view_)) {
        for (uint64_t index : {probe.first(), probe.second()}) {
            Slot& at = slot(index);
            const uint64_t old_meta = at.meta.load(std::memory_order_relaxed);  // nobody else stores
            const bool empty = Meta::state(old_meta) == SlotState::kEmpty;
            if (!empty && !same_digest(at, key)) {
                continue;
            }
            assert(empty || Meta::state(old_meta) == SlotState::kDead);
            if (empty) {
                at.digest[0] = key.digest[0];
                at.digest[1] = key.digest[1];
                at.tag = key.tag;
            }
            count_change(old_meta, meta, foreign);
            // SYNC detail-published: release, not left to meta's store below: who has loaded the meta from
            // before the key left may come upon the new details.
            at.detail.store(detail, std::memory_order_release);
            // SYNC slot-published: pairs with the acquire load in find_in_line(). From here on the key is
            // good.
            at.meta.store(meta, std::memory_order_seq_cst);
            return Publish::kDone;
        }
    }
    return Publish::kNoRoom;
}

void TableWriter::set_meta(uint64_t index, uint64_t meta) {
    Slot& at = slot(index);
    const uint64_t old_meta = at.meta.load(std::memory_order_relaxed);
    assert(Meta::state(old_meta) != SlotState::kEmpty && Meta::state(meta) != SlotState::kEmpty);
    const bool revives = in_use(meta) && !in_use(old_meta);
    if (revives) {
        count_change(old_meta, meta, is_foreign(index));  // before a reader can find the key
    }
    // SYNC slot-published: state, policy and expiry change together; pairs with the acquire load in
    // find_in_line(). seq_cst, so that a revocation is in the one order of all such stores before it is
    // answered.
    at.meta.store(meta, std::memory_order_seq_cst);
    if (!revives) {
        count_change(old_meta, meta, is_foreign(index));
    }
}

void TableWriter::set_detail(uint64_t index, uint32_t detail) {
    // SYNC detail-published: the entry is complete; pairs with the acquire loads of whoever describes the key
    // (describe() of the client, row_of_slot() of the daemon).
    slot(index).detail.store(detail, std::memory_order_release);
}

/// What a slot that is in use or dead names: details that can be read, and their end. Nothing of it may lie
/// beyond what the header calls used, or the next append would overwrite it.
bool TableWriter::scan_slot(uint64_t index, uint64_t meta, DetailView* detail) {
    const uint32_t reference = slot(index).detail.load(std::memory_order_relaxed);
    if (Meta::state(meta) > SlotState::kElsewhere ||
        Meta::policy(meta) >= view_.header().policies_used.load(std::memory_order_relaxed) ||
        !read_detail(view_, reference, detail) || detail->id_bytes == 0) {
        return false;
    }
    const uint32_t environment = Meta::environment(meta);
    if (environment != 0 && view_.header().environments[environment][0] == '\0') {
        return false;
    }
    const auto end_of = [this](const char* text, uint32_t bytes) {
        return static_cast<uint64_t>(reinterpret_cast<const uint8_t*>(text) - view_.details) + bytes;
    };
    const uint64_t used = view_.header().details_used.load(std::memory_order_relaxed);
    if (end_of(detail->metadata, detail->metadata_bytes) > used ||
        (detail->owner_bytes != 0 && end_of(detail->owner, detail->owner_bytes) > used)) {
        return false;
    }
    // A reader must find exactly this slot: no hole before it, no second slot of the key, hashed by this
    // seed.
    const Slot& at = slot(index);
    if (!detail->foreign && detail->id_bytes != kIdLength) {
        return false;
    }
    const uint64_t hash =
        detail->foreign ? index_hash_digest(reinterpret_cast<const uint8_t*>(at.digest), view_.hash_seed)
                        : index_hash_id(detail->id, view_.hash_seed);
    return find_slot(view_, hash, {{at.digest[0], at.digest[1]}, at.tag}).index == index;
}

bool TableWriter::scan() {
    TableHeader& header = mutable_header();
    const uint64_t used = header.details_used.load(std::memory_order_relaxed);
    if (used < kDetailUnit || used > view_.details_bytes || used % kDetailUnit != 0 || !policies_.whole()) {
        return false;
    }
    uint64_t live = 0;
    uint64_t dead = 0;
    uint64_t foreign = 0;
    for (uint64_t index = 0; index < view_.slot_count(); ++index) {
        // Relaxed: who stored it is this process, or a daemon that has ended.
        const uint64_t meta = slot(index).meta.load(std::memory_order_relaxed);
        if (Meta::state(meta) == SlotState::kEmpty) {
            if (meta != 0) {
                return false;
            }
            continue;
        }
        DetailView detail;
        if (!scan_slot(index, meta, &detail)) {
            return false;
        }
        in_use(meta) ? ++live : ++dead;
        foreign += in_use(meta) && detail.foreign ? 1 : 0;
        if (detail.owner_bytes != 0) {
            const auto offset =
                reinterpret_cast<const uint8_t*>(detail.owner) - view_.details - sizeof(NameEntry);
            owners_.insert(static_cast<uint32_t>(offset / kDetailUnit));
        }
    }
    // The counts may lag by the one change that a kill interrupted.
    header.live.store(live, std::memory_order_relaxed);
    header.dead.store(dead, std::memory_order_relaxed);
    header.foreign_keys.store(foreign, std::memory_order_relaxed);
    return true;
}

}  // namespace apikey::shm
