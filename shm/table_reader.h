// The keys of one generation, as readers see them.
//
// Thread safety: any number of readers in any number of processes; one writer (TableWriter).
//
// Invariants
//  1. A slot whose meta is not empty never changes its digest or tag again.      (TableWriter::publish)
//  2. Digest and tag are complete before meta leaves empty.                      (SYNC slot-published)
//  3. A probe has no hole: an empty slot ends it for good readers and late ones alike, because slots are
//     never emptied.
//  4. A detail entry is complete before a slot names it, and never changes.      (SYNC detail-published)
//
// By 1 and 2 one acquire load of meta is enough: reading needs no retry, waits for nobody, and a writer
// killed between any two instructions leaves every slot either empty or whole.
//
// Geometry is copied and checked once, at attach (attach.h). What is read later is never used as an index or
// a length before it is bounded, so a hostile segment can make a reader answer wrongly, but not crash or
// loop.

#pragma once

#include <cstring>
#include <string_view>

#include "shm/layout.h"

namespace apikey::shm {

__extension__ typedef unsigned __int128 Uint128;

inline constexpr uint64_t kNoSlot = ~uint64_t{0};

/// Checked geometry of a mapped table. Plain data; the mapping must outlive it.
struct TableView {
    const uint8_t* base = nullptr;
    uint64_t bytes = 0;
    const Slot* slots = nullptr;
    const uint8_t* group_seeds = nullptr;
    uint64_t group_count = 0;
    uint64_t hash_seed = 0;
    uint32_t probe_lines_max = 0;
    uint32_t generation = 0;
    const Policy* policies = nullptr;
    uint64_t policy_count = 0;
    const PlanSlot* plans = nullptr;
    uint64_t plan_count = 0;
    const OwnerSlot* owners = nullptr;
    uint64_t owner_count = 0;
    const ScopeName* scopes = nullptr;
    uint64_t scope_count = 0;
    const uint8_t* details = nullptr;
    uint64_t details_bytes = 0;

    const TableHeader& header() const { return *reinterpret_cast<const TableHeader*>(base); }
    uint64_t line_count() const { return group_count * kGroupLines; }
    uint64_t slot_count() const { return line_count() * kSlotsPerLine; }
};

/// The first 20 bytes of a key's SHA-256, as a slot holds them.
struct DigestKey {
    uint64_t digest[2];
    uint32_t tag;

    static DigestKey from(const uint8_t* sha256) {
        DigestKey key;
        std::memcpy(key.digest, sha256, sizeof key.digest);
        std::memcpy(&key.tag, sha256 + sizeof key.digest, sizeof key.tag);
        return key;
    }
};

/// The group a key belongs to: the hash scaled to their number (D. Lemire, "Fast random integer generation in
/// an interval", 2019), so that the number need not be a power of two.
inline uint64_t group_of(uint64_t hash, uint64_t group_count) {
    return static_cast<uint64_t>(static_cast<Uint128>(hash) * group_count >> 64);
}

/// The key's home among its group's lines: the upper bits of the hash times an odd number, another one for
/// each seed (multiply-shift, M. Dietzfelbinger et al., "A reliable randomized algorithm for the closest-pair
/// problem", 1997). The builder chooses the seed (group_seeds.h).
inline uint64_t line_in_group(uint64_t hash, uint8_t seed) {
    constexpr uint64_t kMultiplier = 0xd6e8feb86659fd93;  // odd, from P. Evensen's rrmxmx
    constexpr uint64_t kSeedStep = 0x9e3779b97f4a7c16;    // 2^64 / golden ratio, made even
    static_assert(kGroupLines == 16);
    return hash * (kMultiplier + seed * kSeedStep) >> 60;
}

/// The order in which a key's slots are looked at: both slots of its home line, the preferred one first, then
/// the next lines in the same way. Reader and writer walk the same order, which invariant 3 needs. The hash's
/// lowest bit chooses the preferred half.
class Probe {
  public:
    Probe() = default;  // to be assigned before anything else
    Probe(uint64_t hash, const TableView& table) : half_(hash & 1) {
        const uint64_t group = group_of(hash, table.group_count);
        line_ = group * kGroupLines + line_in_group(hash, table.group_seeds[group]);
    }

    uint64_t first() const { return line_ * kSlotsPerLine + half_; }
    uint64_t second() const { return line_ * kSlotsPerLine + (half_ ^ 1); }
    void next_line(const TableView& table) {
        if (++line_ == table.line_count()) {
            line_ = 0;
        }
    }

  private:
    uint64_t half_;
    uint64_t line_;
};

/// Compares without an early exit: the time does not tell how many bytes agree.
inline bool same_digest(const Slot& slot, const DigestKey& key) {
    return ((slot.digest[0] ^ key.digest[0]) | (slot.digest[1] ^ key.digest[1]) | (slot.tag ^ key.tag)) == 0;
}

/// A key's slot and what its meta said at one moment. `index` is kNoSlot when there is none.
struct Found {
    uint64_t index;
    uint64_t meta;
};

/// What one line says about a key.
enum class InLine : uint8_t {
    kFound,
    kEnd,   ///< an empty slot: the key is nowhere
    kNext,  ///< both slots belong to others
};

/// Looks into the probe's present line.
///
/// With branches, although which slot holds the key is as good as random: a predicted branch lets the next
/// key's loads start before this one's line has come. Told by arithmetic instead, a single hit among a
/// million keys took half as long again.
inline InLine find_in_line(const TableView& table, const Probe& probe, const DigestKey& key, Found* found) {
    for (const uint64_t other : {uint64_t{0}, uint64_t{1}}) {
        const uint64_t index = probe.first() ^ other;
        const Slot& slot = table.slots[index];
        // SYNC slot-published: pairs with the release store in TableWriter::publish(). A stale 'empty' here
        // only means that the key was added after this call began.
        const uint64_t meta = slot.meta.load(std::memory_order_acquire);
        if (Meta::state(meta) == SlotState::kEmpty) {
            return InLine::kEnd;
        }
        if (same_digest(slot, key)) {
            *found = {index, meta};
            return InLine::kFound;
        }
    }
    return InLine::kNext;
}

/// Looks for `key` from `probe` on. Wait-free: at most 2 x probe_lines_max loads of meta.
/// A dead slot is found too (its state says so); the caller decides what that means.
inline Found find_slot(const TableView& table, Probe probe, const DigestKey& key) {
    Found found{kNoSlot, 0};
    for (uint32_t lines = 0; lines < table.probe_lines_max; ++lines, probe.next_line(table)) {
        if (find_in_line(table, probe, key, &found) != InLine::kNext) [[likely]] {
            break;
        }
    }
    return found;
}

inline Found find_slot(const TableView& table, uint64_t hash, const DigestKey& key) {
    return find_slot(table, Probe(hash, table), key);
}

/// Copies an environment's name, which a meta named by its index; ends with a NUL.
inline void read_environment(const TableView& table, uint32_t index, char (&out)[kEnvironmentNameBytes + 1]) {
    read_plain(out, table.header().environments[index], kEnvironmentNameBytes);
    out[kEnvironmentNameBytes] = '\0';
}

/// A NameEntry's text, bounded by the mapping; not NUL-terminated. nullptr where there is none.
struct NameView {
    /// Empty where there is none.
    std::string_view string() const { return {text != nullptr ? text : "", bytes}; }

    const char* text = nullptr;
    uint32_t bytes = 0;
};
inline NameView read_name(const TableView& table, uint32_t reference) {
    const uint64_t at = uint64_t{reference} * kDetailUnit;
    NameEntry entry;
    if (reference == 0 || at + sizeof entry > table.details_bytes) {
        return {};
    }
    read_plain(&entry, table.details + at, sizeof entry);
    if (at + sizeof entry + entry.name_bytes > table.details_bytes) {
        return {};
    }
    return {reinterpret_cast<const char*>(table.details + at + sizeof entry), entry.name_bytes};
}

/// A detail entry's parts, bounded by the mapping. Pointers are into the segment and not NUL-terminated.
struct DetailView {
    const char* id = nullptr;
    const char* name = nullptr;
    const char* metadata = nullptr;
    const char* owner = nullptr;
    uint32_t id_bytes = 0;
    uint32_t name_bytes = 0;
    uint32_t metadata_bytes = 0;
    uint32_t owner_bytes = 0;
    uint32_t created_s = 0;
    bool foreign = false;
};

/// Reads the details behind a reference taken from a slot; false when there are none or they do not fit the
/// file.
inline bool read_detail(const TableView& table, uint32_t reference, DetailView* out) {
    *out = DetailView{};
    const uint64_t at = uint64_t{reference} * kDetailUnit;
    if (reference == 0 || at + sizeof(DetailEntry) > table.details_bytes) {
        return false;
    }
    DetailEntry entry;  // a copy: what was checked is what is used
    read_plain(&entry, table.details + at, sizeof entry);
    const uint32_t metadata_bytes = entry.form_and_metadata_bytes & kDetailMetadataMask;
    const uint64_t text_bytes = uint64_t{entry.id_bytes} + entry.name_bytes + metadata_bytes;
    if (at + sizeof entry + text_bytes > table.details_bytes) {
        return false;
    }
    const char* text = reinterpret_cast<const char*>(table.details + at + sizeof entry);
    out->id = text;
    out->id_bytes = entry.id_bytes;
    out->name = text + entry.id_bytes;
    out->name_bytes = entry.name_bytes;
    out->metadata = out->name + entry.name_bytes;
    out->metadata_bytes = metadata_bytes;
    out->created_s = entry.created_s;
    out->foreign = (entry.form_and_metadata_bytes & kDetailForeign) != 0;
    if (entry.owner != 0) {
        const NameView owner = read_name(table, entry.owner);
        if (owner.text == nullptr) {
            return false;
        }
        out->owner = owner.text;
        out->owner_bytes = owner.bytes;
    }
    return true;
}

/// What a slot says, for whoever walks a table that another thread changes. False for one that was never
/// used, or whose details cannot be read; one whose key is dead is seen, too.
inline bool see_slot(const TableView& table, uint64_t index, uint64_t* meta, DetailView* detail) {
    const Slot& slot = table.slots[index];
    *meta = slot.meta.load(std::memory_order_acquire);  // SYNC slot-published
    // SYNC detail-published: acquire; pairs with TableWriter::set_detail().
    return Meta::state(*meta) != SlotState::kEmpty &&
           read_detail(table, slot.detail.load(std::memory_order_acquire), detail);
}

}  // namespace apikey::shm
