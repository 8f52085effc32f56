// One flush into the usage store, inside its transaction. Private to daemon/usage.

#pragma once

#include <cstdint>

#include "sqlite/database.h"
#include "usage/recent_rows.h"
#include "usage/rollup_rows.h"
#include "usage/unsent_rows.h"
#include "usage/usage_store.h"

namespace apikeyd {

/// Prepared statements of flushes; what Statement's header says of a Database holds.
struct FlushStatements {
    static Result<FlushStatements> prepare(const Database& database);

    RecentRows recent;
    RollupRows rollups;
    UnsentRows unsent;
    Statement select_code_baseline;
    Statement raise_code_baseline;
    Statement add_code;
    Statement count_quarantined;
    Statement insert_quarantined;
};

/// Every function answers SQLITE_OK or the extended error code that ends the flush.
class FlushRun {
  public:
    FlushRun(const Database& database, FlushStatements& statements, int64_t now_s)
        : database_(database), statements_(statements), now_s_(now_s) {}

    /// What is new of keys and codes.
    int add(const GenerationCounts& counts);

    [[nodiscard]] const FlushSummary& summary() const { return summary_; }

  private:
    int add_key(const GenerationUid& uid, const KeyCount& key);
    int add_code(const GenerationUid& uid, const CodeCount& code);
    int quarantine(const GenerationUid& uid, const KeyDigest& digest, uint64_t allowed, uint64_t denied);

    const Database& database_;
    FlushStatements& statements_;
    int64_t now_s_;
    int64_t quarantined_rows_ = -1;  // counted when first needed
    FlushSummary summary_;
};

}  // namespace apikeyd
