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

class Statement;

/// What is on record for one key. Counts made since the last flush are still in shared memory only.
struct KeyTotal {
    std::string key_id;
    uint64_t allowed = 0;
    uint64_t denied = 0;
    int64_t last_used_s = 0;  ///< Unix seconds of the last flush that found something new, allowed or denied

    friend bool operator==(const KeyTotal&, const KeyTotal&) = default;
};

/// A stretch of time, in steps of kRollupSteps_s, and whose counts in it are wanted.
struct RollupQuery {
    int64_t step_s = 0;
    int64_t since_s = 0;  ///< both at the start of a step
    int64_t until_s = 0;  ///< and not before `since_s`; the step that begins here is left out
    std::optional<std::string> key_id = std::nullopt;  ///< nullopt: all keys'
};

/// Counts in one step.
struct KeyRollup {
    int64_t start_s = 0;
    std::string key_id;
    uint64_t allowed = 0;
    uint64_t denied = 0;

    friend bool operator==(const KeyRollup&, const KeyRollup&) = default;
};
struct CodeRollup {
    int64_t start_s = 0;
    CodeCount count;

    friend bool operator==(const CodeRollup&, const CodeRollup&) = default;
};

/// How far back counts by some step go.
struct KeptSteps {
    std::optional<int64_t> first_s = std::nullopt;  ///< the first step with a count; nullopt: there is none
    bool lost = false;  ///< more was counted on the days of the stretch than its steps have
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

    /// Calls `callback` with each key's counts in each step that has any, by time and then key_id, out of one
    /// snapshot and without holding them: as for_each_total(). What was counted before the store was of a
    /// version that has them, or longer ago than is kept, is in no step.
    Result<void> for_each_rollup(const RollupQuery& query,
                                 const std::function<void(const KeyRollup&)>& callback);
    /// The same of the host's codes, whatever `query.key_id`.
    Result<void> for_each_code_rollup(const RollupQuery& query,
                                      const std::function<void(const CodeRollup&)>& callback);
    /// Each key's sums over all steps of the stretch, by key_id; `start_s` is `query.since_s`. SQLite sorts
    /// them in a temporary file where they are many. Of one key, also where nothing was counted.
    Result<void> for_each_sum(const RollupQuery& query,
                              const std::function<void(const KeyRollup&)>& callback);

    /// What is kept of the steps of a stretch, out of one snapshot.
    Result<KeptSteps> kept(const RollupQuery& query);
    /// How much of a generation's codes is in the store; nullopt where all of it is, and nothing of it will
    /// be added.
    Result<std::optional<std::vector<CodeCount>>> code_baselines(const GenerationUid& uid);

    /// The host's totals per verdict code, by code; codes never met are left out.
    Result<std::vector<CodeCount>> codes();

  private:
    struct Impl;
    explicit UsageReader(std::unique_ptr<Impl> impl);
    /// Visits the rows that `sql` has in a store of this version or a later one.
    Result<void> walk(int64_t version_min, std::string_view sql, const std::function<void(Statement&)>& bind,
                      const std::function<void(const Statement&)>& visit);
    Result<void> walk_steps(std::string_view sql, const RollupQuery& query,
                            const std::function<void(const Statement&)>& visit);
    std::unique_ptr<Impl> impl_;
};

}  // namespace apikeyd
