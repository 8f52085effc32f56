#include "tools/key_view.h"

#include "base/hex.h"
#include "tools/policy_view.h"

namespace apikeyd {

namespace {

std::vector<std::string_view> names_in(const Record& record) {
    std::vector<std::string_view> names;
    for (const Field& field : record) {
        names.push_back(field.name);
    }
    return names;
}

}  // namespace

std::string_view shown_state(const KeyRow& row, int64_t now_s) {
    const bool over = row.state == KeyState::kActive && row.expires_s && *row.expires_s <= now_s;
    return over ? "expired" : key_state_name(row.state);
}

Record short_record(const KeyRow& row, int64_t now_s) {
    return {{"id", row.id},
            {"state", std::string(shown_state(row, now_s))},
            {"environment", text_or_none(row.environment)},
            {"owner", text_or_none(row.owner)},
            {"name", text_or_none(row.name)},
            {"created", row.created_s != 0 ? Value(Time{row.created_s}) : Value()},
            {"expires", time_or_none(row.expires_s)},
            {"plan", text_or_none(terms_of(row).plan)}};
}

Record full_record(const KeyRow& row, int64_t now_s) {
    Record record = short_record(row, now_s);
    append_terms(record, terms_of(row));
    record.push_back({"foreign", row.foreign});
    record.push_back({"metadata", row.metadata.empty() ? Value() : Value(RawJson{row.metadata})});
    record.push_back({"sha256", to_hex(row.digest)});
    return record;
}

const std::vector<std::string_view>& short_record_names() {
    static const std::vector<std::string_view> names = names_in(short_record({}, 0));
    return names;
}

std::vector<std::string_view> full_record_names() {
    return names_in(full_record({}, 0));
}

}  // namespace apikeyd
