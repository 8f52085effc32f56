// The hosts that serve a key set from one PostgreSQL: what they tell of themselves, and who has what.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace apikeyd {

/// What the server knows of one, by the server's clock alone.
struct FleetHost {
    std::string name;
    std::string version;
    uint64_t told_ms_ago = 0;
    bool silent = false;
    /// Rows of the log of changes that are not in force there; nullopt when it told of another server, or of
    /// another copy of the store, last.
    std::optional<uint64_t> behind = std::nullopt;
};

/// Asks the server, through a connection of its own. One thread.
class Fleet {
  public:
    /// `place`: see postgres/place.h.
    static Result<std::unique_ptr<Fleet>> open(const std::string& place);
    ~Fleet();

    /// The newest row of the log. What is committed by now has no later one.
    Result<int64_t> newest();
    /// In the order of their names; `behind` counts rows until `newest`.
    Result<std::vector<FleetHost>> hosts(int64_t newest = INT64_MAX);
    /// False where there is none of this name.
    Result<bool> forget(const std::string& name);

  private:
    struct Impl;
    explicit Fleet(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace apikeyd
