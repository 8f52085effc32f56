// What an admin action changed, in words: for the audit log. No digest of a key is among them.

#pragma once

#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/change.h"
#include "shm/table_reader.h"

namespace apikeyd {

/// One key, plan, owner or scope. Of its fields only those that differ; one that had or has no value is left
/// out on that side.
struct AuditEntry {
    std::string action;  ///< `key.revoke`: what became of it, whatever was asked for
    std::string id;      ///< the key's, or the name of what is no key
    std::vector<std::pair<std::string, std::string>>
        fields;  ///< `before.state`, `after.state` and the values
};

/// nullptr: it was not there, or is not any more; one of the two is.
AuditEntry key_entry(const KeyRow* before, const KeyRow* after);

/// One for each of a request's changes, which are about to be made in `live` (nullptr: there is none yet).
/// Where a request brings one key and then changes another, that is the first one's predecessor:
/// `key.rotate`.
std::vector<AuditEntry> entries_of(const std::vector<Change>& changes, const apikey::shm::TableView* live);
/// The same, where `before` is in force.
std::vector<AuditEntry> entries_of(const std::vector<PolicyChange>& changes, const PolicySet& before);

/// Lines of each kind (added, changed and removed keys, what is no key) that one load may bring, so that a
/// large one does not fill a disk.
inline constexpr size_t kAuditedOfKindMax = 250;

/// What a load finds different: the first of each kind, and how many more.
class LoadAudit {
  public:
    /// Nothing is kept before. `before` is in force. `complete` is false where it was read from a table: that
    /// forgets owners without a plan, and remembers plans and scopes that are gone.
    void begin(std::shared_ptr<const PolicySet> before, bool complete) {
        before_ = std::move(before);
        complete_ = complete;
    }
    void add_key(const KeyRow* before, const KeyRow* after);
    void add_policies(const PolicySet& after);
    /// Nothing becomes of this key.
    void forget(const std::string& id) {
        std::erase_if(entries_, [&](const AuditEntry& entry) { return entry.id == id; });
    }

    /// Of the others becomes nothing.
    void keep_only(const std::vector<Change>& changes);

    const std::vector<AuditEntry>& entries() const { return entries_; }
    uint64_t left_out() const { return left_out_; }

  private:
    enum Kind : size_t { kAdded, kUpdated, kRemoved, kNoKey, kKinds };
    bool has_room(Kind kind);
    template <typename Row>
    void add_named(const std::vector<Row>& before, const std::vector<Row>& after);

    std::shared_ptr<const PolicySet> before_;  // nullptr: not begun
    bool complete_ = true;
    std::array<size_t, kKinds> of_kind_{};
    std::vector<AuditEntry> entries_;
    uint64_t left_out_ = 0;
};

}  // namespace apikeyd
