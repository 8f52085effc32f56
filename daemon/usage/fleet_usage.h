// What the hosts of a fleet counted, as its database has it (postgres_usage.sql), for the tool.

#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace apikeyd {

struct FleetUsageQuery {
    enum class Of : uint8_t { kKey, kOwner, kHost, kCode };
    Of of = Of::kKey;    ///< one sum for each of these
    int64_t step_s = 0;  ///< and in each step of so many seconds, of full hours; 0: over all of it
    int64_t since_s = 0;
    int64_t until_s = std::numeric_limits<int64_t>::max();  ///< the step that begins here is left out
    std::optional<std::string> key_id = std::nullopt;       ///< only this key's
    std::optional<std::string> owner = std::nullopt;  ///< only of this one's keys, by the key set as it is
};

struct FleetUsageSum {
    int64_t start_s = 0;  ///< 0: over all
    std::string name;     ///< of a key its id, of a code its number
    uint64_t allowed = 0;
    uint64_t denied = 0;  ///< of a code 0; `allowed` is its total
};

/// The sums that there are, in the order of time and name, through a connection of its own. `place`: see
/// postgres/place.h. Hosts send what they counted a minute or two later.
Result<std::vector<FleetUsageSum>> read_fleet_usage(const std::string& place, const FleetUsageQuery& query);

}  // namespace apikeyd
