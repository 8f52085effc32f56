// The usage store's rows of what was taken of quotas. Private to daemon/usage.

#pragma once

#include <functional>
#include <span>

#include "sqlite/database.h"
#include "usage/usage_store.h"

namespace apikeyd {

/// Prepared statements; what Statement's header says of a Database holds.
class QuotaRows {
  public:
    QuotaRows() = default;
    static Result<QuotaRows> prepare(const Database& database);

    /// Notes what was taken, inside the caller's transaction. SQLITE_OK or an extended error code.
    int put(std::span<const QuotaCount> counts, int64_t now_s);
    /// Calls `visit` with each row whose period is not over. SQLITE_OK or an extended error code.
    int for_each(int64_t now_s, const std::function<void(const QuotaCount&)>& visit);
    /// Deletes the others. SQLITE_OK or an extended error code.
    int forget_past(int64_t now_s);

  private:
    Statement put_;
    Statement all_;
    Statement forget_past_;
};

}  // namespace apikeyd
