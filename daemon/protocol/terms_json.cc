#include "protocol/terms_json.h"

#include <algorithm>
#include <boost/json.hpp>

#include "shm/scope_name.h"
#include "source/limit_text.h"

namespace apikeyd {

namespace json = boost::json;

namespace {

json::object limit_to_json(const LimitRow& limit) {
    const bool rate = limit.form == LimitForm::kRate;
    json::object object{{"name", limit.name}, {rate ? "rate" : "quota", format_limit(limit)}};
    if (rate) {
        object["burst"] = std::to_string(limit.burst);
    }
    if (limit.shadow) {
        object["shadow"] = true;
    }
    return object;
}

/// "" for what is missing or no string.
std::string text_of(const json::object& object, const char* name) {
    const json::value* value = object.if_contains(name);
    return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

Result<LimitRow> limit_from_json(const json::value& value) {
    if (!value.is_object()) {
        return fail("limits: want objects");
    }
    const json::object& object = value.get_object();
    LimitRow limit;
    limit.name = text_of(object, "name");
    if (limit.name.empty() || limit.name.size() > kLimitNameBytesMax) {
        return fail("limits: name: want 1 to 15 characters");
    }
    const std::string rate = text_of(object, "rate");
    const std::string burst = text_of(object, "burst");
    Result<void> read = rate.empty() ? parse_quota(text_of(object, "quota"), limit) : parse_rate(rate, limit);
    if (read && !burst.empty()) {
        read = parse_burst(burst, limit);
    }
    if (read) {
        read = check_limit(limit);
    }
    if (!read) {
        return fail("limits: " + limit.name + ": " + read.error().message);
    }
    const json::value* shadow = object.if_contains("shadow");
    limit.shadow = shadow != nullptr && shadow->is_bool() && shadow->get_bool();
    return limit;
}

json::array limits_to_json(const std::vector<LimitRow>& limits) {
    json::array array;
    for (const LimitRow& limit : limits) {
        array.emplace_back(limit_to_json(limit));
    }
    return array;
}

Result<std::vector<LimitRow>> limits_from_json(const json::array& array) {
    std::vector<LimitRow> limits;
    for (const json::value& one : array) {
        auto limit = limit_from_json(one);
        if (!limit) {
            return tl::unexpected(limit.error());
        }
        if (limits.size() == kLimitsMax || limit_named(limits, limit->name) != nullptr) {
            return fail("limits: too many, or one twice");
        }
        limits.push_back(std::move(*limit));
    }
    return limits;
}

/// The elements of a list that may be missing; nullptr when it is something else.
const json::array* list_of(const json::object& object, const char* name) {
    static const json::array none;
    const json::value* value = object.if_contains(name);
    return value == nullptr ? &none : value->if_array();
}

}  // namespace

json::object terms_to_json(const KeyTerms& terms) {
    json::array scopes(terms.scopes.begin(), terms.scopes.end());
    json::array addresses;
    for (const AddressRangeRow& range : terms.addresses) {
        addresses.emplace_back(format_address_range(range));
    }
    return {{"plan", terms.plan},
            {"scopes", std::move(scopes)},
            {"addresses", std::move(addresses)},
            {"limits", limits_to_json(terms.overrides)}};
}

Result<std::shared_ptr<const KeyTerms>> terms_from_json(const json::value& value) {
    if (!value.is_object()) {
        return fail("terms: want an object");
    }
    const json::object& object = value.get_object();
    const json::array* scopes = list_of(object, "scopes");
    const json::array* addresses = list_of(object, "addresses");
    const json::array* limits = list_of(object, "limits");
    KeyTerms terms;
    terms.plan = text_of(object, "plan");
    if (scopes == nullptr || addresses == nullptr || limits == nullptr || addresses->size() > kAddressesMax ||
        terms.plan.size() > kPlanNameBytesMax) {
        return fail("terms: want lists of scopes, addresses and limits, not too long");
    }
    for (const json::value& scope : *scopes) {
        const std::string name = scope.is_string() ? std::string(scope.get_string()) : std::string();
        if (const auto fault = scope_fault(name)) {
            return fail("terms.scopes: " + *fault);
        }
        terms.scopes.push_back(name);
    }
    std::sort(terms.scopes.begin(), terms.scopes.end());
    terms.scopes.erase(std::unique(terms.scopes.begin(), terms.scopes.end()), terms.scopes.end());
    for (const json::value& one : *addresses) {
        const auto range =
            parse_address_range(one.is_string() ? std::string_view(one.get_string()) : std::string_view());
        if (!range) {
            return fail("terms.addresses: " + range.error().message);
        }
        terms.addresses.push_back(*range);
    }
    auto overrides = limits_from_json(*limits);
    if (!overrides) {
        return tl::unexpected(overrides.error());
    }
    terms.overrides = *std::move(overrides);
    return terms.empty() ? nullptr : std::make_shared<const KeyTerms>(std::move(terms));
}

json::object policy_change_to_json(const PolicyChange& change) {
    json::object object{{"op", change.kind == Change::Kind::kUpsert ? "upsert" : "remove"}};
    if (const auto* plan = std::get_if<PlanRow>(&change.row)) {
        object["plan"] = json::object{{"name", plan->name}, {"limits", limits_to_json(plan->limits)}};
    } else if (const auto* owner = std::get_if<OwnerRow>(&change.row)) {
        object["owner"] = json::object{{"name", owner->name}, {"plan", owner->plan}};
    } else {
        object["scope"] = std::get<std::string>(change.row);
    }
    return object;
}

namespace {

Result<PlanRow> plan_from_json(const json::object& object) {
    PlanRow plan{text_of(object, "name"), {}};
    if (const auto fault = plan_name_fault(plan.name)) {
        return fail("plan.name: " + *fault);
    }
    const json::array* limits = list_of(object, "limits");
    if (limits == nullptr) {
        return fail("plan.limits: want a list");
    }
    auto read = limits_from_json(*limits);
    if (!read) {
        return tl::unexpected(read.error());
    }
    plan.limits = *std::move(read);
    return plan;
}

Result<OwnerRow> owner_from_json(const json::object& object) {
    OwnerRow owner{text_of(object, "name"), text_of(object, "plan")};
    if (const auto fault = owner_name_fault(owner.name)) {
        return fail("owner.name: " + *fault);
    }
    const auto fault = owner.plan.empty() ? std::nullopt : plan_name_fault(owner.plan);
    return fault ? fail("owner.plan: " + *fault) : Result<OwnerRow>(std::move(owner));
}

}  // namespace

Result<PolicyChange> policy_change_from_json(const json::value& value) {
    const json::object* object = value.if_object();
    const std::string op = object != nullptr ? text_of(*object, "op") : "";
    if (op != "upsert" && op != "remove") {
        return fail("op: want upsert or remove");
    }
    const auto change = [kind = op == "upsert" ? Change::Kind::kUpsert : Change::Kind::kRemove](auto row) {
        return row ? Result<PolicyChange>(PolicyChange{kind, *std::move(row)}) : tl::unexpected(row.error());
    };
    const json::value* plan = object->if_contains("plan");
    const json::value* owner = object->if_contains("owner");
    if (plan != nullptr && plan->is_object()) {
        return change(plan_from_json(plan->get_object()));
    }
    if (owner != nullptr && owner->is_object()) {
        return change(owner_from_json(owner->get_object()));
    }
    const std::string scope = text_of(*object, "scope");
    if (scope_fault(scope) || apikey::shm::is_branch(scope)) {
        return fail("want a plan, an owner or a scope");
    }
    return change(Result<std::string>(scope));
}

}  // namespace apikeyd
