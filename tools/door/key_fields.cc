#include "tools/door/key_fields.h"

#include <algorithm>
#include <boost/json.hpp>

#include "source/json_text.h"
#include "source/key_rules.h"
#include "source/limit_text.h"
#include "tools/duration.h"
#include "tools/operations/key_terms.h"
#include "tools/tags.h"

namespace apikeyd {

namespace json = boost::json;

namespace {

/// A string, or "" for null; nullopt where the field does not stand there, or is at fault.
std::optional<std::string> text_or_null(JsonBody& body, std::string_view name) {
    if (const json::string* text = body.text(name)) {
        return std::string(*text);
    }
    return body.is_null(name) ? std::optional<std::string>("") : std::nullopt;
}

void read_line(JsonBody& body, std::string_view name, size_t bytes_max, std::string& out) {
    if (auto text = text_or_null(body, name)) {
        if (const auto fault = text_fault(*text, bytes_max)) {
            body.fault(name, *fault);
        }
        out = *std::move(text);
    }
}

void read_expiry(JsonBody& body, KeyRow& row, int64_t now_s) {
    if (const json::string* text = body.text("expires")) {
        const Result<int64_t> expires_s = parse_expiry(std::string_view(*text), now_s);
        if (expires_s) {
            row.expires_s = *expires_s;
        } else {
            body.fault("expires", expires_s.error().message);
        }
    } else if (body.is_null("expires")) {
        row.expires_s.reset();
    }
}

void read_metadata(JsonBody& body, KeyRow& row) {
    const json::value* value = body.find("metadata");
    if (value != nullptr && value->is_null()) {
        row.metadata.clear();
    } else if (value != nullptr) {
        Result<std::string> metadata = compact_metadata(body.raw("metadata"));
        if (metadata) {
            row.metadata = *std::move(metadata);
        } else {
            body.fault("metadata", metadata.error().message);
        }
    }
    std::optional<std::vector<std::string>> tags = body.texts("tags");
    if (body.is_null("tags")) {
        tags.emplace();
    }
    if (tags) {
        Result<std::string> tagged = with_tags(row.metadata, *tags);
        if (tagged) {
            row.metadata = *std::move(tagged);
        } else {
            body.fault("tags", tagged.error().message);
        }
    }
}

void read_plan(JsonBody& body, KeyTerms& terms) {
    if (auto plan = text_or_null(body, "plan")) {
        const auto fault = plan->empty() ? std::nullopt : plan_name_fault(*plan);
        if (fault) {
            body.fault("plan", *fault);
        }
        terms.plan = *std::move(plan);
    }
}

void read_scopes(JsonBody& body, KeyTerms& terms) {
    auto scopes = body.texts("scopes");
    if (scopes) {
        for (size_t i = 0; i < scopes->size(); ++i) {
            if (const auto fault = scope_fault((*scopes)[i])) {
                body.fault("scopes", *fault, "/" + std::to_string(i));
            }
        }
        std::sort(scopes->begin(), scopes->end());
        scopes->erase(std::unique(scopes->begin(), scopes->end()), scopes->end());
        terms.scopes = *std::move(scopes);
    } else if (body.is_null("scopes")) {
        terms.scopes.clear();
    }
}

void read_addresses(JsonBody& body, KeyTerms& terms) {
    const auto texts = body.texts("addresses");
    if (!texts && !body.is_null("addresses")) {
        return;
    }
    terms.addresses.clear();
    const size_t count = texts ? texts->size() : 0;
    if (count > kAddressesMax) {
        body.fault("addresses", "want at most " + std::to_string(kAddressesMax));
        return;
    }
    for (size_t i = 0; i < count; ++i) {
        const Result<AddressRangeRow> range = parse_address_range((*texts)[i]);
        if (range) {
            terms.addresses.push_back(*range);
        } else {
            body.fault("addresses", range.error().message, "/" + std::to_string(i));
        }
    }
}

/// One limit, in the form that it is shown in: name, and rate with burst, or quota; shadow.
class LimitReader {
  public:
    LimitReader(JsonBody& body, std::string at) : body_(body), at_(std::move(at)) {}

    LimitRow read(const json::value& value) {
        LimitRow limit;
        const json::object* object = value.if_object();
        if (object == nullptr) {
            body_.fault("limits", "want an object", at_);
            return limit;
        }
        limit.name = text(*object, "name").value_or("");
        if (const auto wrong = limit_name_fault(limit.name)) {
            fault("name", *wrong);
        }
        const auto rate = text(*object, "rate");
        const auto quota = text(*object, "quota");
        if (rate.has_value() == quota.has_value()) {
            body_.fault("limits", "want either rate or quota", at_);
            good_ = false;  // there is no figure to check
        } else {
            check(rate ? "rate" : "quota", rate ? parse_rate(*rate, limit) : parse_quota(*quota, limit));
        }
        read_burst(*object, limit, rate.has_value());
        if (const json::value* shadow = object->if_contains("shadow")) {
            limit.shadow = shadow->is_bool() && shadow->get_bool();
            if (!shadow->is_bool()) {
                fault("shadow", "want true or false");
            }
        }
        for (const auto& member : *object) {
            const std::string_view name = member.key();
            if (name != "name" && name != "rate" && name != "quota" && name != "burst" && name != "shadow") {
                body_.fault("limits", "no such field", at_ + pointer_part(name));
            }
        }
        if (good_) {
            if (const Result<void> whole = check_limit(limit); !whole) {
                body_.fault("limits", whole.error().message, at_);
            }
        }
        return limit;
    }

  private:
    void fault(std::string_view field, std::string detail) {
        body_.fault("limits", std::move(detail), at_ + pointer_part(field));
        good_ = false;
    }
    void check(std::string_view field, const Result<void>& result) {
        if (!result) {
            fault(field, result.error().message);
        }
    }
    std::optional<std::string> text(const json::object& object, std::string_view name) {
        const json::value* value = object.if_contains(json::string_view(name.data(), name.size()));
        if (value == nullptr || value->is_null()) {
            return std::nullopt;
        }
        if (!value->is_string()) {
            fault(name, "want a string");
            return std::nullopt;
        }
        return std::string(value->get_string());
    }
    void read_burst(const json::object& object, LimitRow& limit, bool rate) {
        const json::value* burst = object.if_contains("burst");
        if (burst == nullptr || burst->is_null()) {
            return;
        }
        json::error_code error;
        const auto number = burst->to_number<uint64_t>(error);
        if (error || !rate) {
            fault("burst", rate ? "want a whole number" : "a quota has none (want it with a rate)");
            return;
        }
        check("burst", parse_burst(std::to_string(number), limit));
    }

    JsonBody& body_;
    std::string at_;
    bool good_ = true;
};

void read_limits(JsonBody& body, KeyTerms& terms) {
    const json::array* list = body.array("limits");
    if (list == nullptr && !body.is_null("limits")) {
        return;
    }
    terms.overrides.clear();
    for (size_t i = 0; list != nullptr && i < list->size(); ++i) {
        const std::string at = "/" + std::to_string(i);
        LimitRow limit = LimitReader(body, at).read((*list)[i]);
        if (limit_named(terms.overrides, limit.name) != nullptr) {
            body.fault("limits", "want each limit once", at + "/name");
        }
        terms.overrides.push_back(std::move(limit));
    }
}

}  // namespace

void read_key_fields(JsonBody& body, KeyRow& row, int64_t now_s) {
    read_line(body, "owner", kOwnerBytesMax, row.owner);
    read_line(body, "name", kNameBytesMax, row.name);
    read_expiry(body, row, now_s);
    read_metadata(body, row);
    KeyTerms terms = terms_of(row);
    read_plan(body, terms);
    read_scopes(body, terms);
    read_addresses(body, terms);
    read_limits(body, terms);
    row.terms = row_terms(std::move(terms));
}

}  // namespace apikeyd
