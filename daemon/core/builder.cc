#include "core/builder.h"

#include <algorithm>
#include <boost/unordered/unordered_flat_set.hpp>
#include <cmath>
#include <string_view>
#include <thread>

#include "core/table_policies.h"
#include "core/table_rows.h"
#include "shm/index_hash.h"

namespace apikeyd {

using apikey::shm::DetailText;
using apikey::shm::DetailView;
using apikey::shm::Generation;
using apikey::shm::GenerationPlan;
using apikey::shm::index_hash_digest;
using apikey::shm::index_hash_id;
using apikey::shm::Meta;
using apikey::shm::SlotState;
using apikey::shm::TableGeometry;
using apikey::shm::TableView;
using apikey::shm::TableWriter;

namespace {

/// Cells are sharded by CPU while all shards together stay within this.
constexpr uint64_t kShardsBudgetBytes = uint64_t{16} << 20;
/// An insert beyond the probe cap wants another seed; after so many the table is made larger as well.
constexpr unsigned kSeedsMax = 4;
constexpr double kGrowth = 1.25;

/// What a key's details take where there is none to go by: id, a short owner's name and a short name.
constexpr uint64_t kDetailTypicalBytes = 64;

/// Keys and bytes of details to make room for. An owner's entry is shared by its keys and counted once.
class Needs {
  public:
    void add(const DetailText& text) {
        ++keys;
        details_bytes += TableWriter::detail_bytes(text);
        if (!text.owner.empty() && !owners_.insert(text.owner).second) {
            details_bytes -= TableWriter::owner_bytes(text.owner);
        }
    }

    /// Of a live slot: policies are counted once, as the table has them.
    void add_policy(const TableView& table, uint64_t meta) {
        if (Meta::policy(meta) != 0 && numbers_.insert(Meta::policy(meta)).second) {
            apikey::shm::Policy policy;
            read_policy(table, meta, &policy);
            KeyRow row;
            row.terms = terms_of_policy(table, policy);
            add_new_policy(row);
            plans.insert(plan_name(table, policy.plan));
        }
    }
    /// Of a change, which shares its terms with others (key_set_visitor.cc). An owner can have a plan.
    void add_policy(const KeyRow& row) {
        if ((row.terms != nullptr || !row.owner.empty()) &&
            pairs_.insert({row.terms.get(), std::string_view(row.owner)}).second) {
            add_new_policy(row);
            plans.insert(terms_of(row).plan);
        }
    }

    void grow(double factor) {
        for (uint64_t* need : {&keys, &details_bytes, &policies}) {
            *need = static_cast<uint64_t>(std::ceil(static_cast<double>(*need) * factor));
        }
    }

    uint64_t keys = 0;
    uint64_t details_bytes = 0;
    uint64_t policies = 0;
    boost::unordered_flat_set<std::string_view>
        plans;  ///< of the policies; views into the live table or the changes

  private:
    void add_new_policy(const KeyRow& row) {
        ++policies;
        details_bytes += apikey::shm::PolicyWriter::policy_bytes(RowPolicy(row).text());
    }

    boost::unordered_flat_set<std::string_view> owners_;  // views into the live table or the changes
    boost::unordered_flat_set<uint32_t> numbers_;
    boost::unordered_flat_set<std::pair<const KeyTerms*, std::string_view>> pairs_;
};

/// Calls `visit` with each live slot of `from` (nullptr: none) and its details.
template <typename Visit>
void for_each_live(const TableView* from, Visit visit) {
    for (uint64_t index = 0; from != nullptr && index < from->slot_count(); ++index) {
        DetailView detail;
        uint64_t meta = 0;
        if (see_slot(*from, index, &meta, &detail) && Meta::state(meta) != SlotState::kDead) {
            visit(from->slots[index], meta, detail);
        }
    }
}

Needs needs_of(const TableView* from, std::span<const Change> changes) {
    Needs needs;
    for_each_live(from, [&](const apikey::shm::Slot&, uint64_t meta, const DetailView& detail) {
        needs.add_policy(*from, meta);
        needs.add({.id = {detail.id, detail.id_bytes},
                   .owner = {detail.owner, detail.owner_bytes},
                   .name = {detail.name, detail.name_bytes},
                   .metadata = {detail.metadata, detail.metadata_bytes}});
    });
    for (const Change& change : changes) {
        if (change.kind == Change::Kind::kUpsert) {
            needs.add(row_detail(change.row));
            needs.add_policy(change.row);
        }
    }
    return needs;
}

/// The hashes of all keys that fill() may put into the table.
std::vector<uint64_t> hashes_of(uint64_t hash_seed, const TableView* from, std::span<const Change> changes) {
    std::vector<uint64_t> hashes;
    for_each_live(from, [&](const apikey::shm::Slot& slot, uint64_t, const DetailView& detail) {
        if (detail.foreign) {
            hashes.push_back(index_hash_digest(reinterpret_cast<const uint8_t*>(slot.digest), hash_seed));
        } else if (detail.id_bytes == apikey::shm::kIdLength) {
            hashes.push_back(index_hash_id(detail.id, hash_seed));
        }
    });
    for (const Change& change : changes) {
        if (change.kind == Change::Kind::kUpsert && (from == nullptr || !is_in(*from, change.row))) {
            hashes.push_back(row_hash(change.row, hash_seed));
        }
    }
    return hashes;
}

using Digests = boost::unordered_flat_set<std::string_view>;

/// False when the table turned out too small or its seed unlucky.
bool fill(TableWriter& table, const PolicySet& policies, const TableView* from,
          std::span<const Change> changes) {
    if (!set_policies(table, policies, from)) {
        return false;
    }
    // Rows that a change replaces are left out: their environments would take the places of the new ones.
    Digests replaced;
    for (const Change& change : changes) {
        replaced.insert(row_digest_bytes(change.row));
    }
    for (uint64_t index = 0; from != nullptr && index < from->slot_count(); ++index) {
        std::optional<KeyRow> row = row_of_slot(*from, index);
        if (row && !replaced.contains(row_digest_bytes(*row)) &&
            !apply_change(table, {Change::Kind::kUpsert, std::move(*row)}, Cells::kFresh)) {
            return false;
        }
    }
    for (const Change& change : changes) {
        if (!apply_change(table, change, Cells::kFresh)) {
            return false;
        }
    }
    return true;
}

}  // namespace

Result<std::unique_ptr<Generation>> build_generation(const BuildOrder& order, const TableView* from,
                                                     std::span<const Change> changes) {
    double growth = order.growth;
    for (unsigned attempt = 0; attempt < 2 * kSeedsMax; ++attempt) {
        // Looked at each time: the live table goes on changing.
        Needs needs = needs_of(from, changes);
        needs.grow(growth);
        // A source that defines a plan no more is applied in slices: keys of the later ones have it still.
        const PolicySet policies =
            from != nullptr ? with_plans_of(*from, *order.policies, needs.plans) : *order.policies;
        TableGeometry::Policies entries = entries_of(policies);
        entries.policies = needs.policies;
        needs.details_bytes += details_bytes_of(policies);
        const uint64_t keys = std::max(needs.keys, order.capacity_keys);
        const uint64_t each_bytes =
            needs.keys != 0 ? needs.details_bytes / needs.keys + 1 : kDetailTypicalBytes;
        const uint64_t details_bytes = needs.details_bytes + (keys - needs.keys) * each_bytes;
        GenerationPlan plan{};
        plan.generation = order.generation;
        plan.predecessor = order.predecessor;
        plan.geometry = TableGeometry::for_keys(keys, details_bytes, entries);
        plan.meter_words = meter_words_of(policies, from);
        plan.cpus = std::max(1u, std::thread::hardware_concurrency());
        plan.shards_budget_bytes = kShardsBudgetBytes;
        plan.clients_group = order.clients_group;
        auto made = Generation::create(order.directory_fd, plan);
        if (!made) {
            return made;
        }
        TableWriter& table = (*made)->table();
        table.spread(hashes_of(table.view().hash_seed, from, changes));
        if (fill(table, policies, from, changes)) {
            if (order.quotas != nullptr) {
                order.quotas->install(**made);
            }
            (*made)->use_huge_pages();
            return made;
        }
        if (attempt >= kSeedsMax) {
            growth *= kGrowth;
        }
    }
    return fail(
        "the table cannot be built: more than 15 environments, more than 4 million different policies, "
        "a plan that nobody defined, or no seed spreads these keys");
}

}  // namespace apikeyd
