// Times on the command line.

#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/result.h"

namespace apikeyd {

/// Seconds of `90d`, `24h`, `30m`, `15s` or `0`; nullopt for anything else, also above kDurationMax_s.
std::optional<int64_t> parse_duration_s(std::string_view text);
inline constexpr int64_t kDurationMax_s = int64_t{100} * 366 * 86400;

/// A moment after `now_s`: RFC 3339, or a duration from now. In Unix seconds; errors are worded to stand
/// behind the option's name.
Result<int64_t> parse_expiry(std::string_view text, int64_t now_s);

}  // namespace apikeyd
