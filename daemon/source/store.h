// A source of record as its operators change it.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "source/source.h"

namespace apikeyd {

/// A key set in the course of one change: sees what was changed before in it. On an error nothing of that
/// call has changed. Used by one thread.
class KeySet {
  public:
    virtual ~KeySet() = default;

    /// The row with this id; nullopt when there is none.
    virtual Result<std::optional<KeyRow>> key(std::string_view id) = 0;
    /// Replaces the key with this id, or adds it. Refuses what the set may not hold: a digest that another
    /// key has, a name that is defined nowhere, a field out of its bounds.
    virtual Result<void> upsert(const KeyRow& row) = 0;
    /// False when there is no such key.
    virtual Result<bool> erase(std::string_view id) = 0;
    virtual Result<bool> has_keys() = 0;

    /// What the set says beside its keys. Valid until the next change.
    [[nodiscard]] virtual const PolicySet& policies() const = 0;
    // Refused is what would leave a key or an owner with something undefined: the error names how many and
    // the first.
    virtual Result<void> upsert_plan(const PlanRow& plan) = 0;
    virtual Result<void> upsert_owner(const OwnerRow& owner) = 0;
    virtual Result<void> add_scope(const std::string& scope) = 0;
    /// All of it, of which nothing is there, by the calls above or what comes to the same. What came before
    /// an error stays.
    virtual Result<void> add_policies(const PolicySet& more);
    // Of what is there. An owner goes when all its keys are revoked.
    virtual Result<void> erase_plan(const std::string& name) = 0;
    virtual Result<void> erase_owner(const std::string& name) = 0;
    virtual Result<void> erase_scope(const std::string& name) = 0;
};

/// What a change did. The daemon goes by these when it is told of it.
struct Rewrite {
    Fingerprint before{};
    Fingerprint after{};
    bool written = false;  ///< false: the edit changed nothing, and nothing was written
};

struct ChangeOptions {
    uint32_t lock_wait_ms_max = 10'000;
    /// Where there is no store, make one, for its maker alone (mode 0600). Else that is an error.
    bool create = false;
    /// Called once the change is durable, or when the edit changed nothing, while the lock is still held:
    /// what follows from two changes then happens in the order of the changes. Not called on an error.
    std::function<void(const Rewrite&)> then_locked;
};

/// Used by one thread at a time; other processes may use the same store.
class Store {
  public:
    using Edit = std::function<Result<void>(KeySet& set)>;

    virtual ~Store() = default;

    /// Carries out `edit`, which is called once, whole and durably, or leaves the store as it was. Waits for
    /// whoever is changing it for lock_wait_ms_max at most.
    virtual Result<Rewrite> change(const Edit& edit, const ChangeOptions& options) = 0;

    /// One row, by itself.
    virtual Result<std::optional<KeyRow>> find(std::string_view id) = 0;
};

/// The one of this name. Opens nothing.
std::unique_ptr<Store> make_store(const StoreName& name);

}  // namespace apikeyd
