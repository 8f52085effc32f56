#include "source/key_columns.h"

#include <algorithm>
#include <utility>

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

using Fault = tl::unexpected<std::string>;

Fault fault_in(std::string_view column, const std::string& what) {
    return Fault(std::string(column) + ": " + what);
}

KeyColumns::Text given(const std::string& text) {
    return text.empty() ? std::nullopt : KeyColumns::Text(text);
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
