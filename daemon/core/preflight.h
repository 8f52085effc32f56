// What a start needs of the system besides a good configuration and a good key set.

#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.h"
#include "source/config.h"

namespace apikeyd {

/// The groups of the configuration as numbers; the daemon's own where none is named.
struct Groups {
    gid_t clients;
    gid_t operators;
};
/// Errors name the field's place.
Result<Groups> find_groups(const Config& config);

/// Looks at everything that a start would open or make, as this process's user, and changes nothing: groups,
/// the instance's directory, the usage store, the snapshot, the log files. One error a line, each with the
/// field's place; none when a start would get past all of them.
std::vector<Error> preflight(const Config& config);

}  // namespace apikeyd
