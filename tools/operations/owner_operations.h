// What is done to owners, and what is shown of them and of plans, by the command line and by the door alike.

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tools/context.h"
#include "tools/outcome.h"
#include "tools/output.h"

namespace apikeyd {

/// name, plan, keys: how many have it; stable.
tl::expected<std::vector<Record>, Failure> owner_records(const Context& context);
/// Cause::kMissing where there is none.
tl::expected<Record, Failure> owner_record(const Context& context, const std::string& name);

// Durable, and in force; outcomes as change_policies() has them. Where the plan is at fault, they name it.
/// Cause::kConflict for one that is there. An empty `plan`: none.
Outcome create_owner(const Context& context, const std::string& name, const std::string& plan);
Outcome update_owner(const Context& context, const std::string& name, const std::string& plan);
/// Cause::kConflict for one that has keys which are not revoked.
Outcome delete_owner(const Context& context, const std::string& name);

/// name, limits, keys, owners: how many have it; stable.
tl::expected<std::vector<Record>, Failure> plan_records(const Context& context);
tl::expected<Record, Failure> plan_record(const Context& context, const std::string& name);
/// Of a plan that is not there.
Failure no_plan(const Context& context, const std::string& name);

}  // namespace apikeyd
