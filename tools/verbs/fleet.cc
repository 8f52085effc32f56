// fleet: the hosts that serve the same key set, and what is in force there.

#include <memory>

#include "tools/fleet_wait.h"
#include "tools/output.h"
#include "tools/verbs/registry.h"

namespace apikeyd {

namespace {

const std::vector<std::string_view> kFleetNames = {"host", "state", "told_ms_ago", "behind", "version"};

Outcome show_fleet(const Context& context, Fleet& fleet) {
    const auto hosts = fleet.hosts();
    if (!hosts) {
        return failed(Exit::kUnreachable, hosts.error());
    }
    std::vector<Record> records;
    for (const FleetHost& host : *hosts) {
        records.push_back({{"host", host.name},
                           {"state", std::string(host.silent ? "silent" : "live")},
                           {"told_ms_ago", host.told_ms_ago},
                           {"behind", host.behind ? Value(*host.behind) : Value()},
                           {"version", host.version}});
    }
    return print(format_list(context.output(), kFleetNames, records));
}

Outcome run_fleet(const Context& context, const std::string& forgotten) {
    const auto fleet = open_fleet(context);
    if (!fleet) {
        return tl::unexpected(fleet.error());
    }
    if (forgotten.empty()) {
        return show_fleet(context, **fleet);
    }
    const Result<bool> gone = (*fleet)->forget(forgotten);
    if (!gone) {
        return failed(Exit::kUnreachable, gone.error());
    }
    return *gone ? Outcome() : failed(Exit::kNo, forgotten + ": no host of this name has told of itself");
}

}  // namespace

Verb add_fleet(CommandLine& line) {
    auto forgotten = std::make_shared<std::string>();
    Command command =
        line.add_verb("fleet", "list the hosts that serve this key set, and how far behind they are");
    command.add_option("--forget", *forgotten, "a host that is gone for good: nobody waits for it any more");
    command.set_example("apikeyctl fleet");
    return {command, [forgotten](const Context& context) { return run_fleet(context, *forgotten); }};
}

}  // namespace apikeyd
