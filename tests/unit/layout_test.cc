// Every byte of the layout against numbers written down here, so that no edit of layout.h moves one
// unnoticed. A number that has to change here is another layout: raise kAbi, or make sure the hash changed.

#include "shm/layout.h"

#include <gtest/gtest.h>

namespace {

using namespace apikey::shm;

TEST(Layout, FingerprintIsPinned) {
    EXPECT_EQ(kAbi, 4u);
    EXPECT_EQ(layout_hash(), 0xd2aa02d7c8f41c06ULL);
}

TEST(Layout, MagicNumbersReadAsText) {
    const auto text = [](uint64_t magic) { return std::string(reinterpret_cast<const char*>(&magic), 8); };
    EXPECT_EQ(text(kControlMagic), "keyctrl1");
    EXPECT_EQ(text(kTableMagic), "keytabl1");
    EXPECT_EQ(text(kCellsMagic), "keycell1");
}

TEST(Layout, Control) {
    EXPECT_EQ(sizeof(Control), 4096u);
    EXPECT_EQ(offsetof(Control, magic), 0u);
    EXPECT_EQ(offsetof(Control, abi), 8u);
    EXPECT_EQ(offsetof(Control, state), 12u);
    EXPECT_EQ(offsetof(Control, instance), 16u);
    EXPECT_EQ(offsetof(Control, boot), 32u);
    EXPECT_EQ(offsetof(Control, current_next), 48u);
    EXPECT_EQ(offsetof(Control, heartbeat_ns), 56u);
    EXPECT_EQ(offsetof(Control, layout_hash), 64u);
    EXPECT_EQ(offsetof(Control, daemon_pid), 72u);
    EXPECT_EQ(offsetof(Control, started_ns), 80u);
    EXPECT_EQ(offsetof(Control, applied_position), 88u);
    EXPECT_EQ(offsetof(Control, source_fingerprint), 96u);
    EXPECT_EQ(offsetof(Control, source_loaded_ns), 104u);
    EXPECT_EQ(offsetof(Control, source_refused), 112u);
    EXPECT_EQ(offsetof(Control, usage_flushed_ns), 120u);
}

TEST(Layout, CurrentAndNextShareAWord) {
    const uint64_t word = make_current_next(0x11223344, 0x55667788);
    EXPECT_EQ(word, 0x1122334455667788u);
    EXPECT_EQ(current_of(word), 0x11223344u);
    EXPECT_EQ(next_of(word), 0x55667788u);
}

TEST(Layout, TableHeader) {
    EXPECT_EQ(sizeof(TableHeader), 1024u);
    EXPECT_EQ(offsetof(TableHeader, magic), 0u);
    EXPECT_EQ(offsetof(TableHeader, abi), 8u);
    EXPECT_EQ(offsetof(TableHeader, header_bytes), 12u);
    EXPECT_EQ(offsetof(TableHeader, file_bytes), 16u);
    EXPECT_EQ(offsetof(TableHeader, generation), 24u);
    EXPECT_EQ(offsetof(TableHeader, predecessor), 32u);
    EXPECT_EQ(offsetof(TableHeader, uid), 40u);
    EXPECT_EQ(offsetof(TableHeader, slots_offset), 56u);
    EXPECT_EQ(offsetof(TableHeader, slot_count), 64u);
    EXPECT_EQ(offsetof(TableHeader, slot_stride), 72u);
    EXPECT_EQ(offsetof(TableHeader, digest_offset), 76u);
    EXPECT_EQ(offsetof(TableHeader, digest_length), 80u);
    EXPECT_EQ(offsetof(TableHeader, meta_offset), 84u);
    EXPECT_EQ(offsetof(TableHeader, layout_hash), 88u);
    EXPECT_EQ(offsetof(TableHeader, hash_seed), 96u);
    EXPECT_EQ(offsetof(TableHeader, probe_lines_max), 104u);
    EXPECT_EQ(offsetof(TableHeader, policies_offset), 112u);
    EXPECT_EQ(offsetof(TableHeader, policy_capacity), 120u);
    EXPECT_EQ(offsetof(TableHeader, scopes_offset), 128u);
    EXPECT_EQ(offsetof(TableHeader, scopes_bytes), 136u);
    EXPECT_EQ(offsetof(TableHeader, details_offset), 144u);
    EXPECT_EQ(offsetof(TableHeader, details_bytes), 152u);
    EXPECT_EQ(offsetof(TableHeader, seeds_offset), 160u);
    EXPECT_EQ(offsetof(TableHeader, seed_count), 168u);
    EXPECT_EQ(kGroupLines, 16u);
    EXPECT_EQ(offsetof(TableHeader, live), 176u);
    EXPECT_EQ(offsetof(TableHeader, dead), 184u);
    EXPECT_EQ(offsetof(TableHeader, foreign_keys), 192u);
    EXPECT_EQ(offsetof(TableHeader, details_used), 200u);
    EXPECT_EQ(offsetof(TableHeader, policies_used), 208u);
    EXPECT_EQ(offsetof(TableHeader, plans_used), 216u);
    EXPECT_EQ(offsetof(TableHeader, owners_used), 224u);
    EXPECT_EQ(offsetof(TableHeader, scopes_used), 232u);
    EXPECT_EQ(offsetof(TableHeader, environments), 256u);
    EXPECT_EQ(offsetof(TableHeader, plans_offset), 512u);
    EXPECT_EQ(offsetof(TableHeader, plan_capacity), 520u);
    EXPECT_EQ(offsetof(TableHeader, owners_offset), 528u);
    EXPECT_EQ(offsetof(TableHeader, owner_capacity), 536u);
    EXPECT_EQ(kEnvironmentsMax, 16u);
    EXPECT_EQ(kEnvironmentNameBytes, 16u);
}

TEST(Layout, SlotPolicyAndDetails) {
    EXPECT_EQ(sizeof(Slot), 32u);
    EXPECT_EQ(offsetof(Slot, digest), 0u);
    EXPECT_EQ(offsetof(Slot, tag), 16u);
    EXPECT_EQ(offsetof(Slot, detail), 20u);
    EXPECT_EQ(offsetof(Slot, meta), 24u);
    EXPECT_EQ(sizeof(Policy), 64u);
    EXPECT_EQ(offsetof(Policy, scopes), 0u);
    EXPECT_EQ(kScopesMax, 384u);
    EXPECT_EQ(offsetof(Policy, plan), 48u);
    EXPECT_EQ(offsetof(Policy, owner), 52u);
    EXPECT_EQ(offsetof(Policy, addresses), 56u);
    EXPECT_EQ(offsetof(Policy, overrides), 60u);
    EXPECT_EQ(sizeof(PlanSlot), 8u);
    EXPECT_EQ(offsetof(PlanSlot, name), 4u);
    EXPECT_EQ(sizeof(OwnerSlot), 8u);
    EXPECT_EQ(offsetof(OwnerSlot, name), 4u);
    EXPECT_EQ(sizeof(ScopeName), 64u);
    EXPECT_EQ(sizeof(PolicyList), 8u);
    EXPECT_EQ(offsetof(PolicyList, words_used), 4u);
    EXPECT_EQ(sizeof(AddressRange), 24u);
    EXPECT_EQ(offsetof(AddressRange, prefix_bits), 16u);
    EXPECT_EQ(sizeof(Limit), 64u);
    EXPECT_EQ(offsetof(Limit, allowance), 8u);
    EXPECT_EQ(offsetof(Limit, burst), 16u);
    EXPECT_EQ(offsetof(Limit, tag), 20u);
    EXPECT_EQ(offsetof(Limit, kind), 22u);
    EXPECT_EQ(offsetof(Limit, flags), 23u);
    EXPECT_EQ(offsetof(Limit, word), 24u);
    EXPECT_EQ(offsetof(Limit, rate_requests), 28u);
    EXPECT_EQ(offsetof(Limit, rate_seconds), 32u);
    EXPECT_EQ(offsetof(Limit, name), 40u);
    EXPECT_EQ(kDetailUnit, 8u);
    EXPECT_EQ(sizeof(DetailEntry), 12u);
    EXPECT_EQ(offsetof(DetailEntry, owner), 0u);
    EXPECT_EQ(offsetof(DetailEntry, created_s), 4u);
    EXPECT_EQ(offsetof(DetailEntry, form_and_metadata_bytes), 8u);
    EXPECT_EQ(offsetof(DetailEntry, name_bytes), 10u);
    EXPECT_EQ(offsetof(DetailEntry, id_bytes), 11u);
    EXPECT_EQ(sizeof(NameEntry), 8u);
    EXPECT_EQ(offsetof(NameEntry, name_bytes), 0u);
}

TEST(Layout, CellsHeader) {
    EXPECT_EQ(sizeof(CellsHeader), 256u);
    EXPECT_EQ(offsetof(CellsHeader, magic), 0u);
    EXPECT_EQ(offsetof(CellsHeader, abi), 8u);
    EXPECT_EQ(offsetof(CellsHeader, header_bytes), 12u);
    EXPECT_EQ(offsetof(CellsHeader, file_bytes), 16u);
    EXPECT_EQ(offsetof(CellsHeader, generation), 24u);
    EXPECT_EQ(offsetof(CellsHeader, predecessor), 32u);
    EXPECT_EQ(offsetof(CellsHeader, uid), 40u);
    EXPECT_EQ(offsetof(CellsHeader, cells_offset), 56u);
    EXPECT_EQ(offsetof(CellsHeader, cell_count), 64u);
    EXPECT_EQ(offsetof(CellsHeader, cell_stride), 72u);
    EXPECT_EQ(offsetof(CellsHeader, shards), 76u);
    EXPECT_EQ(offsetof(CellsHeader, shard_stride), 80u);
    EXPECT_EQ(offsetof(CellsHeader, allowed_offset), 88u);
    EXPECT_EQ(offsetof(CellsHeader, denied_offset), 92u);
    EXPECT_EQ(offsetof(CellsHeader, meters_offset), 96u);
    EXPECT_EQ(offsetof(CellsHeader, meter_words), 100u);
    EXPECT_EQ(offsetof(CellsHeader, layout_hash), 104u);
    EXPECT_EQ(offsetof(CellsHeader, dirty_offset), 112u);
    EXPECT_EQ(offsetof(CellsHeader, dirty_bytes), 120u);
    EXPECT_EQ(offsetof(CellsHeader, dirty_shift), 128u);
    EXPECT_EQ(offsetof(CellsHeader, totals_shards), 132u);
    EXPECT_EQ(offsetof(CellsHeader, totals_offset), 136u);
    EXPECT_EQ(offsetof(CellsHeader, owners_offset), 144u);
    EXPECT_EQ(offsetof(CellsHeader, owner_count), 152u);
    EXPECT_EQ(offsetof(CellsHeader, ring_offset), 160u);
    EXPECT_EQ(offsetof(CellsHeader, ring_count), 168u);
    EXPECT_EQ(sizeof(Cell), 16u);
    EXPECT_EQ(offsetof(Cell, allowed), 0u);
    EXPECT_EQ(offsetof(Cell, denied), 8u);
    EXPECT_EQ(sizeof(CodeTotals), 128u);
    EXPECT_EQ(kCodesMax, 16u);
}

TEST(Layout, Denials) {
    EXPECT_EQ(sizeof(DenialEntry), 128u);
    EXPECT_EQ(kDenialWords, 16u);
    EXPECT_EQ(sizeof(DenialRing), 384u);
    EXPECT_EQ(offsetof(DenialRing, begun), 0u);
    EXPECT_EQ(offsetof(DenialRing, room), 64u);
    EXPECT_EQ(offsetof(DenialRing, open), 192u);
    EXPECT_EQ(offsetof(DenialRing, read), 200u);
    EXPECT_EQ(offsetof(DenialRing, told), 208u);
    EXPECT_EQ(sizeof(Denial), 64u);
    EXPECT_EQ(offsetof(Denial, time_ns), 0u);
    EXPECT_EQ(offsetof(Denial, slot), 8u);
    EXPECT_EQ(offsetof(Denial, key_id), 16u);
    EXPECT_EQ(offsetof(Denial, pid), 28u);
    EXPECT_EQ(offsetof(Denial, address), 32u);
    EXPECT_EQ(offsetof(Denial, code), 48u);
    EXPECT_EQ(offsetof(Denial, parts), 49u);
    EXPECT_EQ(offsetof(Denial, key_mark), 50u);
}

TEST(Layout, StatesKeepTheirNumbers) {
    EXPECT_EQ(static_cast<int>(SlotState::kEmpty), 0);
    EXPECT_EQ(static_cast<int>(SlotState::kActive), 1);
    EXPECT_EQ(static_cast<int>(SlotState::kDisabled), 2);
    EXPECT_EQ(static_cast<int>(SlotState::kRevoked), 3);
    EXPECT_EQ(static_cast<int>(SlotState::kDead), 4);
    EXPECT_EQ(static_cast<int>(SlotState::kElsewhere), 5);
    EXPECT_EQ(static_cast<int>(ControlState::kStarting), 1);
    EXPECT_EQ(static_cast<int>(ControlState::kServing), 2);
    EXPECT_EQ(static_cast<int>(ControlState::kStopped), 3);
    EXPECT_EQ(static_cast<int>(ControlState::kSuperseded), 4);
}

TEST(Layout, MetaBits) {
    // state 3 in the top three bits, then 33 bits of expiry, 22 of policy, a spare one, 4 of environment, a
    // spare one.
    EXPECT_EQ(Meta::make(SlotState::kRevoked, 0, 0, 0), uint64_t{3} << 61);
    EXPECT_EQ(Meta::make(SlotState::kEmpty, 1, 0, 0), uint64_t{1} << 28);
    EXPECT_EQ(Meta::make(SlotState::kEmpty, 0, 1, 0), uint64_t{1} << 6);
    EXPECT_EQ(Meta::make(SlotState::kEmpty, 0, 0, 1), uint64_t{1} << 1);
    EXPECT_EQ(Meta::kNever, 0x1ffffffffu);
}

TEST(Layout, MetaPartsDoNotTouchEachOther) {
    const uint64_t full = Meta::make(SlotState::kElsewhere, Meta::kNever, Meta::kPolicyMask, 15);
    EXPECT_EQ(Meta::state(full), SlotState::kElsewhere);
    EXPECT_EQ(Meta::expires_s(full), Meta::kNever);
    EXPECT_EQ(Meta::policy(full), (1u << 22) - 1);
    EXPECT_EQ(Meta::environment(full), 15u);
    EXPECT_EQ(full & 0x21, 0u) << "the spare bits stay clear";
    for (unsigned bit = 0; bit < 64; ++bit) {
        const uint64_t meta = uint64_t{1} << bit;
        const unsigned owners = (Meta::state(meta) != SlotState::kEmpty ? 1u : 0u) +
                                (Meta::expires_s(meta) != 0 ? 1u : 0u) + (Meta::policy(meta) != 0 ? 1u : 0u) +
                                (Meta::environment(meta) != 0 ? 1u : 0u);
        EXPECT_EQ(owners, bit == 0 || bit == 5 ? 0u : 1u) << "bit " << bit;
    }
    const uint64_t meta = Meta::make(SlotState::kActive, 1234567890, 77, 3);
    const uint64_t dead = Meta::with_state(meta, SlotState::kDead);
    EXPECT_EQ(Meta::state(dead), SlotState::kDead);
    EXPECT_EQ(Meta::with_state(dead, SlotState::kActive), meta);
}

}  // namespace
