// What changed in a key store since a position. Private to the key store.

#pragma once

#include <optional>

#include "base/result.h"
#include "source/source.h"
#include "source/sqlite_connection.h"

namespace apikeyd {

/// As Source::changes_since(), in a transaction that is open and stands at `now`.
Result<std::optional<SourceChanges>> changes_between(KeyStoreConnection& connection, const Position& since,
                                                     const Position& now);

}  // namespace apikeyd
