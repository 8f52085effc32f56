#include "tools/usage_fleet.h"

#include <apikey/apikey.h>

#include <charconv>
#include <utility>
#include <vector>

#include "tools/fleet_wait.h"
#include "tools/output.h"
#include "usage/fleet_usage.h"

namespace apikeyd {

namespace {

using Of = FleetUsageQuery::Of;

Of group_named(const std::string& name) {
    return name == "owner" ? Of::kOwner : name == "host" ? Of::kHost : name == "code" ? Of::kCode : Of::kKey;
}

std::string_view column_of(Of of) {
    return of == Of::kOwner ? "owner" : of == Of::kHost ? "host" : of == Of::kCode ? "code" : "id";
}

std::string code_name(const std::string& number) {
    int code = -1;
    std::from_chars(number.data(), number.data() + number.size(), code);
    return apikey_code_name(static_cast<apikey_code>(code));
}

}  // namespace

Outcome print_fleet_usage(const Context& context, const FleetUsageOptions& options,
                          const std::optional<RollupQuery>& stretch) {
    if (Outcome fleet = check_fleet(context); !fleet) {
        return fleet;
    }
    FleetUsageQuery query;
    query.of = group_named(options.group_by);
    query.owner = options.owner;
    if (!options.id.empty()) {
        query.key_id = options.id;
    }
    if (stretch) {
        query.step_s = options.each_step ? stretch->step_s : 0;
        query.since_s = stretch->since_s;
        query.until_s = stretch->until_s;
    }
    const auto sums = read_fleet_usage(context.store()->place, query);
    if (!sums) {
        return failed(Exit::kUnreachable, sums.error());
    }
    const std::string_view name = column_of(query.of);
    std::vector<std::string_view> names;
    if (query.step_s != 0) {
        names.emplace_back("start");
    }
    if (query.of == Of::kCode) {
        names.insert(names.end(), {name, "total"});
    } else {
        names.insert(names.end(), {name, "allowed", "denied"});
    }
    std::vector<Record> records;
    for (const FleetUsageSum& one : *sums) {
        Record record;
        if (query.step_s != 0) {
            record.push_back({"start", Time{one.start_s}});
        }
        if (query.of == Of::kCode) {
            record.push_back({name, code_name(one.name)});
            record.push_back({"total", one.allowed});
        } else {
            record.push_back({name, text_or_none(one.name)});
            record.push_back({"allowed", one.allowed});
            record.push_back({"denied", one.denied});
        }
        records.push_back(std::move(record));
    }
    return print(format_list(context.output(), names, records));
}

}  // namespace apikeyd
