// The reading side of the usage store, for the tool. Works beside a running daemon and without one.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "usage/usage_store.h"

namespace apikeyd {

/// What is on record for one key. Counts made since the last flush are still in shared memory only.
struct KeyTotal {
    std::string key_id;
    uint64_t allowed = 0;
    uint64_t denied = 0;
    int64_t last_used_s = 0;  ///< Unix seconds of the last flush that found something new, allowed or denied

    friend bool operator==(const KeyTotal&, const KeyTotal&) = default;
};

/// Reads a store. Changes nothing in it; needs read permission for the file, its -wal and its -shm only. One
/// thread at a time. Each call sees one committed state; two calls may see two.
class UsageReader {
  public:
    /// Errors name the path and what to do, as UsageStore::open()'s do; also when there is no store yet.
    static Result<UsageReader> open(const std::string& path);

    UsageReader(UsageReader&&) noexcept;
    UsageReader& operator=(UsageReader&&) noexcept;
    ~UsageReader();

    /// Calls `callback` for every key with a total, in byte order of key_id, out of one snapshot. The
    /// callback must not use this reader, and should not dally: the daemon's log grows until the walk ends.
    Result<void> for_each_total(const std::function<void(const KeyTotal&)>& callback);

    /// nullopt: nothing was ever counted for it.
    Result<std::optional<KeyTotal>> total(std::string_view key_id);

    /// The host's totals per verdict code, by code; codes never met are left out.
    Result<std::vector<CodeCount>> codes();

  private:
    struct Impl;
    explicit UsageReader(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace apikeyd
