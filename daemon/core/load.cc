#include "core/load.h"

#include <algorithm>
#include <boost/unordered/unordered_flat_set.hpp>
#include <new>
#include <string_view>
#include <utility>

#include "core/table_policies.h"
#include "core/table_rows.h"

namespace apikeyd {

using apikey::shm::Found;
using apikey::shm::kNoSlot;
using apikey::shm::Meta;
using apikey::shm::SlotState;
using apikey::shm::TableView;

namespace {

/// The daemon ends: nobody is told of this load.
struct Stopped {};

/// Keys that are named, of those whose revocation was taken back.
constexpr size_t kNamedMax = 20;

/// What was read finds no place.
struct NotKept {
    Error error;
};

/// What the slot says of the row's key, with the digest whole: it is equal as far as the slot knows.
std::optional<KeyRow> stored_row(const TableView& table, const Found& found, const KeyRow& row) {
    std::optional<KeyRow> stored = row_of_slot(table, found.index);
    if (stored) {
        stored->digest = row.digest;
    }
    return stored;
}

}  // namespace

void Load::collect(const KeyRow& row, Slots& slots) {
    ++report.keys;
    if (live != nullptr) {
        const TableView& table = live->table().view();
        const Found found = find_slot(table, row_hash(row, table.hash_seed), row_digest(row));
        if (found.index != kNoSlot && Meta::state(found.meta) != SlotState::kDead) {
            slots.seen[found.index] = true;
            const std::optional<KeyRow> stored = stored_row(table, found, row);
            if (stored == row) {
                return;
            }
            audit.add_key(stored ? &*stored : nullptr, &row);
            slots.changed[found.index] = true;
            ++report.updated;
            if (Meta::state(found.meta) == SlotState::kRevoked && row.state != KeyState::kRevoked) {
                revived.push_back(row.id);
            }
            changes.push_back({Change::Kind::kUpsert, row});
            return;
        }
    }
    ++report.added;
    audit.add_key(nullptr, &row);
    additions_bytes += apikey::shm::TableWriter::detail_bytes(row_detail(row));
    if (row.terms != nullptr) {
        additions_bytes += apikey::shm::PolicyWriter::policy_bytes(RowPolicy(row).text());
    }
    if (Result<void> kept = additions->append(row); !kept) {
        throw NotKept{kept.error()};
    }
}

/// Keys that are what they were, and whose owner has a plan for the first time in this table. One that had a
/// plan keeps its number, and what is said there holds for its keys.
void Load::collect_sharing(const Slots& slots) {
    boost::unordered_flat_set<std::string_view> planned;
    for (const OwnerRow& owner : policies->owners) {
        if (!owner.plan.empty()) {
            planned.insert(owner.name);
        }
    }
    if (live == nullptr || planned.empty()) {
        return;
    }
    const TableView& table = live->table().view();
    for (uint64_t index = 0; index < table.slot_count(); ++index) {
        uint64_t meta = 0;
        apikey::shm::DetailView detail;
        if (!slots.seen[index] || slots.changed[index] || !see_slot(table, index, &meta, &detail)) {
            continue;
        }
        apikey::shm::Policy policy;
        read_policy(table, meta, &policy);
        const bool comes_to_share =
            policy.owner == 0 && planned.contains(std::string_view(detail.owner, detail.owner_bytes));
        if (std::optional<KeyRow> row = comes_to_share ? row_of_slot(table, index) : std::nullopt) {
            ++report.updated;
            changes.push_back({Change::Kind::kUpsert, *std::move(row)});
        }
    }
}

void Load::collect_removals(const Slots& slots) {
    if (live == nullptr) {
        return;
    }
    const TableView& table = live->table().view();
    for (uint64_t index = 0; index < table.slot_count(); ++index) {
        if (slots.seen[index]) {
            continue;
        }
        if (std::optional<KeyRow> row = row_of_slot(table, index)) {
            collect_removal(*std::move(row));
        }
    }
}

void Load::collect_removal(KeyRow row) {
    ++report.removed;
    audit.add_key(&row, nullptr);
    changes.push_back({Change::Kind::kRemove, std::move(row)});
}

/// The same key in another form, or under another id, is no other key.
void Load::find_revived() {
    boost::unordered_flat_set<std::string_view> revoked;  // digests
    for (const Change& change : changes) {
        if (change.kind == Change::Kind::kRemove && change.row.state == KeyState::kRevoked) {
            revoked.insert(row_digest_bytes(change.row));
        }
    }
    RowSpool::Cursor cursor(*additions);
    for (KeyRow row; !revoked.empty() && cursor.next(row);) {
        if (row.state != KeyState::kRevoked && revoked.contains(row_digest_bytes(row))) {
            revived.push_back(row.id);
        }
    }
}

/// One of them must not keep what others have committed from being in force, nor what they will.
void Load::leave_revived_out() {
    const boost::unordered_flat_set<std::string_view> ids(revived.begin(), revived.end());
    boost::unordered_flat_set<std::string> digests;
    const auto note = [&](const KeyRow& row) {
        if (ids.contains(row.id)) {
            digests.emplace(row_digest_bytes(row));
        }
    };
    const auto leaves_out = [&](const KeyRow& row, uint64_t& counted) {
        if (!digests.contains(std::string(row_digest_bytes(row)))) {
            return false;
        }
        --counted;
        audit.forget(row.id);
        return true;
    };
    KeyRow addition;
    for (RowSpool::Cursor cursor(*additions); cursor.next(addition);) {
        note(addition);
    }
    for (const Change& change : changes) {
        note(change.row);
    }
    for (RowSpool::Cursor cursor(*additions); cursor.next(addition);) {
        leaves_out(addition, report.added);
    }
    for (const std::string& digest : digests) {
        additions->leave_out(digest);
    }
    std::erase_if(changes, [&](const Change& change) {
        return leaves_out(change.row, change.kind == Change::Kind::kRemove ? report.removed : report.updated);
    });
    for (size_t named = 0; named < std::min(revived.size(), kNamedMax); ++named) {
        warnings.push_back(source->place() + ": keys, id " + revived[named] +
                           ": was revoked and is not any more; it stays revoked (`apikeyctl reload --force` "
                           "if that is meant)");
    }
    if (revived.size() > kNamedMax) {
        warnings.push_back(source->place() + ": keys: the same of " +
                           std::to_string(revived.size() - kNamedMax) + " more");
    }
    revived.clear();
}

void Load::keep_revocations() {
    const TableView& table = live->table().view();
    std::vector<Change> revocations;
    for (const Change& change : changes) {
        if (change.kind != Change::Kind::kUpsert || change.row.state != KeyState::kRevoked) {
            continue;
        }
        // All else of it is as it was: that needs no room.
        std::optional<KeyRow> row = row_in(table, change.row);
        if (row && row->state != KeyState::kRevoked) {
            row->digest = change.row.digest;
            row->state = KeyState::kRevoked;
            revocations.push_back({Change::Kind::kUpsert, *std::move(row)});
        }
    }
    changes = std::move(revocations);
    additions.reset();
    audit.keep_only(changes);
    keeps_revocations = !changes.empty();
}

void Load::run() {
    try {
        additions = std::make_shared<RowSpool>(directory_fd);
        if (reads_source) {
            read_and_compare();
        } else {
            compare_policies();
        }
    } catch (const std::bad_alloc&) {
        error = source->place() + ": no memory to read it; the daemon needs some times its size for a while";
        unread = true;
    } catch (const NotKept& refused) {
        error = source->place() + ": its new keys find no room while they are read: " + refused.error.message;
        no_room = true;
    } catch (const Stopped&) {
        error = source->place() + ": not read to its end, the daemon stops";
    }
    if (!error.empty()) {
        additions.reset();
        changes.clear();
    }
}

/// No owner may have a plan that is gone: no generation could be built. A key keeps it until it has another
/// (with_plans_of()), which is no state that anybody asked for.
void Load::compare_policies() {
    boost::unordered_flat_set<std::string_view> plans;
    for (const PlanRow& plan : policies->plans) {
        plans.insert(plan.name);
    }
    for (const OwnerRow& owner : policies->owners) {
        if (!owner.plan.empty() && !plans.contains(owner.plan)) {
            error = "owner " + owner.name + ": plan: " + owner.plan + " is defined nowhere";
            return;
        }
    }
    const TableView& table = live->table().view();
    Slots slots{std::vector<bool>(table.slot_count(), true), std::vector<bool>(table.slot_count())};
    for (uint64_t index = 0; index < table.slot_count(); ++index) {
        uint64_t meta = 0;
        apikey::shm::DetailView detail;
        if (!see_slot(table, index, &meta, &detail) || Meta::state(meta) == SlotState::kDead) {
            slots.seen[index] = false;
            continue;
        }
        apikey::shm::Policy policy;
        read_policy(table, meta, &policy);
        const std::string_view plan = plan_name(table, policy.plan);
        if (!plan.empty() && !plans.contains(plan)) {
            error = "plan " + std::string(plan) + ": key " + std::string(detail.id, detail.id_bytes) +
                    " has it (give it another plan first)";
            return;
        }
    }
    collect_sharing(slots);
}

/// In the source's place, for an error of which it could not be read. Where there is a table it says as much.
void Load::read_snapshot() {
    additions = std::make_shared<RowSpool>(directory_fd);
    additions_bytes = 0;
    report = {};
    Slots slots;
    Result<SnapshotContent> kept = snapshot->load([&](const KeyRow& row) {
        if (stopping->load(std::memory_order_relaxed)) {
            throw Stopped{};
        }
        collect(row, slots);
    });
    if (!kept) {
        error += "; " + kept.error().message;
        return;
    }
    take_content(std::move(kept->content));
    from_snapshot = SnapshotUse{kept->taken_s, std::exchange(error, {})};
    unread = false;
}

void Load::take_content(SourceContent content) {
    fingerprint = content.fingerprint;
    warnings = std::move(content.warnings);
    policies = std::make_shared<const PolicySet>(std::move(content.policies));
}

void Load::read_and_compare() {
    live_keys = live != nullptr ? live->table().header().live.load(std::memory_order_relaxed) : 0;
    if (!force && in_force && live != nullptr) {
        Result<std::optional<SourceChanges>> found = source->changes_since(*in_force);
        if (!found) {
            error = found.error().message;
            unread = true;
            return;
        }
        if (*found) {
            compare_changes(**std::move(found));
            return;
        }
    }
    compare_all();
}

void Load::compare_changes(SourceChanges found) {
    fingerprint = found.fingerprint;
    warnings = std::move(found.warnings);
    if (fingerprint == in_force) {
        report.unchanged = true;
        return;
    }
    if (found.policies) {
        policies = std::make_shared<const PolicySet>(*std::move(found.policies));
        compare_policies();
        if (!error.empty()) {
            // A plan went together with its last keys' use of it, perhaps: the rows all say which.
            error.clear();
            changes.clear();
            report = {};
            compare_all();
            return;
        }
        audit.add_policies(*policies);
    }
    const TableView& table = live->table().view();
    Slots slots{std::vector<bool>(table.slot_count()), std::vector<bool>(table.slot_count())};
    for (const KeyRow& row : found.rows) {
        collect(row, slots);
    }
    for (const KeyRow& row : found.gone) {
        // A foreign key can go on under another id, in the same slot.
        const Found slot = find_slot(table, row_hash(row, table.hash_seed), row_digest(row));
        if (slot.index == kNoSlot || slots.seen[slot.index]) {
            continue;
        }
        if (std::optional<KeyRow> there = row_of_slot(table, slot.index)) {
            collect_removal(*std::move(there));
        }
    }
    find_revived();
    if (!revived.empty()) {
        leave_revived_out();
    }
    report.keys = live_keys + report.added - report.removed;
}

void Load::compare_all() {
    const uint64_t slot_count = live != nullptr ? live->table().view().slot_count() : 0;
    Slots slots{std::vector<bool>(slot_count), std::vector<bool>(slot_count)};
    Result<std::optional<SourceContent>> content =
        source->load(force ? std::nullopt : in_force, [&](const KeyRow& row) {
            if (stopping->load(std::memory_order_relaxed)) {
                throw Stopped{};
            }
            collect(row, slots);
        });
    if (!content) {
        error = content.error().message;
        unread = true;
        if (live == nullptr && snapshot != nullptr) {
            read_snapshot();
        }
        return;
    }
    if (!*content) {
        fingerprint = *in_force;
        report.unchanged = true;
        return;
    }
    const bool is_other_copy = (*content)->is_other_copy;
    take_content(**std::move(content));
    audit.add_policies(*policies);
    collect_sharing(slots);
    collect_removals(slots);
    find_revived();
    // A file of which somebody put back an older copy is refused whole: keys made since are not in it.
    if (!force && source->tells_changes() && !is_other_copy && !revived.empty()) {
        leave_revived_out();
    }
}

}  // namespace apikeyd
