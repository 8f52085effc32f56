// The keys of the scenario, and what the operator does to them: a list of edits, each of which leaves the
// source of record in another state. Whoever makes the same edits has the same set.

#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "core/change.h"

namespace apikey::crash {

enum class Edit : uint8_t {
    kFirst,  ///< the set as it stands at the beginning; changes nothing in it
    kAdd,    ///< a key with an environment, an owner and metadata that nobody had
    kUpdate,
    kDisable,
    kEnable,
    kRevoke,
    kRemove,
    kAddForeign,
    kRemoveForeign,
    kReturnForeign,
    kFill,  ///< more details than the table has room for
    kRevokeInBuild,
    kAddInBuild,
    kUpdateInBuild,
    kDisableSuperseded,
    kRevokeSuperseded,
    kRemoveSuperseded,
    kRaiseLimits,  ///< a plan and an owner's, for all keys at once
    kFillAgain,
    kRevokeThird,
    kLast,  ///< made by whoever comes after
};
/// Edits as characters of a message, from here on.
inline constexpr char kFirstEdit = 'A';

struct Key {
    std::string text;
    apikeyd::KeyRow row;
    bool in_source = true;
    bool steady = false;  ///< no edit touches it

    /// By a plan of its own, or of its owner's.
    bool may_be_limited() const {
        return row.terms != nullptr || row.owner == "owner-1" || row.owner == "owner-2";
    }
    bool valid() const { return in_source && row.state == apikeyd::KeyState::kActive; }
};

class KeySet {
  public:
    KeySet();

    const std::vector<Key>& keys() const { return keys_; }
    /// Makes the next edit, kFirst being the first; answers which keys it touched.
    std::vector<size_t> make(Edit edit);
    /// What the edit's keys are now, as the tool would send it.
    std::vector<apikeyd::Change> changes(const std::vector<size_t>& touched) const;
    /// The source's text.
    std::string text() const;

  private:
    void add_native(bool in_source, bool steady = false);
    void add_foreign(bool in_source, bool steady = false);

    std::vector<Key> keys_;
    bool raised_ = false;
};

}  // namespace apikey::crash
