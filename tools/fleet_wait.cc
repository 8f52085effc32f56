#include "tools/fleet_wait.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "tools/duration.h"

namespace apikeyd {

namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

/// A host that hears of a commit has it in milliseconds, one that asks for it within its poll_ms.
constexpr milliseconds kFleetWait{30'000};
constexpr milliseconds kLook{20};

std::string ago(const FleetHost& host) {
    return "silent for " + std::to_string(host.told_ms_ago / 1000) + " s";
}

/// Those that lack it, as a message names them; empty when none does.
std::string lacking(const std::vector<FleetHost>& hosts, bool with_silent) {
    std::string names;
    for (const FleetHost& host : hosts) {
        if (host.behind == 0 || (host.silent && !with_silent)) {
            continue;
        }
        names += (names.empty() ? "" : ", ") + host.name;
        if (host.silent) {
            names += " (" + ago(host) + ")";
        }
    }
    return names;
}

}  // namespace

Outcome check_fleet(const Context& context) {
    const auto store = context.store();
    if (!store) {
        return tl::unexpected(store.error());
    }
    return store->kind == StoreKind::kPostgres
               ? Outcome()
               : failed(Exit::kUsage, store->shown() + ": has no fleet, which needs postgresql://...");
}

tl::expected<std::unique_ptr<Fleet>, Failure> open_fleet(const Context& context) {
    if (Outcome fleet = check_fleet(context); !fleet) {
        return tl::unexpected(fleet.error());
    }
    auto opened = Fleet::open(context.store()->place);
    if (!opened) {
        return failed(Exit::kUnreachable, opened.error());
    }
    return *std::move(opened);
}

Outcome wait_for_fleet(const Context& context) {
    const auto fleet = open_fleet(context);
    if (!fleet) {
        return tl::unexpected(fleet.error());
    }
    const Result<int64_t> newest = (*fleet)->newest();
    if (!newest) {
        return failed(Exit::kUnreachable, newest.error());
    }
    const Clock::time_point deadline =
        Clock::now() + std::min(kFleetWait, milliseconds(context.wait_ms_max()));
    for (;;) {
        const auto hosts = (*fleet)->hosts(*newest);
        if (!hosts) {
            return failed(Exit::kUnreachable, hosts.error());
        }
        if (hosts->empty()) {
            return failed(Exit::kUnreachable,
                          context.store()->shown() +
                              ": recorded, not known to be in force on any host: none has "
                              "told of itself");
        }
        const bool waits = !lacking(*hosts, false).empty() && Clock::now() < deadline;
        if (const std::string names = waits ? "" : lacking(*hosts, true); !names.empty()) {
            return failed(Exit::kUnreachable,
                          context.store()->shown() + ": recorded, not known to be in force on: " + names +
                              " (a host that is gone for good: apikeyctl fleet --forget)");
        }
        if (!waits) {
            return {};
        }
        std::this_thread::sleep_for(kLook);
    }
}

}  // namespace apikeyd
