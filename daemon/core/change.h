// One difference between what the source says and what the table says.

#pragma once

#include <string>
#include <variant>
#include <vector>

#include "source/key_row.h"

namespace apikeyd {

struct Change {
    enum class Kind : uint8_t {
        kUpsert,  ///< the key exists and is as `row` says
        kRemove,  ///< the key left the source; id, digest and foreign of `row` name it
    };
    Kind kind;
    KeyRow row;
};

/// The same of what stands beside the keys: a plan, an owner, or a scope by its name. Of one that is removed
/// only the name counts.
struct PolicyChange {
    Change::Kind kind;
    std::variant<PlanRow, OwnerRow, std::string> row;
};

/// `set` with the changes, which keep the order of what they do not remove.
PolicySet with_changes(PolicySet set, const std::vector<PolicyChange>& changes);

}  // namespace apikeyd
