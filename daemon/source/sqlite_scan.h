// All rows of `keys`, read by two threads where there are many: most of a first load is SQLite taking rows
// apart. Private to the key store.

#pragma once

#include <functional>
#include <string>

#include "base/result.h"
#include "source/sql_load.h"
#include "source/sqlite_key_store.h"

namespace apikeyd {

/// Calls `visit` with every row in the order of rowids, by the calling thread, and lets pass what it throws.
/// In the transaction that `store` is in. The other thread has a connection of its own to `path`, which
/// is used when it sees the same `now`.
Result<void> scan_keys(SqliteKeyStore& store, const std::string& path, const Position& now,
                       const std::function<void(ScannedRow&)>& visit);

}  // namespace apikeyd
