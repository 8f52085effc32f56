#include "protocol/terms_json.h"

#include <algorithm>
#include <boost/json.hpp>

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
        return fail("terms.limits: want objects");
    }
    const json::object& object = value.get_object();
    LimitRow limit;
    limit.name = text_of(object, "name");
    if (limit.name.empty() || limit.name.size() > kLimitNameBytesMax) {
        return fail("terms.limits: name: want 1 to 15 characters");
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
        return fail("terms.limits: " + limit.name + ": " + read.error().message);
    }
    const json::value* shadow = object.if_contains("shadow");
    limit.shadow = shadow != nullptr && shadow->is_bool() && shadow->get_bool();
    return limit;
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
    json::array limits;
    for (const LimitRow& limit : terms.overrides) {
        limits.emplace_back(limit_to_json(limit));
    }
    return {{"plan", terms.plan},
            {"scopes", std::move(scopes)},
            {"addresses", std::move(addresses)},
            {"limits", std::move(limits)}};
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
        limits->size() > kLimitsMax || terms.plan.size() > kPlanNameBytesMax) {
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
    for (const json::value& one : *limits) {
        auto limit = limit_from_json(one);
        if (!limit) {
            return tl::unexpected(limit.error());
        }
        terms.overrides.push_back(std::move(*limit));
    }
    return terms.empty() ? nullptr : std::make_shared<const KeyTerms>(std::move(terms));
}

}  // namespace apikeyd
