// Keys of a store a page at a time.

#pragma once

#include <functional>
#include <string_view>

#include "base/result.h"
#include "source/key_row.h"
#include "source/store_name.h"

namespace apikeyd {

/// Calls `visit` with the rows behind the id `after` ("": all) in the order of their ids, until it answers
/// false. As of one moment; there need be no key of that id. A database is read
/// no further than that, in its index of ids, and leaves out rows that break a rule by themselves; of a YAML
/// file all is read.
Result<void> visit_keys(const StoreName& store, std::string_view after,
                        const std::function<bool(const KeyRow& row)>& visit);

}  // namespace apikeyd
