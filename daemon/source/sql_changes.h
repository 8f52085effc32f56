// What changed in a key store, from the rows of its log of changes. Private to the key store.

#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"
#include "source/source.h"
#include "source/sql_key_store.h"

namespace apikeyd {

/// What the log says since a moment, a thing at a time.
struct ChangeLog {
    struct Before {
        bool was = false;  ///< at that moment, as its first row has it
        std::optional<std::string> old = std::nullopt;
        /// The digests that a key has had since, and with each whether it was foreign. Not the first alone:
        /// who reads may have been told of a later one.
        std::set<std::pair<std::string, bool>> had = {};
    };
    using Things = std::map<std::string, Before, std::less<>>;

    /// The next row of `changes`, whose columns from `first` on are kind, name, came, sha256, "foreign", old.
    /// Of one thing the older comes first.
    void note(const SqlStatement& row, int first);

    [[nodiscard]] bool empty() const {
        return keys.empty() && plans.empty() && owners.empty() && scopes.empty();
    }

    Things keys, plans, owners, scopes;
};

/// As Source::changes_since(): of what the log tells, in a transaction that is open, and with `now` for its
/// fingerprint.
Result<std::optional<SourceChanges>> read_changes(SqlKeyStore& store, const ChangeLog& log,
                                                  const Fingerprint& now);

}  // namespace apikeyd
