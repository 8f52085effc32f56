#include "core/builder.h"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <boost/unordered/unordered_flat_set.hpp>
#include <cerrno>
#include <cmath>
#include <string_view>

#include "core/generation_plan.h"
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

/// An insert beyond the probe cap wants another seed; after so many the table is made larger as well.
constexpr unsigned kSeedsMax = 4;
constexpr double kGrowth = 1.25;

using Sets = std::span<const ChangeSet* const>;

template <typename Visit>
void for_each_change(Sets sets, Visit visit) {
    for (const ChangeSet* set : sets) {
        set->for_each(visit);
    }
}

/// Has the line brought near that the key is looked for in.
void prefetch(const TableView& table, const KeyRow& row) {
    const apikey::shm::Probe probe(row_hash(row, table.hash_seed), table);
    __builtin_prefetch(&table.slots[probe.first()], 1);
}

/// Keys and bytes of details to make room for. An owner's entry is shared by its keys and counted once; so is
/// a policy, as far as it is known to be the same. Names are known by their hashes: where two met, a table
/// would be planned for some bytes less than it takes, out of the quarter to spare.
class Needs {
  public:
    /// Of a live slot: the table has a number for its policy.
    void add(const TableView& table, uint64_t meta, const DetailText& text) {
        add_key(text);
        if (owners_.insert(hash_of(text.owner)).second) {
            details_bytes += TableWriter::owner_bytes(text.owner);
        }
        if (Meta::policy(meta) != 0 && numbers_.insert(Meta::policy(meta)).second) {
            apikey::shm::Policy policy;
            read_policy(table, meta, &policy);
            KeyRow row;
            row.terms = terms_of_policy(table, policy);
            add_policy(row);
            plans.insert(plan_name(table, policy.plan));
        }
    }
    /// Of a change, which shares its terms with others (key_set_visitor.cc). An owner can have a plan.
    void add(const KeyRow& row) {
        add_key(row_detail(row));
        const uint64_t owner = hash_of(row.owner);
        if (!pairs_.insert({row.terms.get(), owner}).second) {
            return;
        }
        if (owners_.insert(owner).second) {
            details_bytes += TableWriter::owner_bytes(row.owner);
        }
        if (row.terms != nullptr || !row.owner.empty()) {
            add_policy(row);
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
    void add_key(const DetailText& text) {
        ++keys;
        details_bytes += TableWriter::detail_bytes(text) - TableWriter::owner_bytes(text.owner);
    }
    void add_policy(const KeyRow& row) {
        ++policies;
        details_bytes += apikey::shm::PolicyWriter::policy_bytes(RowPolicy(row).text());
    }
    static uint64_t hash_of(std::string_view name) { return std::hash<std::string_view>()(name); }

    boost::unordered_flat_set<uint64_t> owners_;
    boost::unordered_flat_set<uint32_t> numbers_;
    boost::unordered_flat_set<std::pair<const KeyTerms*, uint64_t>> pairs_;
};

/// What a table is planned by.
struct Outline {
    Needs needs;
    std::vector<uint64_t> hashes;  // of all keys that fill() may put into it
};

void add_live(Outline& outline, uint64_t hash_seed, const TableView& from) {
    for (uint64_t index = 0; index < from.slot_count(); ++index) {
        DetailView detail;
        uint64_t meta = 0;
        if (!see_slot(from, index, &meta, &detail) || Meta::state(meta) == SlotState::kDead) {
            continue;
        }
        outline.needs.add(from, meta,
                          {.id = {detail.id, detail.id_bytes},
                           .owner = {detail.owner, detail.owner_bytes},
                           .name = {detail.name, detail.name_bytes},
                           .metadata = {detail.metadata, detail.metadata_bytes}});
        if (detail.foreign) {
            outline.hashes.push_back(
                index_hash_digest(reinterpret_cast<const uint8_t*>(from.slots[index].digest), hash_seed));
        } else if (detail.id_bytes == apikey::shm::kIdLength) {
            outline.hashes.push_back(index_hash_id(detail.id, hash_seed));
        }
    }
}

Outline outline_of(uint64_t hash_seed, const TableView* from, Sets changes) {
    Outline outline;
    size_t sizes = 0;
    for (const ChangeSet* set : changes) {
        sizes += set->size();
    }
    outline.hashes.reserve(sizes + (from != nullptr ? from->slot_count() : 0));
    if (from != nullptr) {
        add_live(outline, hash_seed, *from);
    }
    for_each_change(changes, [&](const Change& change) {
        if (change.kind != Change::Kind::kUpsert) {
            return;
        }
        outline.needs.add(change.row);
        if (from == nullptr || !is_in(*from, change.row)) {
            outline.hashes.push_back(row_hash(change.row, hash_seed));
        }
    });
    return outline;
}

using Digest = std::array<uint8_t, sizeof(apikey::shm::Slot::digest)>;

Digest digest_of(const KeyRow& row) {
    Digest digest;
    std::copy_n(row.digest.begin(), digest.size(), digest.begin());
    return digest;
}

/// The rows of `from` that no change replaces: their environments would take the places of the new ones.
bool fill_from(TableWriter& table, const TableView& from, Sets changes) {
    boost::unordered_flat_set<Digest> replaced;
    for_each_change(changes, [&](const Change& change) { replaced.insert(digest_of(change.row)); });
    for (uint64_t index = 0; index < from.slot_count(); ++index) {
        std::optional<KeyRow> row = row_of_slot(from, index);
        if (row && !replaced.contains(digest_of(*row)) &&
            !apply_change(table, {Change::Kind::kUpsert, std::move(*row)}, Cells::kFresh)) {
            return false;
        }
    }
    return true;
}

/// False when the table turned out too small or its seed unlucky.
bool fill(TableWriter& table, const PolicySet& policies, const TableView* from, Sets changes) {
    if (!set_policies(table, policies, from) || (from != nullptr && !fill_from(table, *from, changes))) {
        return false;
    }
    bool all = true;
    for (const ChangeSet* set : changes) {
        set->for_each([&](const Change& change) { all = all && apply_change(table, change, Cells::kFresh); },
                      [&](const Change& change) { prefetch(table.view(), change.row); });
    }
    return all;
}

}  // namespace

Result<std::unique_ptr<Generation>> build_generation(const BuildOrder& order, const TableView* from,
                                                     Sets changes) {
    double growth = order.growth;
    for (unsigned attempt = 0; attempt < 2 * kSeedsMax; ++attempt) {
        uint64_t hash_seed = 0;
        if (getrandom(&hash_seed, sizeof hash_seed, 0) != sizeof hash_seed) {
            return fail(apikey::shm::system_error_text("cannot draw random bytes", "table", errno));
        }
        // Looked at each time: the live table goes on changing.
        Outline outline = outline_of(hash_seed, from, changes);
        Needs& needs = outline.needs;
        needs.grow(growth);
        // A source that defines a plan no more is applied in slices: keys of the later ones have it still.
        const PolicySet policies =
            from != nullptr ? with_plans_of(*from, *order.policies, needs.plans) : *order.policies;
        TableGeometry::Policies entries = entries_of(policies);
        entries.policies = needs.policies;
        needs.details_bytes += details_bytes_of(policies);
        GenerationPlan plan = plan_generation({needs.keys, needs.details_bytes, order.capacity_keys}, entries,
                                              meter_words_of(policies, from));
        plan.hash_seed = hash_seed;
        plan.generation = order.generation;
        plan.predecessor = order.predecessor;
        plan.clients_group = order.clients_group;
        auto made = Generation::create(order.directory_fd, plan);
        if (!made) {
            return made;
        }
        TableWriter& table = (*made)->table();
        table.spread(std::move(outline.hashes), from == nullptr ? plan.cpus : 1);
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
