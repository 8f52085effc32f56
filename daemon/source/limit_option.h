// Limits as one word, on the command line and in a key store: `burst=100/s,burst=200` and
// `monthly=1000000/month,shadow`.

#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "source/policy_rows.h"

namespace apikeyd {

/// `NAME=RATE[,burst=N][,shadow]` or `NAME=QUOTA[,shadow]`; rates and quotas as in key sets (limit_text.h).
/// Errors are worded to stand behind the option's name.
Result<LimitRow> parse_limit_option(std::string_view text);

/// The limit as parse_limit_option() reads it; a burst of as many requests as the rate's is left out.
std::string format_limit_option(const LimitRow& limit);

}  // namespace apikeyd
