#include "source/sqlite_rows.h"

#include <algorithm>
#include <set>
#include <utility>

#include "shm/scope_name.h"
#include "source/json_text.h"
#include "source/key_rules.h"
#include "source/limit_option.h"
#include "source/limit_text.h"
#include "source/yaml_events.h"

namespace apikeyd {

namespace {

constexpr size_t kWarningsMax = 20;

/// Different terms that are remembered; rows that agree often follow each other.
constexpr size_t kKnownTermsMax = 4096;
constexpr std::string_view kDoing = "reading scopes, plans and owners";

using Fault = tl::unexpected<std::string>;

Fault fault_in(std::string_view column, const std::string& what) {
    return Fault(std::string(column) + ": " + what);
}

KeyColumns::Text text_of(const Statement& statement, int column) {
    return statement.column_type(column) == SQLITE_NULL ? std::nullopt
                                                        : std::optional(statement.column_text(column));
}

std::optional<int64_t> number_of(const Statement& statement, int column) {
    return statement.column_type(column) == SQLITE_NULL ? std::nullopt
                                                        : std::optional(statement.column_int(column));
}

KeyColumns::Text given(const std::string& text) {
    return text.empty() ? std::nullopt : KeyColumns::Text(text);
}

std::span<const uint8_t> bytes_of(std::string_view text) {
    return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

tl::expected<std::vector<LimitRow>, std::string> limits_of(std::string_view json) {
    const auto words = parse_word_list(json);
    if (!words) {
        return fault_in("limits", yaml_quote(json) + " " + words.error().message);
    }
    std::vector<LimitRow> limits;
    for (const std::string& word : *words) {
        auto limit = parse_limit_option(word);
        if (!limit) {
            return fault_in("limits", limit.error().message);
        }
        if (limit_named(limits, limit->name) != nullptr) {
            return fault_in("limits", limit->name + ": stands twice (want each limit once)");
        }
        limits.push_back(*std::move(limit));
    }
    if (limits.size() > kLimitsMax) {
        return fault_in("limits", std::to_string(limits.size()) + " limits (want at most " +
                                      std::to_string(kLimitsMax) + ")");
    }
    return limits;
}

tl::expected<std::vector<AddressRangeRow>, std::string> addresses_of(std::string_view json) {
    const auto words = parse_word_list(json);
    if (!words) {
        return fault_in("addresses", yaml_quote(json) + " " + words.error().message);
    }
    std::vector<AddressRangeRow> addresses;
    for (const std::string& word : *words) {
        const auto range = parse_address_range(word);
        if (!range) {
            return fault_in("addresses", yaml_quote(word) + " " + range.error().message);
        }
        addresses.push_back(*range);
    }
    if (addresses.size() > kAddressesMax) {
        return fault_in("addresses", "more than " + std::to_string(kAddressesMax) + " (the limit)");
    }
    return addresses;
}

tl::expected<std::vector<std::string>, std::string> scopes_of(std::string_view json) {
    auto words = parse_word_list(json);
    if (!words) {
        return fault_in("scopes", yaml_quote(json) + " " + words.error().message);
    }
    for (const std::string& word : *words) {
        if (const auto fault = scope_fault(word)) {
            return fault_in("scopes", yaml_quote(word) + " is no scope (" + *fault + ")");
        }
    }
    std::sort(words->begin(), words->end());
    words->erase(std::unique(words->begin(), words->end()), words->end());
    return *std::move(words);
}

tl::expected<int64_t, std::string> time_of(std::string_view column, int64_t time_s, int64_t last_s) {
    if (const auto fault = time_fault(time_s, last_s)) {
        return fault_in(column, std::to_string(time_s) + " " + *fault);
    }
    return time_s;
}

}  // namespace

KeyColumns key_columns(const Statement& statement) {
    const auto text = [&](int column) { return text_of(statement, column); };
    const auto number = [&](int column) { return number_of(statement, column); };
    return {text(0),    text(1),    text(2),  number(3), text(4),
            text(5),    text(6),    text(7),  text(8),   text(9),
            number(10), number(11), text(12), text(13),  statement.column_int(14)};
}

void bind_key(Statement& statement, const KeyColumns& columns) {
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

std::string format_limits(const std::vector<LimitRow>& limits) {
    std::vector<std::string> words;
    for (const LimitRow& limit : limits) {
        words.push_back(format_limit_option(limit));
    }
    return format_word_list(words);
}

KeyText::KeyText(const KeyRow& row) {
    const KeyTerms& terms = apikeyd::terms_of(row);
    std::vector<std::string> ranges;
    for (const AddressRangeRow& range : terms.addresses) {
        ranges.push_back(format_address_range(range));
    }
    digest_.assign(reinterpret_cast<const char*>(row.digest.data()), row.digest.size());
    limits_ = format_limits(terms.overrides);
    addresses_ = format_word_list(ranges);
    scopes_ = format_word_list(terms.scopes);
    columns_ = {.id = row.id,
                .sha256 = digest_,
                .state = key_state_name(row.state),
                .expires = row.expires_s,
                .plan = given(terms.plan),
                .limits = given(limits_),
                .addresses = given(addresses_),
                .environment = row.environment,
                .owner = row.owner,
                .name = row.name,
                .created = row.created_s != 0 ? std::optional(row.created_s) : std::nullopt,
                .foreign = row.foreign ? 1 : 0,
                .scopes = given(scopes_),
                .metadata = given(row.metadata)};
}

tl::expected<PlanRow, std::string> plan_of(std::string_view name, KeyColumns::Text limits) {
    if (const auto fault = plan_name_fault(name)) {
        return fault_in("name", yaml_quote(name) + " is no plan's name (" + *fault + ")");
    }
    auto rows = limits ? limits_of(*limits) : std::vector<LimitRow>();
    if (!rows) {
        return Fault(rows.error());
    }
    return PlanRow{std::string(name), *std::move(rows)};
}

std::optional<std::vector<std::string>> granted_of(std::string_view scopes) {
    auto granted = scopes_of(scopes);
    return granted ? std::optional(*std::move(granted)) : std::nullopt;
}

Result<PolicyRows> PolicyRows::prepare(const Database& database) {
    PolicyRows rows;
    rows.database_ = &database;
    if (Result<void> prepared =
            database.prepare({{&rows.all_scopes_, "SELECT name FROM scopes ORDER BY rowid"},
                              {&rows.all_plans_, "SELECT name, limits FROM plans ORDER BY rowid"},
                              {&rows.all_owners_, "SELECT name, plan FROM owners ORDER BY rowid"},
                              {&rows.one_plan_, "SELECT name, limits FROM plans WHERE name = ?1"},
                              {&rows.one_owner_, "SELECT plan FROM owners WHERE name = ?1"}});
        !prepared) {
        return tl::unexpected(prepared.error());
    }
    return rows;
}

void PolicyRows::note(int rc) {
    if (rc != SQLITE_DONE && rc != SQLITE_ROW && !error_) {
        error_ = database_->last_error(kDoing);
    }
}

void PolicyRows::forget() {
    scopes_.reset();
    plans_.clear();
    owners_.clear();
    owners_known_ = false;
}

const std::vector<std::string>& PolicyRows::scopes() {
    if (!scopes_) {
        scopes_.emplace();
        const ResetGuard guard(all_scopes_);
        int rc = all_scopes_.step();
        for (; rc == SQLITE_ROW; rc = all_scopes_.step()) {
            const std::string_view name = all_scopes_.column_text(0);
            if (!scope_fault(name) && !apikey::shm::is_branch(name) && scopes_->size() < kScopesMax) {
                scopes_->emplace_back(name);
            }
        }
        note(rc);
    }
    return *scopes_;
}

const PlanRow* PolicyRows::plan(std::string_view name) {
    const auto known = plans_.find(std::string(name));
    if (known != plans_.end()) {
        return known->second.get();
    }
    const ResetGuard guard(one_plan_);
    const int rc = one_plan_.bind(1, name).step();
    note(rc);
    std::unique_ptr<const PlanRow> found;
    if (rc == SQLITE_ROW) {
        if (auto plan = plan_of(one_plan_.column_text(0), text_of(one_plan_, 1))) {
            found = std::make_unique<const PlanRow>(*std::move(plan));
        }
    }
    return plans_.emplace(std::string(name), std::move(found)).first->second.get();
}

bool PolicyRows::owner_is_sound(std::string_view name) {
    if (name.empty() || (owners_known_ && owners_.empty())) {
        return true;
    }
    const auto known = owners_.find(std::string(name));
    if (known != owners_.end() || owners_known_) {
        return known == owners_.end() || known->second;
    }
    bool sound = true;
    {
        const ResetGuard guard(one_owner_);
        const int rc = one_owner_.bind(1, name).step();
        note(rc);
        sound = rc != SQLITE_ROW || !one_owner_.column_is_text(0) ||
                plan(std::string(one_owner_.column_text(0))) != nullptr;
    }
    return owners_.emplace(std::string(name), sound).first->second;
}

void PolicyRows::load_plans(PolicySet& set, const Fault& fault) {
    const ResetGuard guard(all_plans_);
    int rc = all_plans_.step();
    for (; rc == SQLITE_ROW; rc = all_plans_.step()) {
        const std::string_view name = all_plans_.column_text(0);
        auto plan = plan_of(name, text_of(all_plans_, 1));
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
    note(rc);
}

void PolicyRows::load_owners(PolicySet& set, const Fault& fault) {
    const ResetGuard guard(all_owners_);
    int rc = all_owners_.step();
    for (; rc == SQLITE_ROW; rc = all_owners_.step()) {
        OwnerRow owner{std::string(all_owners_.column_text(0)), std::string(all_owners_.column_text(1))};
        const bool sound = !all_owners_.column_is_text(1) || plan(owner.plan) != nullptr;
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
    note(rc);
    owners_known_ = true;
}

PolicySet PolicyRows::load(const Fault& fault) {
    forget();
    PolicySet set;
    set.scopes = scopes();
    {
        const ResetGuard guard(all_scopes_);
        while (all_scopes_.step() == SQLITE_ROW) {
            const std::string_view name = all_scopes_.column_text(0);
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

KeyReader::Terms KeyReader::make_terms(const KeyColumns& columns) {
    KeyTerms terms;
    if (columns.plan) {
        if (const auto fault = plan_name_fault(*columns.plan)) {
            return fault_in("plan", yaml_quote(*columns.plan) + " is no plan's name (" + *fault + ")");
        }
        terms.plan = *columns.plan;
    }
    if (columns.limits) {
        auto limits = limits_of(*columns.limits);
        if (!limits) {
            return Fault(limits.error());
        }
        terms.overrides = *std::move(limits);
    }
    if (columns.addresses) {
        auto addresses = addresses_of(*columns.addresses);
        if (!addresses) {
            return Fault(addresses.error());
        }
        terms.addresses = *std::move(addresses);
    }
    if (columns.scopes) {
        auto scopes = scopes_of(*columns.scopes);
        if (!scopes) {
            return Fault(scopes.error());
        }
        terms.scopes = *std::move(scopes);
    }
    const PlanRow* plan = terms.plan.empty() ? nullptr : policies_.plan(terms.plan);
    if (const auto fault = terms_fault(terms, plan, policies_.scopes())) {
        return Fault(*fault);
    }
    return terms.empty() ? nullptr : std::make_shared<const KeyTerms>(std::move(terms));
}

KeyReader::Terms KeyReader::terms_of(const KeyColumns& columns) {
    if (!columns.plan && !columns.limits && !columns.addresses && !columns.scopes) {
        return nullptr;
    }
    std::string written;
    for (const auto& text : {columns.plan, columns.limits, columns.addresses, columns.scopes}) {
        written += text ? std::to_string(text->size()) + ":" : "-";
        written += text.value_or("");
    }
    const auto known = known_.find(written);
    if (known != known_.end()) {
        return known->second;
    }
    if (known_.size() >= kKnownTermsMax) {
        known_.clear();
    }
    return known_.emplace(std::move(written), make_terms(columns)).first->second;
}

tl::expected<KeyRow, std::string> KeyReader::read(const KeyColumns& columns) {
    KeyRow row;
    const std::string_view id = columns.id.value_or("");
    if (const auto fault = key_id_fault(id)) {
        return fault_in("id", *fault);
    }
    row.id = id;
    const std::string_view digest = columns.sha256.value_or("");
    if (digest.size() != row.digest.size()) {
        return fault_in("sha256", std::to_string(digest.size()) + " bytes (want the 32 of a SHA-256)");
    }
    std::copy(digest.begin(), digest.end(), row.digest.begin());
    const auto state = key_state_named(columns.state.value_or(""));
    if (!state) {
        return fault_in("state", state_fault(columns.state.value_or("")));
    }
    row.state = *state;
    if (columns.expires) {
        const auto time_s = time_of("expires", *columns.expires, kExpiresMax_s);
        if (!time_s) {
            return Fault(time_s.error());
        }
        row.expires_s = *time_s;
    }
    if (columns.created) {
        const auto time_s = time_of("created", *columns.created, kCreatedMax_s);
        if (!time_s) {
            return Fault(time_s.error());
        }
        row.created_s = *time_s;
    }
    const int64_t foreign = columns.foreign.value_or(0);
    if (foreign != 0 && foreign != 1) {
        return fault_in("foreign", std::to_string(foreign) + " is no truth value (want 0 or 1)");
    }
    row.foreign = foreign == 1;
    row.environment = columns.environment.value_or("");
    if (const auto fault = environment_fault(row.environment)) {
        return fault_in("environment", *fault);
    }
    if (row.environment.empty() && !row.foreign) {
        return Fault(std::string(kNoEnvironment));
    }
    row.owner = columns.owner.value_or("");
    if (const auto fault = text_fault(row.owner, kOwnerBytesMax)) {
        return fault_in("owner", *fault);
    }
    row.name = columns.name.value_or("");
    if (const auto fault = text_fault(row.name, kNameBytesMax)) {
        return fault_in("name", *fault);
    }
    if (columns.metadata) {
        auto metadata = compact_metadata(*columns.metadata);
        if (!metadata) {
            return fault_in("metadata", metadata.error().message);
        }
        row.metadata = *std::move(metadata);
    }
    auto terms = terms_of(columns);
    if (!terms) {
        return Fault(terms.error());
    }
    row.terms = *std::move(terms);
    if (!policies_.owner_is_sound(row.owner)) {
        return fault_in("owner", yaml_quote(row.owner) + " has a plan that is defined nowhere (see owners)");
    }
    return row;
}

std::string row_name(const KeyColumns& columns) {
    return columns.id && !key_id_fault(*columns.id) ? "id " + std::string(*columns.id)
                                                    : "rowid " + std::to_string(columns.rowid);
}

void RowWarnings::add(std::string_view table, const std::string& row, const std::string& what) {
    if (++count_ <= kWarningsMax) {
        list_.push_back(place_ + ": " + std::string(table) + ", " + row + ": " + what);
    }
}

std::vector<std::string> RowWarnings::take() {
    if (count_ > kWarningsMax) {
        list_.push_back(place_ + ": " + std::to_string(count_ - kWarningsMax) + " more rows break a rule");
    }
    return std::move(list_);
}

}  // namespace apikeyd
