// /v1/keys/{id}/usage and /v1/self/usage: how often a key was allowed and denied, in all or by time.

#include <algorithm>
#include <array>

#include "tools/door/route.h"
#include "tools/operations/key_query.h"
#include "tools/operations/key_usage.h"
#include "tools/usage_access.h"
#include "tools/usage_period.h"

namespace apikeyd {

namespace {

std::optional<std::string> given(const Call& call, const std::string& name) {
    const auto found = call.query.find(name);
    return found != call.query.end() ? std::optional(found->second) : std::nullopt;
}

/// What parse_usage_period() says, which begins with the option of the command line.
HttpAnswer wrong_period(const std::string& message) {
    constexpr std::string_view kDashes = "--";
    constexpr std::string_view kBehindName = ": ";
    const size_t colon = message.find(kBehindName);
    return wrong_parameter(message.substr(kDashes.size(), colon - kDashes.size()),
                           message.substr(colon + kBehindName.size()));
}

HttpAnswer of_stretch(const Call& call, OpenUsage& usage, const RollupQuery& stretch, bool from_its_start,
                      bool each_step) {
    const auto kept = kept_of(usage.reader, stretch, from_its_start);
    if (!kept) {
        return failure_answer(call, kept.error());
    }
    std::vector<Record> records;
    const auto add = [&](const KeyRollup& one) {
        Record record;
        if (each_step) {
            record.push_back({"start", Time{one.start_s}});
        }
        record.push_back({"id", one.key_id});
        record.push_back({"allowed", one.allowed});
        record.push_back({"denied", one.denied});
        records.push_back(std::move(record));
    };
    const Result<void> read =
        each_step ? usage.reader.for_each_rollup(stretch, add) : usage.reader.for_each_sum(stretch, add);
    if (!read) {
        return failure_answer(call, failed(Exit::kUnreachable, read.error()).value());
    }
    const Record notes = {
        {"complete", usage.complete},
        {"unflushed", usage.unflushed ? Value(*usage.unflushed) : Value()},
        {"partial", kept->partial},
        {"keys", RawJson{json_list(records)}},
    };
    return json_answer(200, json_object(notes));
}

HttpAnswer usage_of(const Call& call, const std::string& id) {
    const UsagePeriodOptions period{given(call, "since"), given(call, "until"), call.parameter("by")};
    constexpr std::array<std::string_view, 4> kSteps = {"", "minute", "hour", "day"};
    if (std::find(kSteps.begin(), kSteps.end(), period.by) == kSteps.end()) {
        return wrong_parameter("by", "want minute, hour or day");
    }
    Result<RollupQuery> stretch = parse_usage_period(period, unix_now_s());
    if (!stretch) {
        return wrong_period(stretch.error().message);
    }
    const auto row = read_key(call.context, id);
    const bool all = call.caller.holds(door_scope::kUsageRead);
    if (!row && (!all || row.error().cause != Cause::kMissing)) {
        return failure_answer(call, row.error());
    }
    if (const Outcome theirs = row ? check_theirs(call.caller, door_scope::kUsageRead, *row) : Outcome();
        !theirs) {
        return failure_answer(call, theirs.error());
    }
    auto usage = open_usage(call.context, true);
    if (!usage) {
        return failure_answer(call, usage.error());
    }
    const auto total = total_of(call.context, usage->reader, id);
    if (!total) {
        return failure_answer(call, total.error());
    }
    if (!period.given()) {
        return json_answer(200, json_object(total_record(*total)));
    }
    stretch->key_id = id;
    return of_stretch(call, *usage, *stretch, period.since || period.by.empty(), !period.by.empty());
}

HttpAnswer usage_of_key(const Call& call) {
    return usage_of(call, call.subject);
}

HttpAnswer usage_of_self(const Call& call) {
    return of_own_key(call, usage_of);
}

}  // namespace

std::vector<Route> usage_routes() {
    using namespace door_scope;
    return {
        {"GET", "/v1/keys/{id}/usage", {kUsageRead, kSelf}, {"since", "until", "by"}, usage_of_key, false},
        {"GET", "/v1/self/usage", {kSelf}, {"since", "until", "by"}, usage_of_self, false},
    };
}

}  // namespace apikeyd
