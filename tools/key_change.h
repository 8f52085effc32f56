// Changing keys, plans, owners and scopes: durable in the store first, then in force through the daemon, in
// the order of the changes.

#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/change.h"
#include "source/store.h"
#include "tools/context.h"
#include "tools/outcome.h"

namespace apikeyd {

/// More changes are not told one by one: the daemon reads them itself.
inline constexpr size_t kToldMax = 1000;

/// Where a change is to be in force before it is done: on this host, or on every host of the fleet that tells
/// of itself.
enum class Until : uint8_t { kHost, kFleet };

/// Edits the set and tells which changes it means: also those that are none, since a change that changes
/// nothing is carried out again everywhere. Called once, while no other operator changes the set; a failure
/// leaves everything as it was.
using KeyEdit = std::function<tl::expected<std::vector<Change>, Failure>(KeySet& set)>;

/// The same of what stands beside the keys.
using PolicyEdit = std::function<tl::expected<PolicyChange, Failure>(KeySet& set)>;

/// Carries out one change. Success: durable, and in force in every process of the host. Exit::kUnreachable
/// with 'recorded, not in force': durable only, or not in force on the hosts that it names. `create`: a store
/// that does not exist is made.
Outcome change_keys(const Context& context, const KeyEdit& edit, bool create = false,
                    Until until = Until::kHost);
Outcome change_policies(const Context& context, const PolicyEdit& edit, bool create = false);

/// Of a store that need not be the context's: not what a daemon is to be told, but that it is to read it all.
using StoreEdit = std::function<Outcome(KeySet& set)>;

/// Carries out one change of it; a store that does not exist is made. In force when this succeeds, if the
/// daemon serves that store.
Outcome change_store(const Context& context, const StoreName& store, const StoreEdit& edit);

/// Has the daemon read a store that was changed otherwise, and waits until that is in force; `force` as
/// `reload` has it.
Outcome reload_store(const Context& context, const StoreName& store, bool force);

/// The row with this id, or a failure that names the store, and says so when the daemon goes by another set.
tl::expected<KeyRow, Failure> find_key(const Context& context, KeySet& set, const std::string& id);

}  // namespace apikeyd
