// All rows of `keys`, read by two threads where there are many: most of a first load is SQLite taking rows
// apart. Private to the key store.

#pragma once

#include <functional>
#include <string>
#include <tl/expected.hpp>

#include "base/result.h"
#include "source/key_row.h"
#include "source/sqlite_connection.h"

namespace apikeyd {

/// A row, or what rule it breaks.
struct ScannedRow {
    tl::expected<KeyRow, std::string> row;
    std::string name = {};  ///< of a row that breaks one; see row_name()
};

/// Calls `visit` with every row in the order of rowids, by the calling thread, and lets pass what it throws.
/// In the transaction that `connection` is in. The other thread has a connection of its own to `path`, which
/// is used when it sees the same `now`.
Result<void> scan_keys(KeyStoreConnection& connection, const std::string& path, const Position& now,
                       const std::function<void(ScannedRow&)>& visit);

}  // namespace apikeyd
