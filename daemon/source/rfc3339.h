// Times as key set files write them: RFC 3339.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace apikeyd {

/// Unix seconds of an RFC 3339 date-time (`2027-12-01T00:00:00Z`, `2027-12-01T01:00:00+01:00`), section 5.6:
/// T and Z in either case, a fraction of a second cut off; a blank instead of T is not taken. nullopt when it
/// is none, names a day that does not exist, or a leap second (they have no Unix time).
std::optional<int64_t> parse_rfc3339(std::string_view text);

/// `2027-12-01T00:00:00Z` for 0 <= unix_s < 253402300800 (year 10000).
std::string format_rfc3339(int64_t unix_s);

}  // namespace apikeyd
