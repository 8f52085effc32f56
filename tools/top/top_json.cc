#include "tools/top/top_json.h"

#include <apikey/apikey.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "tools/output.h"

namespace apikeyd::top {

namespace {

RawJson number(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.3f", value);
    return {text};
}

Value time_of(uint64_t unix_ns) {
    return unix_ns != 0 ? Value(Time{static_cast<int64_t>(unix_ns / 1'000'000'000)}) : Value();
}

Value daemon_object(const View& view) {
    const Health& health = view.look.health;
    return RawJson{json_object({{"state", std::string(daemon_word(view.look))},
                                {"pid", health.pid},
                                {"heartbeat_age_ms", age_ms(health.heartbeat_ns, view.look.realtime_ns)},
                                {"started", time_of(health.started_ns)},
                                {"loaded", time_of(health.loaded_ns)},
                                {"refused", health.refused},
                                {"flushed", time_of(health.flushed_ns)},
                                {"unflushed_max", health.unflushed_max}})};
}

Value table_object(const Health& health) {
    return RawJson{json_object({{"generation", uint64_t{health.generation}},
                                {"next", health.next != 0 ? Value(uint64_t{health.next}) : Value()},
                                {"generations", health.generations},
                                {"keys", health.live},
                                {"slots", health.slots},
                                {"dead", health.dead},
                                {"mappings", health.mappings ? Value(*health.mappings) : Value()}})};
}

Value codes_object(const CodeRates& rates) {
    if (rates.seconds <= 0) {
        return {};
    }
    Record codes;
    for (uint32_t code = 0; code <= APIKEY_SHADOW_USAGE_EXCEEDED; ++code) {
        codes.push_back({apikey_code_name(static_cast<apikey_code>(code)), number(rates.by_code[code])});
    }
    return RawJson{json_object(codes)};
}

Record key_record(const KeyRate& key) {
    return {{"id", key.id},
            {"owner", text_or_none(key.owner)},
            {"plan", text_or_none(key.plan)},
            {"name", text_or_none(key.name)},
            {"allowed_per_s", number(key.allowed)},
            {"denied_per_s", number(key.denied)}};
}

Record limit_record(const LimitUse& use) {
    return {{"id", text_or_none(use.id)}, {"owner", text_or_none(use.owner)},
            {"limit", use.limit},         {"kind", std::string(use.rate ? "rate" : "quota")},
            {"shadow", use.shadow},       {"used", number(use.used)},
            {"allowance", use.allowance}, {"remaining", use.remaining},
            {"reset_ms", use.reset_ms}};
}

template <typename One>
Value list(const std::vector<One>& values, size_t count, Record (*record)(const One&)) {
    std::string text = "[";
    for (size_t i = 0; i < std::min(count, values.size()); ++i) {
        text += (i != 0 ? "," : "") + json_object(record(values[i]));
    }
    return RawJson{text + ']'};
}

const char* note_word(RateNote note) {
    return note == RateNote::kFirst        ? "first"
           : note == RateNote::kReplaced   ? "replaced"
           : note == RateNote::kGeneration ? "generation"
                                           : "none";
}

}  // namespace

std::string json_line(const View& view, size_t keys) {
    const bool attached = view.look.attached == apikey::shm::AttachResult::kOk;
    const bool rates = view.codes.seconds > 0;
    return json_object(
               {{"time", time_of(view.look.realtime_ns)},
                {"instance", view.instance},
                {"attached", std::string(apikey::shm::attach_text(view.look.attached))},
                {"change", std::string(note_word(view.codes.note))},
                {"seconds", rates ? Value(number(view.codes.seconds)) : Value()},
                {"daemon", attached ? daemon_object(view) : Value()},
                {"table", attached ? table_object(view.look.health) : Value()},
                {"validations_per_s", rates ? Value(number(view.codes.total)) : Value()},
                {"codes_per_s", codes_object(view.codes)},
                {"keys_seconds", view.activity.seconds > 0 ? Value(number(view.activity.seconds)) : Value()},
                {"active_keys", view.activity.active},
                {"keys", list(view.activity.keys, keys, key_record)},
                {"near_limits", view.activity.near},
                {"limits", list(view.activity.limits, view.activity.limits.size(), limit_record)}}) +
           '\n';
}

}  // namespace apikeyd::top
