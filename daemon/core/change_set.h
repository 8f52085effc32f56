// Changes waiting to be made, at most one for each key: its latest state.

#pragma once

#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/change.h"

namespace apikeyd {

/// Not thread-safe. Two rows are of one key when id and digest agree.
class ChangeSet {
  public:
    /// Puts `change` in the place of an earlier one of the same key; false when there is none.
    bool replace(const Change& change) {
        const auto known = places_.find(key_of(change));
        if (known == places_.end()) {
            return false;
        }
        changes_[known->second] = change;
        return true;
    }
    /// The same, and at the end when there is none.
    void put(const Change& change) {
        if (!replace(change)) {
            places_.emplace(key_of(change), changes_.size());
            changes_.push_back(change);
        }
    }

    const std::vector<Change>& changes() const { return changes_; }
    bool empty() const { return changes_.empty(); }

  private:
    static std::string key_of(const Change& change) {
        std::string key(reinterpret_cast<const char*>(change.row.digest.data()), change.row.digest.size());
        return key.append(change.row.id);
    }

    std::vector<Change> changes_;
    std::unordered_map<std::string, size_t> places_;
};

}  // namespace apikeyd
