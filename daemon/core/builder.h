// Building a new generation beside the live one. Runs on a worker; reads the live table as any reader does.

#pragma once

#include <memory>
#include <span>

#include "base/result.h"
#include "core/change_set.h"
#include "core/quota_words.h"
#include "shm/generation.h"

namespace apikeyd {

/// What to build. Plain data, so that it can cross to the worker.
struct BuildOrder {
    int directory_fd;
    uint32_t generation;
    uint32_t predecessor;
    gid_t clients_group;
    uint64_t capacity_keys;  ///< room for at least so many keys
    std::shared_ptr<const PolicySet> policies = std::make_shared<const PolicySet>();
    /// For a generation whose meters come from no predecessor; nullptr: nothing was taken.
    std::shared_ptr<const StoredQuotas> quotas = nullptr;
    double growth = 1;  ///< so many times the room that the keys need now
};

/// Every live key of `from` (nullptr: none), then the changes of each set, in files under temporary names.
/// `from` may change meanwhile; the caller logs those changes and replays them. Dead slots and unused details
/// stay behind. Holds some ten bytes for each key, and forty for each change where there is a live table.
Result<std::unique_ptr<apikey::shm::Generation>> build_generation(const BuildOrder& order,
                                                                  const apikey::shm::TableView* from,
                                                                  std::span<const ChangeSet* const> changes);

}  // namespace apikeyd
