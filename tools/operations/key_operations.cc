#include "tools/operations/key_operations.h"

#include <algorithm>
#include <vector>

#include "tools/operations/key_terms.h"

namespace apikeyd {

namespace {

/// Why this key can have no successor.
Outcome check_rotatable(const KeyRow& old, int64_t now_s) {
    if (old.state == KeyState::kRevoked || (old.expires_s && *old.expires_s <= now_s)) {
        return failed(Exit::kNo, Cause::kConflict,
                      old.id + (old.state == KeyState::kRevoked ? ": is revoked" : ": has expired") +
                          ", so nothing of it is left to hand on (issue another key)");
    }
    if (!environment_fits(old.environment)) {
        return failed(Exit::kNo, Cause::kConflict,
                      old.id + ": its environment cannot stand in a key that is made here; " +
                          kEnvironmentWanted + " (issue another key)");
    }
    return {};
}

/// The old key's row as it is from now on: revoked without a grace, else it ends at the earlier of its own
/// expiry and the grace's end.
KeyRow ending(KeyRow old, int64_t grace_s, int64_t now_s) {
    if (grace_s == 0) {
        old.state = KeyState::kRevoked;
    } else {
        old.expires_s = std::min(old.expires_s.value_or(kExpiresMax_s), now_s + grace_s);
    }
    return old;
}

using Changes = tl::expected<std::vector<Change>, Failure>;

/// Carries out an edit of one row.
Outcome change_key(const Context& context, const std::string& id, Until until, KeyRow* after,
                   const std::function<Outcome(KeySet& set, KeyRow& row)>& edit) {
    const KeyEdit edit_set = [&](KeySet& set) -> Changes {
        auto row = find_key(context, set, id);
        if (!row) {
            return tl::unexpected(row.error());
        }
        if (Outcome edited = edit(set, *row); !edited) {
            return tl::unexpected(edited.error());
        }
        if (after != nullptr) {
            *after = *row;
        }
        return std::vector<Change>{{Change::Kind::kUpsert, *row}};
    };
    return change_keys(context, edit_set, false, until);
}

}  // namespace

Outcome issue_key(const Context& context, const std::string& environment, KeyRow& row, NewKey& key,
                  const ShowKey& show) {
    if (Outcome drawn = key.draw(environment, row); !drawn) {
        return drawn;
    }
    const KeyEdit edit = [&](KeySet& set) -> Changes {
        if (Outcome defined = check_terms(terms_of(row), set.policies()); !defined) {
            return tl::unexpected(defined.error());
        }
        if (const Result<void> added = set.upsert(row); !added) {
            return not_wanted(Exit::kUsage, added.error());
        }
        // Shown before it is recorded: a key that could not be shown must not stand in the set.
        if (Outcome shown = show(key, row); !shown) {
            return tl::unexpected(shown.error());
        }
        return std::vector<Change>{{Change::Kind::kUpsert, row}};
    };
    return change_keys(context, edit, true);
}

Outcome rotate_key(const Context& context, const Rotation& rotation, NewKey& key, const ShowKey& show) {
    const KeyEdit edit = [&](KeySet& set) -> Changes {
        const int64_t now = now_s();
        const auto old = find_key(context, set, rotation.id);
        if (!old) {
            return tl::unexpected(old.error());
        }
        if (Outcome allowed = rotation.check ? rotation.check(*old) : Outcome(); !allowed) {
            return tl::unexpected(allowed.error());
        }
        if (Outcome rotatable = check_rotatable(*old, now); !rotatable) {
            return tl::unexpected(rotatable.error());
        }
        // State, owner, name, metadata and expiry are handed on; a disabled key's successor is disabled.
        KeyRow successor = *old;
        successor.foreign = false;
        successor.created_s = now;
        if (Outcome drawn = key.draw(old->environment, successor); !drawn) {
            return tl::unexpected(drawn.error());
        }
        // The new key first: the daemon makes changes in this order.
        std::vector<Change> changes = {{Change::Kind::kUpsert, successor},
                                       {Change::Kind::kUpsert, ending(*old, rotation.grace_s, now)}};
        for (const Change& change : changes) {
            if (const Result<void> changed = set.upsert(change.row); !changed) {
                return failed(Exit::kUnreachable, changed.error());
            }
        }
        // Shown, whole, before anything of the old key ends.
        if (Outcome shown = show(key, successor); !shown) {
            return tl::unexpected(shown.error());
        }
        return changes;
    };
    return change_keys(context, edit);
}

Outcome set_key_state(const Context& context, const StateChange& change, KeyRow* after) {
    return change_key(context, change.id, change.until, after, [&](KeySet& set, KeyRow& row) -> Outcome {
        if (Outcome allowed = change.check ? change.check(row) : Outcome(); !allowed) {
            return allowed;
        }
        if (row.state == KeyState::kRevoked && change.state != KeyState::kRevoked) {
            return failed(Exit::kNo, Cause::kConflict,
                          row.id + ": is revoked, and that is for ever (issue another key)");
        }
        row.state = change.state;
        const Result<void> changed = set.upsert(row);
        return changed ? Outcome() : failed(Exit::kUnreachable, changed.error());
    });
}

Outcome update_key(const Context& context, const std::string& id, const EditRow& edit, KeyRow* after) {
    return change_key(context, id, Until::kHost, after, [&](KeySet& set, KeyRow& row) -> Outcome {
        if (Outcome edited = edit(row); !edited) {
            return edited;
        }
        if (Outcome defined = check_terms(terms_of(row), set.policies()); !defined) {
            return defined;
        }
        const Result<void> changed = set.upsert(row);
        return changed ? Outcome() : not_wanted(Exit::kUsage, changed.error());
    });
}

Outcome delete_key(const Context& context, const std::string& id) {
    const KeyEdit edit = [&](KeySet& set) -> Changes {
        const auto row = find_key(context, set, id);
        if (!row) {
            return tl::unexpected(row.error());
        }
        if (const Result<bool> erased = set.erase(id); !erased) {
            return failed(Exit::kUnreachable, erased.error());
        }
        return std::vector<Change>{{Change::Kind::kRemove, *row}};
    };
    return change_keys(context, edit);
}

}  // namespace apikeyd
