// A key's tags: the list of texts `tags` in its metadata. There every store has them already, servers are
// handed them with the key, and export, import and other programs carry them along; a field of their own
// would have to come into the file's format, the database's schema and the table without saying more.

#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace apikeyd {

/// `metadata`, a compact JSON object or "", with these tags in the place of those that it had; all else stays
/// as it is, to the digit. The error is worded to stand behind the option's name.
Result<std::string> with_tags(std::string_view metadata, const std::vector<std::string>& tags);

/// Whether all of them are among its tags.
bool has_tags(std::string_view metadata, const std::vector<std::string>& tags);

}  // namespace apikeyd
