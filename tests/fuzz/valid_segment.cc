#include "valid_segment.h"

#include <cstdlib>
#include <cstring>
#include <optional>

#include "memory_instance.h"
#include "shm/cells.h"
#include "shm/header_checks.h"
#include "shm/index_hash.h"
#include "shm/key_form.h"
#include "shm/meters.h"
#include "shm/sha256.h"

namespace apikey::fuzz {

using namespace apikey::shm;

namespace {

constexpr uint32_t kShards = 2;
constexpr uint64_t kOwners = 4;
constexpr uint8_t kUid[kUidLength] = {1, 2, 3, 4};
constexpr TableGeometry kGeometry{
    .slot_count = 64,
    .details_bytes = 8192,
    .policy_capacity = 16,
    .plan_capacity = 4,
    .owner_capacity = kOwners,
    .scope_capacity = 8,
};
constexpr uint64_t kCellsOffset = sizeof(CellsHeader) + kShards * sizeof(CodeTotals);
constexpr uint64_t kCellStride = cell_stride(kMeterWordsMax);
constexpr uint64_t kShardStride = kGeometry.slot_count * kCellStride;
constexpr uint64_t kOwnersOffset = kCellsOffset + kShards * kShardStride;
constexpr uint64_t kDirtyOffset = kOwnersOffset + kOwners * sizeof(OwnerMeters);
constexpr uint32_t kDirtyShift = 4;
constexpr uint64_t kDirtyBytes = kGeometry.slot_count >> kDirtyShift;
constexpr uint64_t kRingOffset = (kDirtyOffset + kDirtyBytes + 63) / 64 * 64;
constexpr uint64_t kDenials = 4;
constexpr uint64_t kRingBytes = sizeof(DenialRing) + kDenials * sizeof(DenialEntry);

void require(bool condition) {
    if (!condition) {
        abort();
    }
}

FuzzKey make_key(unsigned number) {
    FuzzKey key{};
    key.foreign = number % 3 == 0;
    if (key.foreign) {
        key.text = "a foreign key, number " + std::to_string(number);
        key.id = std::to_string(100'000'000'000 + number);
    } else {
        uint8_t random[64];
        char text[kNativeKeyLengthMax];
        for (size_t i = 0; i < sizeof random; ++i) {
            random[i] = static_cast<uint8_t>(number * 37 + i * 11);
        }
        key.text.assign(text, native_key_make("ak_test", 7, random, sizeof random, text));
        key.id.assign(native_key_id(key.text.data(), key.text.size()), kIdLength);
    }
    sha256_kernel().hash(key.text.data(), key.text.size(), key.sha256);
    return key;
}

Limit rate(const char* name, uint32_t requests, uint32_t seconds, uint32_t burst, uint8_t flags) {
    Limit limit{};
    std::strncpy(limit.name, name, sizeof limit.name - 1);
    limit.interval = rate_interval(requests, seconds);
    limit.allowance = burst * limit.interval;
    limit.burst = burst;
    limit.flags = flags;
    limit.rate_requests = requests;
    limit.rate_seconds = seconds;
    return limit;
}

Limit quota(const char* name, LimitKind kind, uint64_t requests, uint8_t flags) {
    Limit limit{};
    std::strncpy(limit.name, name, sizeof limit.name - 1);
    limit.kind = kind;
    limit.allowance = requests;
    limit.flags = flags;
    return limit;
}

void set_policies(PolicyWriter& policies) {
    for (const char* scope : {"a.read", "a.write", "b.read", "a.*"}) {
        require(policies.scope(scope).has_value());
    }
    const Limit all[] = {
        rate("fine", 1000, 1, 2, kLimitFine),     rate("slow", 3, 60, 3, 0),
        rate("shadow", 1, 3600, 1, kLimitShadow), quota("hourly", LimitKind::kHour, 20, 0),
        quota("daily", LimitKind::kDay, 30, 0),   quota("monthly", LimitKind::kMonth, 5, kLimitShadow),
    };
    const Limit one[] = {quota("daily", LimitKind::kDay, 100, 0)};
    require(policies.set_plan("all", all) && policies.set_plan("one", one));
    require(policies.set_owner("acme", "all") && policies.set_owner("other", "one"));
}

/// By the key's number, so that each kind is there a few times.
uint32_t policy_of(PolicyWriter& policies, unsigned number) {
    static const std::string kScopes[] = {"a.read", "b.read"};
    static const std::string kBranch[] = {"a.*"};
    static const AddressRange kAddresses[] = {
        {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2}, 120, {}},
        {{0x20, 0x01, 0x0d, 0xb8}, 33, {}},
    };
    static const Limit kOverrides[] = {quota("daily", LimitKind::kDay, 40, 0), rate("slow", 9, 60, 9, 0)};
    const PolicyText texts[] = {
        {},
        {.scopes = kScopes, .plan = "one"},
        {.scopes = kBranch, .plan = "all", .owner = "acme", .addresses = kAddresses, .overrides = kOverrides},
        {.owner = "other"},
        {.plan = "all"},
        {.scopes = kScopes, .plan = "one", .owner = "other", .addresses = kAddresses},
    };
    const std::optional<uint32_t> policy = policies.policy(texts[number % std::size(texts)]);
    require(policy.has_value());
    return *policy;
}

}  // namespace

uint64_t FuzzKey::hash(uint64_t seed) const {
    return foreign ? index_hash_digest(sha256, seed) : index_hash_id(id.data(), seed);
}

const std::vector<FuzzKey>& fuzz_keys() {
    static const std::vector<FuzzKey> keys = [] {
        std::vector<FuzzKey> made;
        for (unsigned number = 0; number <= kKeys; ++number) {
            made.push_back(make_key(number));
        }
        return made;
    }();
    return keys;
}

std::vector<uint8_t> valid_table(uint32_t generation, uint32_t predecessor, uint64_t seed) {
    Block block(kGeometry.file_bytes());
    TableWriter::format(block.data(), kGeometry, generation, predecessor, kUid, seed);
    reinterpret_cast<TableHeader*>(block.data())->probe_lines_max = 8;
    TableView view;
    require(check_table(block.data(), block.bytes(), generation, &view) == AttachResult::kOk);
    TableWriter writer(block.data(), view, kMeterWordsMax);
    const auto environment = writer.environment("live");
    set_policies(writer.policies());
    for (unsigned number = 0; number < kKeys; ++number) {
        const FuzzKey& key = fuzz_keys()[number];
        const uint32_t detail =
            writer.append_detail({key.id, number % 2 != 0 ? "acme" : "", "name", "{}", 1, key.foreign});
        const uint64_t meta =
            Meta::make(SlotState::kActive, Meta::kNever, policy_of(writer.policies(), number), *environment);
        require(detail != 0 && writer.publish(key.hash(seed), key.digest(), meta, detail, key.foreign) ==
                                   TableWriter::Publish::kDone);
    }
    require(writer.scan());
    return {block.data(), block.data() + block.bytes()};
}

std::vector<uint8_t> valid_cells(uint32_t generation, uint32_t predecessor) {
    CellsHeader header{};
    header.magic = kCellsMagic;
    header.abi = kAbi;
    header.header_bytes = sizeof header;
    header.generation = generation;
    header.predecessor = predecessor;
    std::memcpy(header.uid, kUid, sizeof kUid);
    header.totals_offset = sizeof header;
    header.totals_shards = kShards;
    header.cells_offset = kCellsOffset;
    header.cell_count = kGeometry.slot_count;
    header.cell_stride = kCellStride;
    header.shards = kShards;
    header.shard_stride = kShardStride;
    header.denied_offset = offsetof(Cell, denied);
    header.meters_offset = sizeof(Cell);
    header.meter_words = kMeterWordsMax;
    header.layout_hash = layout_hash();
    header.owners_offset = kOwnersOffset;
    header.owner_count = kOwners;
    header.dirty_offset = kDirtyOffset;
    header.dirty_shift = kDirtyShift;
    header.dirty_bytes = kDirtyBytes;
    header.ring_offset = kRingOffset;
    header.ring_count = kDenials;
    header.file_bytes = kRingOffset + kRingBytes;
    std::vector<uint8_t> made(header.file_bytes);
    std::memcpy(made.data(), &header, sizeof header);
    return made;
}

std::span<const Area, kAreas> table_areas() {
    static const Area kTable[kAreas] = {
        {256, sizeof(TableHeader) - 256},
        {kGeometry.slots_offset(), kGeometry.slot_count * sizeof(Slot)},
        {kGeometry.policies_offset(), 8 * sizeof(Policy)},
        {kGeometry.plans_offset(),
         kGeometry.plan_capacity * sizeof(PlanSlot) + kGeometry.owner_capacity * sizeof(OwnerSlot)},
        {kGeometry.scopes_offset(), 4 * sizeof(ScopeName)},
        {kGeometry.details_offset(), 2048},
        {kGeometry.details_offset() + 4096, 2048},
    };
    return kTable;
}

std::span<const Area, kAreas> cells_areas() {
    static const Area kCells[kAreas] = {
        {0, sizeof(CellsHeader)},
        {sizeof(CellsHeader), kShards * sizeof(CodeTotals)},
        {kCellsOffset, kShards * kShardStride},
        {kCellsOffset, kShardStride},
        {kOwnersOffset, kOwners * sizeof(OwnerMeters)},
        {kRingOffset, kRingBytes},
        {0, kRingOffset + kRingBytes},
    };
    return kCells;
}

}  // namespace apikey::fuzz
