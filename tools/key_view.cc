#include "tools/key_view.h"

namespace apikeyd {

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

const std::vector<std::string_view>& short_record_names() {
    static const std::vector<std::string_view> names = [] {
        std::vector<std::string_view> found;
        for (const Field& field : short_record({}, 0)) {
            found.push_back(field.name);
        }
        return found;
    }();
    return names;
}

}  // namespace apikeyd
