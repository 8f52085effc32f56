// All that a key store says. Private to the key store.

#pragma once

#include <functional>
#include <string>
#include <tl/expected.hpp>

#include "base/result.h"
#include "source/source.h"
#include "source/sql_key_store.h"

namespace apikeyd {

/// A row, or what rule it breaks.
struct ScannedRow {
    tl::expected<KeyRow, std::string> row;
    std::string name = {};  ///< of a row that breaks one; see row_name()
};

/// Of these columns, judged by the store's policies.
ScannedRow scan_row(SqlKeyStore& store, const KeyColumns& columns);

/// Calls what it is given with every row of `keys`.
using ScanKeys = std::function<Result<void>(const std::function<void(ScannedRow&)>& visit)>;

struct LoadedSet {
    SourceContent content;
    /// Rows were left out for want of room: which ones depends on all others.
    bool overfull = false;
};

/// As Source::load(), in a transaction that is open; `scan` is called once, when all beside the keys is
/// known.
Result<LoadedSet> load_key_set(SqlKeyStore& store, const Fingerprint& fingerprint, const ScanKeys& scan,
                               const RowSink& sink);

}  // namespace apikeyd
