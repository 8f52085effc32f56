// Waiting until every host of a fleet has what was committed.

#pragma once

#include "source/postgres_fleet.h"
#include "tools/context.h"
#include "tools/outcome.h"

namespace apikeyd {

/// The fleet of the context's store.
tl::expected<std::unique_ptr<Fleet>, Failure> open_fleet(const Context& context);

/// Whether the context's store is one that a fleet has; asked before anything is changed.
Outcome check_fleet(const Context& context);

/// Until all that is committed by now is in force on every host that tells of itself. Exit::kUnreachable
/// names those that do not have it after half a minute, or as long as the context waits at most, and those
/// that are silent: what they serve nobody knows.
Outcome wait_for_fleet(const Context& context);

}  // namespace apikeyd
