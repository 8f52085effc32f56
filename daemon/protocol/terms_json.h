// A key's terms, plans, owners and scopes on the admin socket: limits and addresses as people write them.
//
//   "terms":{"plan":"free","scopes":["reports.*"],"addresses":["192.0.2.0/24"],
//            "limits":[{"name":"burst","rate":"50/s","burst":"100","shadow":true},{"name":"daily","quota":"5/day"}]}

#pragma once

#include <boost/json/object.hpp>
#include <memory>

#include "base/result.h"
#include "core/change.h"
#include "source/policy_rows.h"

namespace apikeyd {

boost::json::object terms_to_json(const KeyTerms& terms);
/// nullptr for empty ones. The error names the field. Whether plans and scopes are defined is not looked at.
Result<std::shared_ptr<const KeyTerms>> terms_from_json(const boost::json::value& value);

/// {"op":"upsert","plan":{"name":…,"limits":[…]}}, {"op":"upsert","owner":{"name":…,"plan":…}},
/// {"op":"upsert","scope":…}, or the same with "remove".
boost::json::object policy_change_to_json(const PolicyChange& change);
Result<PolicyChange> policy_change_from_json(const boost::json::value& value);

}  // namespace apikeyd
