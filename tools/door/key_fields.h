// What a body says of a key. The names are those that a key is shown with.

#pragma once

#include "source/key_row.h"
#include "tools/door/json_body.h"

namespace apikeyd {

/// Sets in `row` what stands in the body, and clears what is null there: owner, name, expires, metadata,
/// tags, plan, scopes, addresses, limits. Lists take the place of those that the row had. Faults are the
/// body's.
void read_key_fields(JsonBody& body, KeyRow& row, int64_t now_s);

}  // namespace apikeyd
