// The usage store's rows of counts by time: per key and per code, by minute, hour and day. Private to
// daemon/usage.

#pragma once

#include <cstdint>
#include <optional>

#include "sqlite/database.h"
#include "usage/usage_store.h"

namespace apikeyd {

/// Prepared statements; what Statement's header says of a Database holds.
class RollupRows {
  public:
    RollupRows() = default;
    static Result<RollupRows> prepare(const Database& database);

    /// Adds to the minute, the hour and the day that `now_s` lies in, inside the caller's transaction (keys'
    /// counts come there from RecentRows). SQLITE_OK or an extended error code, both of them.
    int add_code(uint8_t code, int64_t total, int64_t now_s);
    /// Deletes the oldest minute, hour and day, where they are older than is kept: one of each a flush, so
    /// that no flush is long, and as many as a flush can begin. forgotten_hour_s() tells which hour it was,
    /// where it was one: nothing is left of it nor of earlier ones.
    int forget_oldest(const Retention& retention, int64_t now_s);
    [[nodiscard]] std::optional<int64_t> forgotten_hour_s() const { return forgotten_hour_s_; }

  private:
    Statement add_code_;
    Statement oldest_;
    Statement forget_keys_;
    Statement forget_codes_;
    std::optional<int64_t> forgotten_hour_s_;
};

}  // namespace apikeyd
