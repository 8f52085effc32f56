#include "core/quota_words.h"

#include <algorithm>
#include <cstring>

#include "shm/meters.h"
#include "shm/policy_reader.h"
#include "shm/quota_period.h"

namespace apikeyd {

using apikey::shm::CellsView;
using apikey::shm::Generation;
using apikey::shm::Limit;
using apikey::shm::LimitKind;
using apikey::shm::Meta;
using apikey::shm::Policy;
using apikey::shm::QuotaWord;
using apikey::shm::Slot;
using apikey::shm::SlotState;
using apikey::shm::TableView;
using apikey::shm::Word;

namespace {

std::string_view owner_name(const TableView& table, uint32_t number) {
    return read_name(table, table.owners[number].name).string();
}

KeyDigest digest_of(const Slot& slot) {
    KeyDigest digest;
    std::memcpy(digest.data(), slot.digest, digest.size());
    return digest;
}

std::string number_text(const QuotaName& name) {
    std::string text = name.plan;
    text.push_back('\0');
    text.append(name.limit).push_back(static_cast<char>(name.kind));
    return text;
}

}  // namespace

const std::vector<PlanQuota>& PlanQuotas::of(const TableView& table, uint32_t plan) {
    const uint32_t body = plan_body(table, plan);
    const auto [known, is_new] = by_list_.try_emplace(body);
    const apikey::shm::ListReader<Limit> limits(table, body);
    if (!is_new || !limits.found()) {
        return known->second;
    }
    for (uint32_t i = 0; i < limits.count(); ++i) {
        const Limit limit = limits.get(i);
        if (limit.kind != LimitKind::kRate) {
            const QuotaName name{std::string(read_name(table, table.plans[plan].name).string()),
                                 std::string(limit.name, strnlen(limit.name, sizeof limit.name)), limit.kind};
            known->second.push_back({name, limit.tag, limit.word});
        }
    }
    return known->second;
}

QuotaSweep::QuotaSweep(uint64_t now_ns) : present_{} {
    for (const LimitKind kind : {LimitKind::kHour, LimitKind::kDay, LimitKind::kMonth}) {
        present_[static_cast<size_t>(kind)] = period_of(kind, now_ns);
    }
}

void QuotaSweep::note_key(const Generation& generation, uint64_t index, uint64_t meta) {
    if (Meta::policy(meta) == 0) {
        return;
    }
    const TableView& table = generation.table().view();
    const CellsView& cells = generation.cells();
    Policy policy;
    read_policy(table, meta, &policy);
    if (policy.owner != 0) {
        owners_.insert(policy.owner);
    }
    const auto* digest = reinterpret_cast<const char*>(table.slots[index].digest);
    for (const PlanQuota& quota : plans_.of(table, policy.plan)) {
        if (quota.word < cells.meter_words) {
            // Relaxed: what was taken before the cell's sums rose is seen, and what comes later marks it
            // again.
            note(quota, {digest, sizeof(Slot::digest)}, false,
                 cells.meter(index, quota.word).load(std::memory_order_relaxed));
        }
    }
}

void QuotaSweep::note_owners(const Generation& generation) {
    const TableView& table = generation.table().view();
    const CellsView& cells = generation.cells();
    for (const uint32_t owner : owners_) {
        if (owner >= cells.owner_count || owner >= table.owner_count) {
            continue;
        }
        for (const PlanQuota& quota : plans_.of(table, owner_plan(table, owner))) {
            if (quota.word < apikey::shm::kMeterWordsMax) {
                note(quota, owner_name(table, owner), true,
                     cells.owners[owner].words[quota.word].load(std::memory_order_relaxed));
            }
        }
    }
}

/// A word that has moved says what was taken before: the next generation's says the rest.
void QuotaSweep::note(const PlanQuota& quota, std::string_view holder, bool of_owner, uint64_t word) {
    const uint64_t present = present_[static_cast<size_t>(quota.name.kind)];
    const int32_t ahead = QuotaWord::ahead(word, present);
    // Takers bring a word back that is further ahead than the next period.
    if (QuotaWord::tag(word) != quota.tag || QuotaWord::used(word) == 0 || ahead < 0 || ahead > 1) {
        return;
    }
    counts_.push_back({&quota.name, holder, of_owner,
                       static_cast<uint32_t>(present + static_cast<uint32_t>(ahead)), QuotaWord::used(word)});
}

void StoredQuotas::add(const QuotaCount& count) {
    const auto next = static_cast<uint32_t>(numbers_.size());
    const uint32_t number = numbers_.try_emplace(number_text(*count.name), next).first->second;
    const Taken taken{count.period, std::min(count.used, QuotaWord::kUsedMask)};
    if (count.of_owner) {
        of_owners_.insert_or_assign({number, std::string(count.holder)}, taken);
        return;
    }
    KeyDigest digest{};
    std::memcpy(digest.data(), count.holder.data(), std::min(digest.size(), count.holder.size()));
    of_keys_.insert_or_assign({number, digest}, taken);
}

const StoredQuotas::Taken* StoredQuotas::of_key(const KeyDigest& digest, const PlanQuota& quota) const {
    const auto number = numbers_.find(number_text(quota.name));
    const auto taken = number != numbers_.end() ? of_keys_.find({number->second, digest}) : of_keys_.end();
    return taken != of_keys_.end() ? &taken->second : nullptr;
}

const StoredQuotas::Taken* StoredQuotas::of_owner(const std::string& name, const PlanQuota& quota) const {
    const auto number = numbers_.find(number_text(quota.name));
    const auto taken = number != numbers_.end() ? of_owners_.find({number->second, name}) : of_owners_.end();
    return taken != of_owners_.end() ? &taken->second : nullptr;
}

void StoredQuotas::install(const Generation& generation) const {
    const TableView& table = generation.table().view();
    const CellsView& cells = generation.cells();
    PlanQuotas plans;
    const auto put = [](const PlanQuota& quota, const Taken* taken, Word& word) {
        if (taken != nullptr) {
            // Relaxed: the announcement comes later.
            word.store(QuotaWord::make(quota.tag, taken->period, taken->used), std::memory_order_relaxed);
        }
    };
    for (uint64_t index = 0; !of_keys_.empty() && index < table.slot_count(); ++index) {
        const Slot& slot = table.slots[index];
        const uint64_t meta = slot.meta.load(std::memory_order_relaxed);
        if (Meta::state(meta) == SlotState::kEmpty || Meta::policy(meta) == 0) {
            continue;
        }
        Policy policy;
        read_policy(table, meta, &policy);
        for (const PlanQuota& quota : plans.of(table, policy.plan)) {
            put(quota, of_key(digest_of(slot), quota), cells.meter(index, quota.word));
        }
    }
    const uint64_t owners = table.header().owners_used.load(std::memory_order_relaxed);
    for (uint32_t owner = 1; !of_owners_.empty() && owner < owners; ++owner) {
        const std::string name(owner_name(table, owner));
        for (const PlanQuota& quota : plans.of(table, owner_plan(table, owner))) {
            put(quota, of_owner(name, quota), cells.owners[owner].words[quota.word]);
        }
    }
}

}  // namespace apikeyd
