#include "shm/header_checks.h"

namespace apikey::shm {
namespace {

constexpr uint32_t kProbeLinesLimit = 1u << 16;
constexpr uint32_t kShardsLimit = 1u << 12;

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
    if (header.file_bytes != bytes) {
        return header.file_bytes > bytes ? AttachResult::kTruncated : AttachResult::kBadGeometry;
    }
    // Loaded once; what is checked below is what the view keeps.
    const uint64_t slots_offset = header.slots_offset;
    const uint64_t slot_count = header.slot_count;
    const uint64_t details_offset = header.details_offset;
    const uint64_t details_bytes = header.details_bytes;
    const uint32_t probe_lines_max = header.probe_lines_max;
    const bool shape_ok =
        header.header_bytes == sizeof(TableHeader) && header.generation == generation &&
        header.slot_stride == sizeof(Slot) && header.digest_offset == offsetof(Slot, digest) &&
        header.digest_length == sizeof(Slot::digest) && header.meta_offset == offsetof(Slot, meta);
    const bool slots_ok = slot_count >= kSlotsPerLine && slot_count % (kSlotsPerLine * kGroupLines) == 0 &&
                          slots_offset >= sizeof(TableHeader) && slots_offset % 64 == 0 &&
                          fits_array(slots_offset, slot_count, sizeof(Slot), bytes) && probe_lines_max >= 1 &&
                          probe_lines_max <= kProbeLinesLimit &&
                          probe_lines_max <= slot_count / kSlotsPerLine;
    // The areas stand in this order and do not overlap: a writer that adopts the file appends to the details
    // and must not reach the slots.
    const uint64_t slots_end = slots_offset + slot_count * sizeof(Slot);  // fits, so it does not overflow
    const uint64_t seeds_offset = header.seeds_offset;
    const uint64_t seed_count = header.seed_count;
    const bool seeds_ok = seed_count == slot_count / kSlotsPerLine / kGroupLines &&
                          seeds_offset >= slots_end && fits(seeds_offset, seed_count, bytes);
    const uint64_t policies_offset = header.policies_offset;
    const uint64_t policy_capacity = header.policy_capacity;
    const bool policies_ok = policies_offset % sizeof(uint64_t) == 0 && policy_capacity >= 1 &&
                             policies_offset >= seeds_offset + seed_count &&
                             fits_array(policies_offset, policy_capacity, sizeof(Policy), bytes);
    const bool rest_ok = details_offset % kDetailUnit == 0 &&
                         details_offset >= policies_offset + policy_capacity * sizeof(Policy) &&
                         fits(details_offset, details_bytes, bytes) &&
                         fits(header.scopes_offset, header.scopes_bytes, bytes);
    if (!shape_ok || !slots_ok || !seeds_ok || !policies_ok || !rest_ok) {
        return AttachResult::kBadGeometry;
    }
    out->base = static_cast<const uint8_t*>(base);
    out->bytes = bytes;
    out->slots = reinterpret_cast<const Slot*>(out->base + slots_offset);
    out->group_seeds = out->base + seeds_offset;
    out->group_count = seed_count;
    out->hash_seed = header.hash_seed;
    out->probe_lines_max = probe_lines_max;
    out->generation = generation;
    out->details = out->base + details_offset;
    out->details_bytes = details_bytes;
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
    if (header.file_bytes != bytes) {
        return header.file_bytes > bytes ? AttachResult::kTruncated : AttachResult::kBadGeometry;
    }
    const bool same_generation = header.generation == table.generation &&
                                 header.cell_count == table.slot_count() &&
                                 __builtin_memcmp(header.uid, table.header().uid, kUidLength) == 0;
    const bool stride_ok = header.cell_stride == 16 || header.cell_stride == 32 || header.cell_stride == 64;
    const bool cells_ok =
        stride_ok && header.header_bytes == sizeof(CellsHeader) && header.cells_offset % 64 == 0 &&
        header.cells_offset >= sizeof(CellsHeader) && header.allowed_offset == offsetof(Cell, allowed) &&
        header.denied_offset == offsetof(Cell, denied) && header.meters_offset == sizeof(Cell) &&
        header.meter_words <= (header.cell_stride - sizeof(Cell)) / sizeof(Word) && header.shards >= 1 &&
        header.shards <= kShardsLimit && header.shard_stride % 64 == 0 &&
        header.cell_count <= header.shard_stride / header.cell_stride &&
        fits_array(header.cells_offset, header.shards, header.shard_stride, bytes);
    const bool totals_ok = header.totals_shards >= 1 && header.totals_shards <= kShardsLimit &&
                           header.totals_offset % 64 == 0 && header.totals_offset >= sizeof(CellsHeader) &&
                           fits_array(header.totals_offset, header.totals_shards, sizeof(CodeTotals), bytes);
    // Header, totals, cells, dirty map: in this order and without overlapping, or counting one would change
    // another.
    const bool rest_ok =
        totals_ok && cells_ok &&
        header.totals_offset + header.totals_shards * sizeof(CodeTotals) <= header.cells_offset &&
        header.dirty_offset >= header.cells_offset + header.shards * header.shard_stride &&
        header.dirty_shift < 32 &&
        header.dirty_bytes == ((header.cell_count - 1) >> header.dirty_shift) + 1 &&
        fits(header.dirty_offset, header.dirty_bytes, bytes);
    if (!same_generation || !rest_ok) {
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
    return AttachResult::kOk;
}

}  // namespace apikey::shm
