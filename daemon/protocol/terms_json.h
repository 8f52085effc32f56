// A key's terms on the admin socket: limits and addresses as people write them.
//
//   "terms":{"plan":"free","scopes":["reports.*"],"addresses":["192.0.2.0/24"],
//            "limits":[{"name":"burst","rate":"50/s","burst":"100","shadow":true},{"name":"daily","quota":"5/day"}]}

#pragma once

#include <boost/json/object.hpp>
#include <memory>

#include "base/result.h"
#include "source/policy_rows.h"

namespace apikeyd {

boost::json::object terms_to_json(const KeyTerms& terms);
/// nullptr for empty ones. The error names the field. Whether plans and scopes are defined is not looked at.
Result<std::shared_ptr<const KeyTerms>> terms_from_json(const boost::json::value& value);

}  // namespace apikeyd
