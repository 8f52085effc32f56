#include "core/generation_plan.h"

#include <algorithm>
#include <string>
#include <thread>

#include "core/table_policies.h"

namespace apikeyd {

namespace {

using apikey::shm::GenerationPlan;
using apikey::shm::TableGeometry;
using apikey::shm::TableWriter;

/// Cells are sharded by CPU while all shards together stay within this.
constexpr uint64_t kShardsBudgetBytes = uint64_t{16} << 20;
/// What a key's details take where there is none to go by: id, a short owner's name and a short name.
constexpr uint64_t kDetailTypicalBytes = 64;
/// Of an owner that is only expected.
constexpr size_t kOwnerTypicalBytes = 16;

}  // namespace

GenerationPlan plan_generation(const PlannedKeys& planned, const TableGeometry::Policies& entries,
                               uint32_t meter_words) {
    const uint64_t keys = std::max(planned.keys, planned.capacity_keys);
    const uint64_t each_bytes =
        planned.keys != 0 ? planned.details_bytes / planned.keys + 1 : kDetailTypicalBytes;
    GenerationPlan plan{};
    plan.geometry =
        TableGeometry::for_keys(keys, planned.details_bytes + (keys - planned.keys) * each_bytes, entries);
    plan.meter_words = meter_words;
    plan.cpus = std::max(1u, std::thread::hardware_concurrency());
    plan.shards_budget_bytes = kShardsBudgetBytes;
    return plan;
}

GenerationPlan expected_generation(const ExpectedKeys& expected, uint64_t capacity_keys) {
    PolicySet set;
    if (expected.limits != 0) {
        set.plans.push_back({"plan", std::vector<LimitRow>(expected.limits)});
    }
    const std::string id(kKeyIdLength, 'x');
    const std::string text(expected.text_bytes, 'x');
    KeyRow row;
    row.owner = std::string(kOwnerTypicalBytes, 'x');
    const uint64_t owner_bytes =
        TableWriter::owner_bytes(row.owner) + apikey::shm::PolicyWriter::policy_bytes(RowPolicy(row).text());
    const uint64_t details_bytes = expected.keys * TableWriter::detail_bytes({.id = id, .metadata = text}) +
                                   expected.owners * owner_bytes + details_bytes_of(set);
    TableGeometry::Policies entries = entries_of(set);
    entries.policies = expected.owners;
    return plan_generation({expected.keys, details_bytes, capacity_keys}, entries, meter_words_of(set));
}

}  // namespace apikeyd
