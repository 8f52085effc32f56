// The shared memory, byte by byte: structures, constants and assertions, and nothing else.
//
// LAYOUT.md beside this file draws the bytes and tells who may change what and in which order: a program
// written from that document alone reads a live table in tests/process/segment_reader.py.
//
// Every word that may change after publication is an atomic of a lock-free width; everything else is
// written once, before the word that makes it reachable. Integers are little-endian. Nothing here is a
// pointer.

#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "shm/atomics.h"

namespace apikey::shm {

static_assert(std::endian::native == std::endian::little, "the layout is little-endian");
static_assert(std::atomic<uint64_t>::is_always_lock_free && sizeof(std::atomic<uint64_t>) == 8);
static_assert(std::atomic<uint32_t>::is_always_lock_free && sizeof(std::atomic<uint32_t>) == 4);
static_assert(std::atomic<uint8_t>::is_always_lock_free && sizeof(std::atomic<uint8_t>) == 1);

using Word = Atomic<uint64_t>;
using HalfWord = Atomic<uint32_t>;
using ByteWord = Atomic<uint8_t>;

inline constexpr uint32_t kAbi = 4;
inline constexpr uint64_t kControlMagic = 0x316c72746379656bULL;  // "keyctrl1"
inline constexpr uint64_t kTableMagic = 0x316c62617479656bULL;    // "keytabl1"
inline constexpr uint64_t kCellsMagic = 0x316c6c656379656bULL;    // "keycell1"
inline constexpr size_t kUidLength = 16;
inline constexpr size_t kPageBytes = 4096;
inline constexpr size_t kHugePageBytes = size_t{2} << 20;

// ---------------------------------------------------------------------------------------------------------------
// control

/// What `control.state` says. kSuperseded sends a client back to the directory for another control file.
enum class ControlState : uint32_t { kStarting = 1, kServing = 2, kStopped = 3, kSuperseded = 4 };

/// The file `control`: one page, written by the daemon, reused in place by the next one.
struct Control {
    // Frozen for every ABI to come.
    uint64_t magic;
    uint32_t abi;
    HalfWord state;
    uint8_t instance[kUidLength];  ///< random, made with the file
    uint8_t boot[kUidLength];      ///< the kernel's boot id when the file was made
    Word current_next;             ///< current:32 | next:32, the generations; 0: none yet
    Word heartbeat_ns;             ///< CLOCK_REALTIME, once a heartbeat interval

    // Of this ABI.
    uint64_t layout_hash;
    Word daemon_pid;          ///< for people; never used to decide anything
    Word started_ns;          ///< CLOCK_REALTIME
    Word applied_position;    ///< counts applied loads and changes of the source; never falls while the file
                              ///< lives
    Word source_fingerprint;  ///< first 8 bytes of the SHA-256 of the source's content in force
    Word source_loaded_ns;    ///< CLOCK_REALTIME of the last load that was accepted
    Word source_refused;      ///< loads refused since the last accepted one
    Word usage_flushed_ns;    ///< CLOCK_REALTIME of the last flush into the usage store
    uint8_t reserved[3968];
};
static_assert(offsetof(Control, abi) == 8 && offsetof(Control, state) == 12 &&
              offsetof(Control, instance) == 16);
static_assert(offsetof(Control, boot) == 32 && offsetof(Control, current_next) == 48);
static_assert(offsetof(Control, heartbeat_ns) == 56 && offsetof(Control, layout_hash) == 64);
static_assert(sizeof(Control) == kPageBytes);

constexpr uint32_t current_of(uint64_t current_next) {
    return static_cast<uint32_t>(current_next >> 32);
}
constexpr uint32_t next_of(uint64_t current_next) {
    return static_cast<uint32_t>(current_next);
}
constexpr uint64_t make_current_next(uint32_t current, uint32_t next) {
    return static_cast<uint64_t>(current) << 32 | next;
}

// ---------------------------------------------------------------------------------------------------------------
// table.<g>

/// States of a slot: bits 63 to 61 of `meta`, frozen for every ABI to come.
enum class SlotState : uint8_t {
    kEmpty = 0,  ///< never used; ends a probe
    kActive = 1,
    kDisabled = 2,
    kRevoked = 3,
    kDead = 4,       ///< the key left the source; answers as if it were not there
    kElsewhere = 5,  ///< this file cannot say it; look in the current generation
};

/// `meta`: state:3 | expiry:33 | policy:22 | 0:1 | environment:4 | 0:1
struct Meta {
    static constexpr unsigned kStateShift = 61;
    static constexpr unsigned kExpiryShift = 28;
    static constexpr unsigned kPolicyShift = 6;
    static constexpr unsigned kEnvironmentShift = 1;
    static constexpr uint64_t kExpiryMask = (uint64_t{1} << 33) - 1;
    static constexpr uint64_t kPolicyMask = (uint64_t{1} << 22) - 1;
    static constexpr uint64_t kEnvironmentMask = 15;
    static constexpr uint64_t kNever = kExpiryMask;  ///< an expiry that never comes

    static constexpr uint64_t make(SlotState state, uint64_t expires_s, uint64_t policy,
                                   uint64_t environment) {
        return static_cast<uint64_t>(state) << kStateShift | (expires_s & kExpiryMask) << kExpiryShift |
               (policy & kPolicyMask) << kPolicyShift | (environment & kEnvironmentMask) << kEnvironmentShift;
    }
    static constexpr SlotState state(uint64_t meta) { return static_cast<SlotState>(meta >> kStateShift); }
    /// Unix seconds; the key is refused from that second on. kNever: never.
    static constexpr uint64_t expires_s(uint64_t meta) { return meta >> kExpiryShift & kExpiryMask; }
    static constexpr uint32_t policy(uint64_t meta) {
        return static_cast<uint32_t>(meta >> kPolicyShift & kPolicyMask);
    }
    static constexpr uint32_t environment(uint64_t meta) {
        return static_cast<uint32_t>(meta >> kEnvironmentShift & kEnvironmentMask);
    }
    static constexpr uint64_t with_state(uint64_t meta, SlotState state) {
        return (meta & ~(uint64_t{7} << kStateShift)) | static_cast<uint64_t>(state) << kStateShift;
    }
};

/// One key. Two stand in a cache line. `digest` and `tag` are the first 20 bytes of the key's SHA-256 and are
/// written once; `meta` and `detail` change later, each by one atomic store.
struct Slot {
    Plain<uint64_t> digest[2];
    Plain<uint32_t> tag;
    HalfWord detail;  ///< a DetailEntry, in units of kDetailUnit from the details' start; 0: none
    Word meta;
};
inline constexpr size_t kSlotsPerLine = 2;
/// So many lines share a seed byte, which was chosen so that their keys find room at home.
inline constexpr size_t kGroupLines = 16;
static_assert(sizeof(Slot) == 32 && offsetof(Slot, tag) == 16 && offsetof(Slot, detail) == 20);
static_assert(offsetof(Slot, meta) == 24 && sizeof(Slot) * kSlotsPerLine == 64);

/// What the first environments are called; an index of 0 is 'none'.
inline constexpr size_t kEnvironmentsMax = 16;
inline constexpr size_t kEnvironmentNameBytes = 16;  // NUL-padded

struct TableHeader {
    // Frozen for every ABI to come.
    uint64_t magic;
    uint32_t abi;
    uint32_t header_bytes;
    uint64_t file_bytes;
    uint64_t generation;
    uint64_t predecessor;  ///< 0: none
    uint8_t uid[kUidLength];
    uint64_t slots_offset;
    uint64_t slot_count;
    uint32_t slot_stride;
    uint32_t digest_offset;
    uint32_t digest_length;
    uint32_t meta_offset;

    // Of this ABI; written before the generation is announced.
    uint64_t layout_hash;
    uint64_t hash_seed;
    uint32_t probe_lines_max;
    uint32_t reserved_flags;
    uint64_t policies_offset;
    uint64_t policy_capacity;
    uint64_t scopes_offset;  ///< kScopesMax ScopeNames, by their bit
    uint64_t scopes_bytes;
    uint64_t details_offset;
    uint64_t details_bytes;
    uint64_t seeds_offset;  ///< a byte for each group of kGroupLines lines
    uint64_t seed_count;

    // Changed by the daemon while it serves.
    Word live;  ///< slots that are neither empty nor dead
    Word dead;
    Word foreign_keys;  ///< live keys found by digest; readers look a native-looking miss up twice when not 0
    Word details_used;  ///< bytes
    Word policies_used;  ///< entries, the first included
    Word plans_used;
    Word owners_used;
    Word scopes_used;  ///< names; they are complete before it rises
    uint8_t reserved[16];
    char environments[kEnvironmentsMax]
                     [kEnvironmentNameBytes];  ///< a name is complete before a meta names it

    // Written before the generation is announced.
    uint64_t plans_offset;
    uint64_t plan_capacity;
    uint64_t owners_offset;
    uint64_t owner_capacity;
    uint8_t reserved_tail[480];
};
static_assert(offsetof(TableHeader, header_bytes) == 12 && offsetof(TableHeader, file_bytes) == 16);
static_assert(offsetof(TableHeader, generation) == 24 && offsetof(TableHeader, predecessor) == 32);
static_assert(offsetof(TableHeader, uid) == 40 && offsetof(TableHeader, slots_offset) == 56);
static_assert(offsetof(TableHeader, slot_count) == 64 && offsetof(TableHeader, slot_stride) == 72);
static_assert(offsetof(TableHeader, digest_offset) == 76 && offsetof(TableHeader, digest_length) == 80);
static_assert(offsetof(TableHeader, meta_offset) == 84 && offsetof(TableHeader, layout_hash) == 88);
static_assert(offsetof(TableHeader, live) == 176 && offsetof(TableHeader, environments) == 256);
static_assert(offsetof(TableHeader, plans_offset) == 512 && sizeof(TableHeader) == 1024);

inline constexpr size_t kDetailUnit = 8;  // bytes; a 32-bit reference reaches 32 GiB
inline constexpr size_t kScopesMax = 384;

/// What many keys share. Entries are immutable and appended; entry 0 grants nothing and limits nothing.
struct Policy {
    uint64_t scopes[kScopesMax / 64];  ///< a bit for each scope name that is granted
    uint32_t plan;                     ///< index of a PlanSlot; 0: none
    uint32_t owner;                    ///< index of an OwnerSlot and of the owner's shared meters; 0: none
    uint32_t addresses;                ///< a PolicyList of AddressRanges, by detail reference; 0: any address
    uint32_t overrides;  ///< a PolicyList of Limits in place of the plan's of the same tag; 0: none
};
static_assert(sizeof(Policy) == 64);

/// A plan's place: one store of `body` changes it for all its keys. Index 0 is not used.
struct PlanSlot {
    HalfWord body;  ///< a PolicyList of Limits, by detail reference; or kPlanElsewhere
    uint32_t name;  ///< a NameEntry; written once
};
inline constexpr uint32_t kPlanElsewhere = 0xffffffff;  ///< this file cannot say it; look in the current one
static_assert(sizeof(PlanSlot) == 8);

/// An owner whose keys share limits. Index 0 is not used.
struct OwnerSlot {
    HalfWord plan;  ///< index of a PlanSlot; 0: none
    uint32_t name;  ///< a NameEntry; written once
};
static_assert(sizeof(OwnerSlot) == 8);

inline constexpr size_t kScopeNameBytes = 64;  // NUL-padded
struct ScopeName {
    char text[kScopeNameBytes];
};

/// Stands before `count` elements in the details. Immutable.
struct PolicyList {
    uint32_t count;
    uint32_t
        words_used;  ///< of limits: bit n says that meter word n has been some limit's in this generation
};
static_assert(sizeof(PolicyList) == 8);

/// The addresses that agree with `address` in the first `prefix_bits`; an IPv4 address stands as
/// ::ffff:a.b.c.d, with 96 more bits.
struct AddressRange {
    uint8_t address[16];
    uint8_t prefix_bits;
    uint8_t reserved[7];
};
static_assert(sizeof(AddressRange) == 24);

enum class LimitKind : uint8_t { kRate = 0, kHour = 1, kDay = 2, kMonth = 3 };
inline constexpr size_t kLimitNameBytes = 16;  // NUL-padded

/// A rate or a quota of a plan.
struct Limit {
    uint64_t interval;   ///< of a rate: of one request, in units of kMeterUnit_ns
    uint64_t allowance;  ///< of a rate: burst x interval; of a quota: requests a period
    uint32_t burst;      ///< of a rate: requests
    uint16_t tag;        ///< tells the plan and the limit's name in a meter word; not 0
    LimitKind kind;
    uint8_t flags;  ///< kLimitShadow, kLimitFine
    uint8_t word;   ///< which of the meter words
    uint8_t reserved[3];
    uint32_t rate_requests;  ///< as the source has it, for people: so many ...
    uint32_t rate_seconds;   ///< ... in so many seconds
    uint32_t reserved_word;
    char name[kLimitNameBytes];
    uint64_t reserved_tail;
};
inline constexpr uint8_t kLimitShadow = 1;  ///< counts what it would refuse, and refuses nothing
inline constexpr uint8_t kLimitFine = 2;    ///< the window is shorter than some ticks of the coarse clock
static_assert(sizeof(Limit) == 64);

/// What people want to know of a key and the hot path does not. Followed by id, name and metadata, no NULs,
/// padded to kDetailUnit: 24 bytes for a native key without a name. Immutable once a slot names it.
struct DetailEntry {
    uint32_t owner;                    ///< a NameEntry, in units of kDetailUnit; 0: none
    uint32_t created_s;                ///< Unix seconds, 0: unknown
    uint16_t form_and_metadata_bytes;  ///< kDetailForeign, and the metadata's length
    uint8_t name_bytes;
    uint8_t id_bytes;
};
inline constexpr uint16_t kDetailForeign = 0x8000;  ///< found by its digest
inline constexpr uint16_t kDetailMetadataMask = 0x7fff;
static_assert(sizeof(DetailEntry) == 12);

/// Longest words of a key's details, in bytes. Sources accept no longer ones.
inline constexpr size_t kDetailIdMax = 255;
inline constexpr size_t kDetailOwnerMax = 255;
inline constexpr size_t kDetailNameMax = 255;
inline constexpr size_t kDetailMetadataMax = 4096;
static_assert(kDetailMetadataMax <= kDetailMetadataMask);

/// The name of an owner, shared by its keys, or of a plan. Followed by the name, padded to kDetailUnit.
struct NameEntry {
    uint32_t name_bytes;
    uint32_t reserved;
};
static_assert(sizeof(NameEntry) == 8);

// ---------------------------------------------------------------------------------------------------------------
// cells.<g>

/// Counters of the slot with the same index. Meter words follow where the generation has them; those of
/// shard 0 are used.
struct Cell {
    Word allowed;
    Word denied;
};
static_assert(sizeof(Cell) == 16);

/// Most meter words of a key, and of an owner.
inline constexpr uint32_t kMeterWordsMax = 6;
/// The bytes of a cell with so many meter words.
constexpr uint32_t cell_stride(uint32_t meter_words) {
    return meter_words == 0 ? 16 : meter_words <= 2 ? 32 : 64;
}

/// Meters that all keys of an owner share, by the owner's index.
struct OwnerMeters {
    Word words[8];
};
static_assert(sizeof(OwnerMeters) == 64 && kMeterWordsMax <= 8);

struct CellsHeader {
    // Frozen for every ABI to come.
    uint64_t magic;
    uint32_t abi;
    uint32_t header_bytes;
    uint64_t file_bytes;
    uint64_t generation;
    uint64_t predecessor;
    uint8_t uid[kUidLength];  ///< the table's
    uint64_t cells_offset;
    uint64_t cell_count;    ///< the table's slot_count
    uint32_t cell_stride;   ///< 16, 32 or 64
    uint32_t shards;        ///< copies of the whole array, by CPU number
    uint64_t shard_stride;  ///< bytes
    uint32_t allowed_offset;
    uint32_t denied_offset;
    uint32_t meters_offset;
    uint32_t meter_words;  ///< per cell; 0: none

    // Of this ABI.
    uint64_t layout_hash;
    uint64_t dirty_offset;  ///< one byte for 2^dirty_shift cells
    uint64_t dirty_bytes;
    uint32_t dirty_shift;
    uint32_t totals_shards;  ///< by CPU number
    uint64_t totals_offset;  ///< totals_shards x CodeTotals
    uint64_t owners_offset;  ///< owner_count x OwnerMeters
    uint64_t owner_count;    ///< the table's owner_capacity
    uint64_t ring_offset;    ///< a DenialRing and its entries
    uint64_t ring_count;     ///< of entries; a power of two
    uint8_t reserved[80];
};
static_assert(offsetof(CellsHeader, cells_offset) == 56 && offsetof(CellsHeader, cell_count) == 64);
static_assert(offsetof(CellsHeader, cell_stride) == 72 && offsetof(CellsHeader, shards) == 76);
static_assert(offsetof(CellsHeader, shard_stride) == 80 && offsetof(CellsHeader, allowed_offset) == 88);
static_assert(offsetof(CellsHeader, denied_offset) == 92 && offsetof(CellsHeader, meters_offset) == 96);
static_assert(offsetof(CellsHeader, meter_words) == 100 && offsetof(CellsHeader, layout_hash) == 104);
static_assert(sizeof(CellsHeader) == 256);

/// How often each verdict code was answered on one CPU. A miss belongs to no key, so this is its only count.
inline constexpr size_t kCodesMax = 16;
struct CodeTotals {
    Word by_code[kCodesMax];
};
static_assert(sizeof(CodeTotals) == 128);

/// What the daemon's log tells of one denial, by parts that are there or not. Nothing that a key can be
/// recovered from: an id is public, and 16 bits of its SHA-256 tell one unknown key from another but no right
/// guess from a wrong one.
struct Denial {
    uint64_t time_ns;  ///< CLOCK_REALTIME
    uint64_t slot;     ///< kDenialSlot: of a key in the table
    char key_id[12];  ///< kDenialId: what an unknown key of the native form, its checksum right, calls itself
    uint32_t pid;     ///< of the server, as it knows itself; 0: not known
    uint8_t address[16];  ///< kDenialAddress: IPv4 as ::ffff:a.b.c.d
    uint8_t code;
    uint8_t parts;
    uint16_t key_mark;  ///< kDenialMark: of another unknown key, bytes 30 and 31 of the SHA-256
    uint8_t reserved[12];
};
inline constexpr uint8_t kDenialSlot = 1;
inline constexpr uint8_t kDenialId = 2;
inline constexpr uint8_t kDenialMark = 4;
inline constexpr uint8_t kDenialAddress = 8;
static_assert(sizeof(Denial) == 64 && offsetof(Denial, key_id) == 16 && offsetof(Denial, pid) == 28);
static_assert(offsetof(Denial, address) == 32 && offsetof(Denial, code) == 48);
static_assert(offsetof(Denial, parts) == 49 && offsetof(Denial, key_mark) == 50);

/// A Denial in the words' lower halves. Each upper half has the round of the ring in which it was written,
/// the first being 1: an entry whose halves agree is whole.
inline constexpr size_t kDenialWords = sizeof(Denial) / sizeof(uint32_t);
struct DenialEntry {
    Word words[kDenialWords];
};
static_assert(sizeof(DenialEntry) == 128);

/// Stands before the entries. See denials.h.
struct DenialRing {
    Word begun;  ///< entries so far, by clients; modulo ring_count the place of the next one
    uint8_t reserved_begun[56];
    Word room[kCodesMax];  ///< entries that may still be begun, by verdict code; not positive: none
    // The daemon's, for the next one.
    Word open;             ///< 1 while there is a log
    Word read;             ///< entries before this one are in it
    Word told[kCodesMax];  ///< answers that it has told of, one by one or as a number
    uint8_t reserved_told[48];
};
static_assert(offsetof(DenialRing, room) == 64 && offsetof(DenialRing, open) == 192);
static_assert(sizeof(DenialRing) == 384);

// ---------------------------------------------------------------------------------------------------------------
// A fingerprint of all the above: two builds with the same hash agree on the place of every field. What a
// field means (states, hashes, the order of a probe) is not in it: a change of that raises kAbi.

constexpr uint64_t layout_hash() {
    constexpr uint64_t facts[] = {
        kAbi,
        // control
        sizeof(Control),
        offsetof(Control, current_next),
        offsetof(Control, heartbeat_ns),
        offsetof(Control, layout_hash),
        offsetof(Control, daemon_pid),
        offsetof(Control, started_ns),
        offsetof(Control, applied_position),
        offsetof(Control, source_fingerprint),
        offsetof(Control, source_loaded_ns),
        offsetof(Control, source_refused),
        offsetof(Control, usage_flushed_ns),
        // table
        sizeof(TableHeader),
        offsetof(TableHeader, layout_hash),
        offsetof(TableHeader, hash_seed),
        offsetof(TableHeader, probe_lines_max),
        offsetof(TableHeader, policies_offset),
        offsetof(TableHeader, policy_capacity),
        offsetof(TableHeader, scopes_offset),
        offsetof(TableHeader, scopes_bytes),
        offsetof(TableHeader, details_offset),
        offsetof(TableHeader, details_bytes),
        offsetof(TableHeader, seeds_offset),
        offsetof(TableHeader, seed_count),
        offsetof(TableHeader, live),
        offsetof(TableHeader, dead),
        offsetof(TableHeader, foreign_keys),
        offsetof(TableHeader, details_used),
        offsetof(TableHeader, policies_used),
        offsetof(TableHeader, plans_used),
        offsetof(TableHeader, owners_used),
        offsetof(TableHeader, scopes_used),
        offsetof(TableHeader, environments),
        offsetof(TableHeader, plans_offset),
        offsetof(TableHeader, plan_capacity),
        offsetof(TableHeader, owners_offset),
        offsetof(TableHeader, owner_capacity),
        kEnvironmentsMax,
        kEnvironmentNameBytes,
        sizeof(Slot),
        offsetof(Slot, tag),
        offsetof(Slot, detail),
        offsetof(Slot, meta),
        kSlotsPerLine,
        kGroupLines,
        Meta::kStateShift,
        Meta::kExpiryShift,
        Meta::kPolicyShift,
        Meta::kEnvironmentShift,
        Meta::kExpiryMask,
        Meta::kPolicyMask,
        Meta::kEnvironmentMask,
        sizeof(Policy),
        kScopesMax,
        offsetof(Policy, plan),
        offsetof(Policy, owner),
        offsetof(Policy, addresses),
        offsetof(Policy, overrides),
        sizeof(PlanSlot),
        offsetof(PlanSlot, name),
        kPlanElsewhere,
        sizeof(OwnerSlot),
        offsetof(OwnerSlot, name),
        kScopeNameBytes,
        sizeof(PolicyList),
        offsetof(PolicyList, words_used),
        sizeof(AddressRange),
        offsetof(AddressRange, prefix_bits),
        sizeof(Limit),
        offsetof(Limit, allowance),
        offsetof(Limit, burst),
        offsetof(Limit, tag),
        offsetof(Limit, kind),
        offsetof(Limit, flags),
        offsetof(Limit, word),
        offsetof(Limit, rate_requests),
        offsetof(Limit, rate_seconds),
        offsetof(Limit, name),
        kLimitNameBytes,
        kLimitShadow,
        kLimitFine,
        kDetailUnit,
        sizeof(DetailEntry),
        offsetof(DetailEntry, owner),
        offsetof(DetailEntry, created_s),
        offsetof(DetailEntry, form_and_metadata_bytes),
        offsetof(DetailEntry, name_bytes),
        offsetof(DetailEntry, id_bytes),
        kDetailForeign,
        kDetailMetadataMask,
        sizeof(NameEntry),
        offsetof(NameEntry, name_bytes),
        // cells
        sizeof(CellsHeader),
        offsetof(CellsHeader, layout_hash),
        offsetof(CellsHeader, dirty_offset),
        offsetof(CellsHeader, dirty_bytes),
        offsetof(CellsHeader, dirty_shift),
        offsetof(CellsHeader, totals_shards),
        offsetof(CellsHeader, totals_offset),
        offsetof(CellsHeader, owners_offset),
        offsetof(CellsHeader, owner_count),
        offsetof(CellsHeader, ring_offset),
        offsetof(CellsHeader, ring_count),
        sizeof(Cell),
        offsetof(Cell, denied),
        kMeterWordsMax,
        cell_stride(1),
        cell_stride(kMeterWordsMax),
        sizeof(OwnerMeters),
        sizeof(CodeTotals),
        kCodesMax,
        sizeof(Denial),
        offsetof(Denial, slot),
        offsetof(Denial, key_id),
        offsetof(Denial, pid),
        offsetof(Denial, address),
        offsetof(Denial, code),
        offsetof(Denial, parts),
        offsetof(Denial, key_mark),
        sizeof(DenialEntry),
        sizeof(DenialRing),
        offsetof(DenialRing, room),
        offsetof(DenialRing, open),
        offsetof(DenialRing, read),
        offsetof(DenialRing, told),
    };
    uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a over the facts' bytes
    for (uint64_t fact : facts) {
        for (unsigned byte = 0; byte < 8; ++byte) {
            hash = (hash ^ (fact >> (8 * byte) & 0xff)) * 0x100000001b3ULL;
        }
    }
    return hash;
}

}  // namespace apikey::shm
