#include "tools/policy_view.h"

#include "source/limit_option.h"
#include "source/limit_text.h"

namespace apikeyd {

namespace {

Record limit_record(const LimitRow& limit) {
    const bool rate = limit.form == LimitForm::kRate;
    const Value figure = format_limit(limit);
    return {{"name", limit.name},
            {"rate", rate ? figure : Value()},
            {"burst", rate ? Value(uint64_t{limit.burst}) : Value()},
            {"quota", rate ? Value() : figure},
            {"shadow", limit.shadow}};
}

}  // namespace

Value limits_value(const std::vector<LimitRow>& limits) {
    TwoForms shown{"", "["};
    for (const LimitRow& limit : limits) {
        shown.text += (shown.text.empty() ? "" : " ") + format_limit_option(limit);
        shown.json += (shown.json.size() > 1 ? "," : "") + json_object(limit_record(limit));
    }
    shown.json += ']';
    return shown;
}

void append_terms(Record& record, const KeyTerms& terms) {
    std::vector<std::string> addresses;
    for (const AddressRangeRow& range : terms.addresses) {
        addresses.push_back(format_address_range(range));
    }
    record.push_back({"scopes", list_of(terms.scopes)});
    record.push_back({"addresses", list_of(addresses)});
    record.push_back({"limits", limits_value(terms.overrides)});
}

}  // namespace apikeyd
