// What all hosts of a fleet counted, as lines of a table.

#pragma once

#include <optional>
#include <string>

#include "tools/context.h"
#include "tools/outcome.h"
#include "usage/usage_reader.h"

namespace apikeyd {

struct FleetUsageOptions {
    std::string id;                    ///< empty: all keys
    std::optional<std::string> owner;  ///< only this one's keys
    std::string group_by;              ///< key, owner, host, code; empty: key
    bool each_step = false;            ///< one line for each step of `stretch`
};

/// `stretch`: nullopt for all that was ever sent; its steps are full hours.
Outcome print_fleet_usage(const Context& context, const FleetUsageOptions& options,
                          const std::optional<RollupQuery>& stretch);

}  // namespace apikeyd
