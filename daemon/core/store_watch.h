// Tells when a source of record may say something else than when it was read last.

#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "runtime/file_watch.h"
#include "source/config.h"

namespace apikeyd {

/// Belongs to the loop's thread. Tells too often rather than too seldom.
class StoreWatch {
  public:
    virtual ~StoreWatch() = default;

    /// As FileWatch has it: `changed` is not called for what is there at creation, and must not destroy the
    /// watch.
    static Result<std::unique_ptr<StoreWatch>> create(Loop& loop, const StoreName& store,
                                                      const ReloadConfig& config,
                                                      std::function<void()> changed);

    /// Empty, or why changes are found by polling only. May change after any event.
    [[nodiscard]] virtual std::string problem() const = 0;
};

}  // namespace apikeyd
