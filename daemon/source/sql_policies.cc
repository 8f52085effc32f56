#include "source/sql_policies.h"

#include <algorithm>
#include <utility>

#include "shm/scope_name.h"
#include "source/key_rules.h"
#include "source/yaml_events.h"

namespace apikeyd {

namespace {

constexpr std::string_view kDoing = "reading scopes, plans and owners";

KeyColumns::Text text_of(const SqlStatement& statement, int column) {
    return statement.column_is_null(column) ? std::nullopt : std::optional(statement.column_text(column));
}

std::optional<int64_t> number_of(const SqlStatement& statement, int column) {
    return statement.column_is_null(column) ? std::nullopt : std::optional(statement.column_int(column));
}

std::string_view text_of(std::span<const uint8_t> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::span<const uint8_t> bytes_of(std::string_view text) {
    return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

}  // namespace

KeyColumns key_columns(const SqlStatement& statement) {
    const auto text = [&](int column) { return text_of(statement, column); };
    const auto number = [&](int column) { return number_of(statement, column); };
    const KeyColumns::Text digest =
        statement.column_is_null(1) ? std::nullopt : KeyColumns::Text(text_of(statement.column_blob(1)));
    return {text(0),    digest,     text(2),  number(3), text(4),
            text(5),    text(6),    text(7),  text(8),   text(9),
            number(10), number(11), text(12), text(13),  statement.column_int(14)};
}

void bind_key(SqlStatement& statement, const KeyColumns& columns) {
    const auto text = [&](int index, const KeyColumns::Text& value) {
        value ? statement.bind(index, *value) : statement.bind(index, nullptr);
    };
    const auto number = [&](int index, const std::optional<int64_t>& value) {
        value ? statement.bind(index, *value) : statement.bind(index, nullptr);
    };
    text(1, columns.id);
    statement.bind(2, bytes_of(columns.sha256.value_or("")));
    text(3, columns.state);
    number(4, columns.expires);
    text(5, columns.plan);
    text(6, columns.limits);
    text(7, columns.addresses);
    text(8, columns.environment);
    text(9, columns.owner);
    text(10, columns.name);
    number(11, columns.created);
    number(12, columns.foreign);
    text(13, columns.scopes);
    text(14, columns.metadata);
}

Result<void> SqlPolicies::prepare(const SqlConnection& connection) {
    connection_ = &connection;
    return apikeyd::prepare(connection, {{&all_scopes_, "SELECT name FROM scopes ORDER BY rowid"},
                                         {&all_plans_, "SELECT name, limits FROM plans ORDER BY rowid"},
                                         {&all_owners_, "SELECT name, plan FROM owners ORDER BY rowid"},
                                         {&one_plan_, "SELECT name, limits FROM plans WHERE name = ?1"},
                                         {&one_owner_, "SELECT plan FROM owners WHERE name = ?1"}});
}

void SqlPolicies::note(SqlStep step) {
    if (step == SqlStep::kFailed && !error_) {
        error_ = connection_->last_error(kDoing);
    }
}

void SqlPolicies::forget() {
    scopes_.reset();
    plans_.clear();
    plans_known_ = false;
    owners_.clear();
    owners_known_ = false;
}

const std::vector<std::string>& SqlPolicies::scopes() {
    if (!scopes_) {
        scopes_.emplace();
        const SqlResetGuard guard(*all_scopes_);
        SqlStep step = all_scopes_->step();
        for (; step == SqlStep::kRow; step = all_scopes_->step()) {
            const std::string_view name = all_scopes_->column_text(0);
            if (!scope_fault(name) && !apikey::shm::is_branch(name) && scopes_->size() < kScopesMax) {
                scopes_->emplace_back(name);
            }
        }
        note(step);
    }
    return *scopes_;
}

const PlanRow* SqlPolicies::plan(std::string_view name) {
    const auto known = plans_.find(std::string(name));
    if (known != plans_.end() || plans_known_) {
        return known == plans_.end() ? nullptr : known->second.get();
    }
    const SqlResetGuard guard(*one_plan_);
    const SqlStep step = one_plan_->bind(1, name).step();
    note(step);
    std::unique_ptr<const PlanRow> found;
    if (step == SqlStep::kRow) {
        if (auto plan = plan_of(one_plan_->column_text(0), text_of(*one_plan_, 1))) {
            found = std::make_unique<const PlanRow>(*std::move(plan));
        }
    }
    return plans_.emplace(std::string(name), std::move(found)).first->second.get();
}

bool SqlPolicies::owner_is_sound(std::string_view name) {
    if (name.empty() || (owners_known_ && owners_.empty())) {
        return true;
    }
    const auto known = owners_.find(std::string(name));
    if (known != owners_.end() || owners_known_) {
        return known == owners_.end() || known->second;
    }
    bool sound = true;
    {
        const SqlResetGuard guard(*one_owner_);
        const SqlStep step = one_owner_->bind(1, name).step();
        note(step);
        sound = step != SqlStep::kRow || one_owner_->column_is_null(0) ||
                plan(std::string(one_owner_->column_text(0))) != nullptr;
    }
    return owners_.emplace(std::string(name), sound).first->second;
}

void SqlPolicies::load_plans(PolicySet& set, const Fault& fault) {
    const SqlResetGuard guard(*all_plans_);
    SqlStep step = all_plans_->step();
    for (; step == SqlStep::kRow; step = all_plans_->step()) {
        const std::string_view name = all_plans_->column_text(0);
        auto plan = plan_of(name, text_of(*all_plans_, 1));
        if (!plan) {
            fault("plans", "name " + yaml_quote(name), plan.error());
        } else if (set.plans.size() == kPlansMax) {
            fault("plans", "name " + plan->name, "more than " + std::to_string(kPlansMax) + " (the limit)");
        } else {
            set.plans.push_back(*plan);
        }
        const bool kept = plan && !set.plans.empty() && set.plans.back().name == plan->name;
        plans_.insert_or_assign(std::string(name),
                                kept ? std::make_unique<const PlanRow>(*std::move(plan)) : nullptr);
    }
    note(step);
    plans_known_ = true;
}

void SqlPolicies::load_owners(PolicySet& set, const Fault& fault) {
    const SqlResetGuard guard(*all_owners_);
    SqlStep step = all_owners_->step();
    for (; step == SqlStep::kRow; step = all_owners_->step()) {
        OwnerRow owner{std::string(all_owners_->column_text(0)), std::string(all_owners_->column_text(1))};
        const bool sound = all_owners_->column_is_null(1) || plan(owner.plan) != nullptr;
        const auto bad_name = owner_name_fault(owner.name);
        if (!sound) {
            owners_.insert_or_assign(owner.name, false);
        }
        if (bad_name || !sound) {
            fault("owners", "name " + yaml_quote(owner.name),
                  bad_name ? "name: " + *bad_name
                           : "plan: " + yaml_quote(owner.plan) + " is defined nowhere (want it in plans)");
        } else if (set.owners.size() == kOwnersMax) {
            fault("owners", "name " + yaml_quote(owner.name),
                  "more than " + std::to_string(kOwnersMax) + " (the limit)");
        } else {
            set.owners.push_back(std::move(owner));
        }
    }
    note(step);
    owners_known_ = true;
}

PolicySet SqlPolicies::load(const Fault& fault) {
    forget();
    PolicySet set;
    set.scopes = scopes();
    {
        const SqlResetGuard guard(*all_scopes_);
        while (all_scopes_->step() == SqlStep::kRow) {
            const std::string_view name = all_scopes_->column_text(0);
            if (std::find(set.scopes.begin(), set.scopes.end(), name) == set.scopes.end()) {
                const auto what = scope_fault(name);
                fault("scopes", "name " + yaml_quote(name),
                      what ? "name: " + *what
                      : apikey::shm::is_branch(name)
                          ? "name: a branch is granted, not defined"
                          : "more than " + std::to_string(kScopesMax) + " (the limit)");
            }
        }
    }
    load_plans(set, fault);
    load_owners(set, fault);
    return set;
}

}  // namespace apikeyd
