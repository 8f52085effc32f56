#include "core/audit_entry.h"

#include <algorithm>
#include <boost/unordered/unordered_flat_map.hpp>
#include <boost/unordered/unordered_flat_set.hpp>
#include <type_traits>

#include "core/table_rows.h"
#include "source/limit_text.h"
#include "source/rfc3339.h"
#include "source/row_text.h"

namespace apikeyd {

namespace {

/// Fields by name, in one order for all rows of a kind; an empty value is none.
using Facts = std::vector<std::pair<std::string_view, std::string>>;

template <typename List, typename Format>
std::string joined(const List& list, Format format) {
    std::string all;
    for (const auto& one : list) {
        all += (all.empty() ? "" : ",") + format(one);
    }
    return all;
}

std::string time_text(int64_t unix_s) {
    return unix_s != 0 ? format_rfc3339(unix_s) : std::string();
}

Facts facts_of(const KeyRow& row) {
    const KeyTerms& terms = terms_of(row);
    return {{"state", std::string(key_state_name(row.state))},
            {"environment", row.environment},
            {"owner", row.owner},
            {"name", row.name},
            {"expires", time_text(row.expires_s.value_or(0))},
            {"plan", terms.plan},
            {"limits", joined(terms.overrides, flow_limit)},
            {"scopes", joined(terms.scopes, [](const std::string& scope) { return scope; })},
            {"addresses", joined(terms.addresses, format_address_range)},
            {"metadata", row.metadata},
            {"created", time_text(row.created_s)},
            {"foreign", row.foreign ? "true" : ""}};
}
Facts facts_of(const PlanRow& plan) {
    return {{"limits", joined(plan.limits, flow_limit)}};
}
Facts facts_of(const OwnerRow& owner) {
    return {{"plan", owner.plan}};
}
Facts facts_of(const std::string&) {
    return {};
}

template <typename Row>
void add_differences(const Row* before, const Row* after, AuditEntry& entry) {
    const Facts was = before != nullptr ? facts_of(*before) : Facts();
    const Facts is = after != nullptr ? facts_of(*after) : Facts();
    const std::string nothing;
    for (size_t i = 0; i < std::max(was.size(), is.size()); ++i) {
        const std::string& old_value = i < was.size() ? was[i].second : nothing;
        const std::string& new_value = i < is.size() ? is[i].second : nothing;
        const std::string name(i < is.size() ? is[i].first : was[i].first);
        if (old_value == new_value) {
            continue;
        }
        if (!old_value.empty()) {
            entry.fields.emplace_back("before." + name, old_value);
        }
        if (!new_value.empty()) {
            entry.fields.emplace_back("after." + name, new_value);
        }
    }
}

/// A state that is asked for again is stored again, and is told as what it was asked for.
const char* key_action(const KeyRow* before, const KeyRow* after, bool differs) {
    if (before == nullptr || after == nullptr) {
        return after != nullptr ? "key.create" : "key.delete";
    }
    if (differs && before->state == after->state) {
        return "key.update";
    }
    switch (after->state) {
        case KeyState::kRevoked:
            return "key.revoke";
        case KeyState::kDisabled:
            return "key.disable";
        case KeyState::kActive:
            break;
    }
    return differs ? "key.enable" : "key.update";
}

const char* kind_of(const PlanRow&) {
    return "plan";
}
const char* kind_of(const OwnerRow&) {
    return "owner";
}
const char* kind_of(const std::string&) {
    return "scope";
}

const std::string& name_of(const std::string& scope) {
    return scope;
}
template <typename Row>
const std::string& name_of(const Row& row) {
    return row.name;
}

const std::vector<PlanRow>& rows_like(const PlanRow&, const PolicySet& set) {
    return set.plans;
}
const std::vector<OwnerRow>& rows_like(const OwnerRow&, const PolicySet& set) {
    return set.owners;
}
const std::vector<std::string>& rows_like(const std::string&, const PolicySet& set) {
    return set.scopes;
}

template <typename Row>
AuditEntry named_entry(const Row* before, const Row* after) {
    const Row& one = after != nullptr ? *after : *before;
    const char* action = before == nullptr ? ".create" : after == nullptr ? ".delete" : ".update";
    AuditEntry entry{kind_of(one) + std::string(action), name_of(one), {}};
    add_differences(before, after, entry);
    return entry;
}

}  // namespace

AuditEntry key_entry(const KeyRow* before, const KeyRow* after) {
    AuditEntry entry{"", after != nullptr ? after->id : before->id, {}};
    add_differences(before, after, entry);
    entry.action = key_action(before, after, !entry.fields.empty());
    return entry;
}

std::vector<AuditEntry> entries_of(const std::vector<Change>& changes, const apikey::shm::TableView* live) {
    std::vector<AuditEntry> entries;
    std::vector<bool> were_there;
    for (const Change& change : changes) {
        const std::optional<KeyRow> was = live != nullptr ? row_in(*live, change.row) : std::nullopt;
        const bool removed = change.kind == Change::Kind::kRemove;
        were_there.push_back(was.has_value());
        if (removed && !was) {
            entries.push_back({"key.delete", change.row.id, {}});
        } else {
            entries.push_back(key_entry(was ? &*was : nullptr, removed ? nullptr : &change.row));
        }
    }
    if (were_there == std::vector<bool>{false, true} && changes[0].kind == Change::Kind::kUpsert &&
        changes[1].kind == Change::Kind::kUpsert) {
        entries[1].action = "key.rotate";
        entries[1].fields.emplace_back("successor", entries[0].id);
    }
    return entries;
}

std::vector<AuditEntry> entries_of(const std::vector<PolicyChange>& changes, const PolicySet& before) {
    std::vector<AuditEntry> entries;
    for (const PolicyChange& change : changes) {
        const auto entry = [&](const auto& row) -> AuditEntry {
            const auto& rows = rows_like(row, before);
            const auto was = std::find_if(rows.begin(), rows.end(),
                                          [&](const auto& one) { return name_of(one) == name_of(row); });
            const auto* old_row = was != rows.end() ? &*was : nullptr;
            if (change.kind == Change::Kind::kRemove) {
                return old_row != nullptr
                           ? named_entry(old_row, static_cast<decltype(old_row)>(nullptr))
                           : AuditEntry{kind_of(row) + std::string(".delete"), name_of(row), {}};
            }
            return named_entry(old_row, &row);
        };
        entries.push_back(std::visit(entry, change.row));
    }
    return entries;
}

bool LoadAudit::has_room(Kind kind) {
    if (of_kind_[kind]++ < kAuditedOfKindMax) {
        return true;
    }
    ++left_out_;
    return false;
}

void LoadAudit::keep_only(const std::vector<Change>& changes) {
    boost::unordered_flat_set<std::string_view> ids;
    for (const Change& change : changes) {
        ids.insert(change.row.id);
    }
    std::erase_if(entries_, [&](const AuditEntry& entry) { return !ids.contains(entry.id); });
}

void LoadAudit::add_key(const KeyRow* before, const KeyRow* after) {
    if (before_ != nullptr && has_room(before == nullptr ? kAdded : after == nullptr ? kRemoved : kUpdated)) {
        entries_.push_back(key_entry(before, after));
    }
}

template <typename Row>
void LoadAudit::add_named(const std::vector<Row>& before, const std::vector<Row>& after) {
    boost::unordered_flat_map<std::string_view, const Row*> gone;
    for (const Row& row : before) {
        gone.emplace(name_of(row), &row);
    }
    for (const Row& row : after) {
        const auto known = gone.find(name_of(row));
        const Row* was = known != gone.end() ? known->second : nullptr;
        if (was != nullptr) {
            gone.erase(known);
        }
        bool told = was == nullptr || !(*was == row);
        if constexpr (std::is_same_v<Row, OwnerRow>) {
            told = told && (complete_ || was != nullptr || !row.plan.empty());
        }
        if (told && has_room(kNoKey)) {
            entries_.push_back(named_entry(was, &row));
        }
    }
    for (const Row& row : before) {
        const bool told = complete_ || std::is_same_v<Row, OwnerRow>;
        if (told && gone.contains(name_of(row)) && has_room(kNoKey)) {
            entries_.push_back(named_entry(&row, static_cast<const Row*>(nullptr)));
        }
    }
}

void LoadAudit::add_policies(const PolicySet& after) {
    if (before_ == nullptr) {
        return;
    }
    add_named(before_->plans, after.plans);
    add_named(before_->owners, after.owners);
    add_named(before_->scopes, after.scopes);
}

}  // namespace apikeyd
