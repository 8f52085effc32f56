#include "shm/header_checks.h"

#include <bit>

namespace apikey::shm {
namespace {

constexpr uint32_t kProbeLinesLimit = 1u << 16;
constexpr uint32_t kShardsLimit = 1u << 12;
constexpr uint64_t kDenialsLimit = 1u << 20;

bool fits(uint64_t offset, uint64_t length, uint64_t bytes) {
    return offset <= bytes && length <= bytes - offset;
}

/// count x stride bytes at offset, without overflow.
bool fits_array(uint64_t offset, uint64_t count, uint64_t stride, uint64_t bytes) {
    return stride != 0 && count <= bytes / stride && fits(offset, count * stride, bytes);
}

/// Whether a header is the one asked for, and of this build's layout.
template <typename Header>
AttachResult check_kind(const Header& header, uint64_t magic) {
    if (header.magic != magic) {
        return AttachResult::kBadMagic;
    }
    if (header.abi != kAbi) {
        return AttachResult::kAbiMismatch;
    }
    return header.layout_hash == layout_hash() ? AttachResult::kOk : AttachResult::kLayoutMismatch;
}

AttachResult check_size(uint64_t stated_bytes, uint64_t bytes) {
    if (stated_bytes != bytes) {
        return stated_bytes > bytes ? AttachResult::kTruncated : AttachResult::kBadGeometry;
    }
    return AttachResult::kOk;
}

/// A table's areas as its header says, loaded once: what is checked is what the view keeps. They stand in
/// this order and do not overlap, since a writer that adopts the file appends to the details and must not
/// reach the slots. Each check takes for granted that the one before it held, and so that no sum of its
/// figures overflows.
struct TableAreas {
    uint64_t slots_offset;
    uint64_t slot_count;
    uint32_t probe_lines_max;
    uint64_t seeds_offset;
    uint64_t seed_count;
    uint64_t policies_offset;
    uint64_t policy_capacity;
    uint64_t plans_offset;
    uint64_t plan_capacity;
    uint64_t owners_offset;
    uint64_t owner_capacity;
    uint64_t scopes_offset;
    uint64_t scopes_bytes;
    uint64_t details_offset;
    uint64_t details_bytes;
};

bool shape_ok(const TableHeader& header) {
    return header.header_bytes == sizeof(TableHeader) && header.slot_stride == sizeof(Slot) &&
           header.digest_offset == offsetof(Slot, digest) && header.digest_length == sizeof(Slot::digest) &&
           header.meta_offset == offsetof(Slot, meta);
}

bool slots_ok(const TableAreas& areas, uint64_t bytes) {
    return areas.slot_count >= kSlotsPerLine && areas.slot_count % (kSlotsPerLine * kGroupLines) == 0 &&
           areas.slots_offset >= sizeof(TableHeader) && areas.slots_offset % 64 == 0 &&
           fits_array(areas.slots_offset, areas.slot_count, sizeof(Slot), bytes) &&
           areas.probe_lines_max >= 1 && areas.probe_lines_max <= kProbeLinesLimit &&
           areas.probe_lines_max <= areas.slot_count / kSlotsPerLine;
}

bool seeds_ok(const TableAreas& areas, uint64_t bytes) {
    return areas.seed_count == areas.slot_count / kSlotsPerLine / kGroupLines &&
           areas.seeds_offset >= areas.slots_offset + areas.slot_count * sizeof(Slot) &&
           fits(areas.seeds_offset, areas.seed_count, bytes);
}

bool policies_ok(const TableAreas& areas, uint64_t bytes) {
    return areas.policies_offset % sizeof(uint64_t) == 0 && areas.policy_capacity >= 1 &&
           areas.policies_offset >= areas.seeds_offset + areas.seed_count &&
           fits_array(areas.policies_offset, areas.policy_capacity, sizeof(Policy), bytes);
}

bool plans_ok(const TableAreas& areas, uint64_t bytes) {
    return areas.plans_offset % sizeof(PlanSlot) == 0 &&
           areas.plans_offset >= areas.policies_offset + areas.policy_capacity * sizeof(Policy) &&
           fits_array(areas.plans_offset, areas.plan_capacity, sizeof(PlanSlot), bytes);
}

bool owners_ok(const TableAreas& areas, uint64_t bytes) {
    return areas.owners_offset % sizeof(OwnerSlot) == 0 &&
           areas.owners_offset >= areas.plans_offset + areas.plan_capacity * sizeof(PlanSlot) &&
           fits_array(areas.owners_offset, areas.owner_capacity, sizeof(OwnerSlot), bytes);
}

bool scopes_ok(const TableAreas& areas, uint64_t bytes) {
    return areas.scopes_bytes % sizeof(ScopeName) == 0 &&
           areas.scopes_bytes <= kScopesMax * sizeof(ScopeName) &&
           areas.scopes_offset >= areas.owners_offset + areas.owner_capacity * sizeof(OwnerSlot) &&
           fits(areas.scopes_offset, areas.scopes_bytes, bytes);
}

bool details_ok(const TableAreas& areas, uint64_t bytes) {
    return areas.details_offset % kDetailUnit == 0 &&
           areas.details_offset >= areas.scopes_offset + areas.scopes_bytes &&
           fits(areas.details_offset, areas.details_bytes, bytes);
}

bool belongs_to(const CellsHeader& header, const TableView& table) {
    return header.generation == table.generation && header.cell_count == table.slot_count() &&
           __builtin_memcmp(header.uid, table.header().uid, kUidLength) == 0;
}

// Header, totals, cells, owners' meters, dirty map, denials: in this order and without overlapping, or
// counting one would change another.

bool totals_ok(const CellsHeader& header, uint64_t bytes) {
    return header.totals_shards >= 1 && header.totals_shards <= kShardsLimit &&
           header.totals_offset % 64 == 0 && header.totals_offset >= sizeof(CellsHeader) &&
           fits_array(header.totals_offset, header.totals_shards, sizeof(CodeTotals), bytes);
}

bool cell_shape_ok(const CellsHeader& header) {
    const bool stride_ok = header.cell_stride == 16 || header.cell_stride == 32 || header.cell_stride == 64;
    return stride_ok && header.header_bytes == sizeof(CellsHeader) &&
           header.allowed_offset == offsetof(Cell, allowed) &&
           header.denied_offset == offsetof(Cell, denied) && header.meters_offset == sizeof(Cell) &&
           header.meter_words <= (header.cell_stride - sizeof(Cell)) / sizeof(Word) &&
           header.meter_words <= kMeterWordsMax;
}

/// Once the totals and the cells' shape are right.
bool cells_ok(const CellsHeader& header, uint64_t bytes) {
    return header.cells_offset % 64 == 0 && header.cells_offset >= sizeof(CellsHeader) &&
           header.cells_offset >= header.totals_offset + header.totals_shards * sizeof(CodeTotals) &&
           header.shards >= 1 && header.shards <= kShardsLimit && header.shard_stride % 64 == 0 &&
           header.cell_count <= header.shard_stride / header.cell_stride &&
           fits_array(header.cells_offset, header.shards, header.shard_stride, bytes);
}

/// Once the cells are right.
bool owner_meters_ok(const CellsHeader& header, const TableView& table, uint64_t bytes) {
    return header.owner_count == table.owner_count && header.owners_offset % 64 == 0 &&
           header.owners_offset >= header.cells_offset + header.shards * header.shard_stride &&
           fits_array(header.owners_offset, header.owner_count, sizeof(OwnerMeters), bytes);
}

/// Once the owners' meters are right.
bool dirty_map_ok(const CellsHeader& header, uint64_t bytes) {
    return header.dirty_offset >= header.owners_offset + header.owner_count * sizeof(OwnerMeters) &&
           header.dirty_shift < 32 &&
           header.dirty_bytes == ((header.cell_count - 1) >> header.dirty_shift) + 1 &&
           fits(header.dirty_offset, header.dirty_bytes, bytes);
}

/// Once the dirty map is right.
bool denials_ok(const CellsHeader& header, uint64_t bytes) {
    return header.ring_offset % 64 == 0 && header.ring_offset >= header.dirty_offset + header.dirty_bytes &&
           header.ring_count != 0 && (header.ring_count & (header.ring_count - 1)) == 0 &&
           header.ring_count <= kDenialsLimit &&
           fits(header.ring_offset, sizeof(DenialRing) + header.ring_count * sizeof(DenialEntry), bytes);
}

}  // namespace

AttachResult check_control(const void* base, uint64_t bytes) {
    if (bytes < sizeof(Control)) {
        return AttachResult::kTruncated;
    }
    const auto& control = *static_cast<const Control*>(base);
    return check_kind(control, kControlMagic);
}

AttachResult check_table(const void* base, uint64_t bytes, uint32_t generation, TableView* out) {
    if (bytes < sizeof(TableHeader)) {
        return AttachResult::kTruncated;
    }
    const auto& header = *static_cast<const TableHeader*>(base);
    if (const AttachResult kind = check_kind(header, kTableMagic); kind != AttachResult::kOk) {
        return kind;
    }
    if (const AttachResult size = check_size(header.file_bytes, bytes); size != AttachResult::kOk) {
        return size;
    }
    const TableAreas areas{
        .slots_offset = header.slots_offset,
        .slot_count = header.slot_count,
        .probe_lines_max = header.probe_lines_max,
        .seeds_offset = header.seeds_offset,
        .seed_count = header.seed_count,
        .policies_offset = header.policies_offset,
        .policy_capacity = header.policy_capacity,
        .plans_offset = header.plans_offset,
        .plan_capacity = header.plan_capacity,
        .owners_offset = header.owners_offset,
        .owner_capacity = header.owner_capacity,
        .scopes_offset = header.scopes_offset,
        .scopes_bytes = header.scopes_bytes,
        .details_offset = header.details_offset,
        .details_bytes = header.details_bytes,
    };
    if (header.generation != generation || !shape_ok(header) || !slots_ok(areas, bytes) ||
        !seeds_ok(areas, bytes) || !policies_ok(areas, bytes) || !plans_ok(areas, bytes) ||
        !owners_ok(areas, bytes) || !scopes_ok(areas, bytes) || !details_ok(areas, bytes)) {
        return AttachResult::kBadGeometry;
    }
    out->base = static_cast<const uint8_t*>(base);
    out->bytes = bytes;
    out->slots = reinterpret_cast<const Slot*>(out->base + areas.slots_offset);
    out->group_seeds = out->base + areas.seeds_offset;
    out->group_count = areas.seed_count;
    out->hash_seed = header.hash_seed;
    out->probe_lines_max = areas.probe_lines_max;
    out->generation = generation;
    out->policies = reinterpret_cast<const Policy*>(out->base + areas.policies_offset);
    out->policy_count = areas.policy_capacity;
    out->plans = reinterpret_cast<const PlanSlot*>(out->base + areas.plans_offset);
    out->plan_count = areas.plan_capacity;
    out->owners = reinterpret_cast<const OwnerSlot*>(out->base + areas.owners_offset);
    out->owner_count = areas.owner_capacity;
    out->scopes = reinterpret_cast<const ScopeName*>(out->base + areas.scopes_offset);
    out->scope_count = areas.scopes_bytes / sizeof(ScopeName);
    out->details = out->base + areas.details_offset;
    out->details_bytes = areas.details_bytes;
    return AttachResult::kOk;
}

AttachResult check_cells(void* base, uint64_t bytes, const TableView& table, CellsView* out) {
    if (bytes < sizeof(CellsHeader)) {
        return AttachResult::kTruncated;
    }
    CellsHeader header;  // clients can write this page: a copy is checked, and the copy is used
    __builtin_memcpy(&header, base, sizeof header);
    if (const AttachResult kind = check_kind(header, kCellsMagic); kind != AttachResult::kOk) {
        return kind;
    }
    if (const AttachResult size = check_size(header.file_bytes, bytes); size != AttachResult::kOk) {
        return size;
    }
    if (!belongs_to(header, table) || !totals_ok(header, bytes) || !cell_shape_ok(header) ||
        !cells_ok(header, bytes) || !owner_meters_ok(header, table, bytes) || !dirty_map_ok(header, bytes) ||
        !denials_ok(header, bytes)) {
        return AttachResult::kBadGeometry;
    }
    out->base = static_cast<uint8_t*>(base);
    out->bytes = bytes;
    out->cells = out->base + header.cells_offset;
    out->cell_count = header.cell_count;
    out->cell_stride = header.cell_stride;
    out->shards = header.shards;
    out->shard_stride = header.shard_stride;
    out->dirty = reinterpret_cast<ByteWord*>(out->base + header.dirty_offset);
    out->dirty_bytes = header.dirty_bytes;
    out->dirty_shift = header.dirty_shift;
    out->totals_shards = header.totals_shards;
    out->totals = reinterpret_cast<CodeTotals*>(out->base + header.totals_offset);
    out->meter_words = header.meter_words;
    out->owners = reinterpret_cast<OwnerMeters*>(out->base + header.owners_offset);
    out->owner_count = header.owner_count;
    out->ring = reinterpret_cast<DenialRing*>(out->base + header.ring_offset);
    out->denials = reinterpret_cast<DenialEntry*>(out->ring + 1);
    out->denial_bits = static_cast<uint32_t>(std::countr_zero(header.ring_count));
    return AttachResult::kOk;
}

}  // namespace apikey::shm
