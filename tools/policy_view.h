// What people are shown of scopes, addresses, plans and their limits.

#pragma once

#include <vector>

#include "source/policy_rows.h"
#include "tools/output.h"

namespace apikeyd {

/// As `--limit` takes them; in JSON a list of name, rate, burst, quota, shadow; stable.
Value limits_value(const std::vector<LimitRow>& limits);

/// scopes, addresses, limits: of a key's terms all but the plan, which short_record() has; stable.
void append_terms(Record& record, const KeyTerms& terms);

}  // namespace apikeyd
