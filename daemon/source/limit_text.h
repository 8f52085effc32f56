// Limits as people write them: `100/s`, `1000000/month`.

#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "source/policy_rows.h"

namespace apikeyd {

/// `10/s`, `600/min`, `1000/h`, `5000/d`: sets form, requests and rate_seconds, and a burst of as many
/// requests. The error says what is wrong and what is wanted.
Result<void> parse_rate(std::string_view text, LimitRow& limit);
/// `1000/hour`, `1000/day`, `1000000/month`.
Result<void> parse_quota(std::string_view text, LimitRow& limit);
/// One of both, by its unit.
Result<void> parse_figure(std::string_view text, LimitRow& limit);
/// Sets the burst of a rate. Zero is none: no request could ever pass.
Result<void> parse_burst(std::string_view text, LimitRow& limit);
/// Whether a meter can hold this limit: figures that fit on their own may not fit together.
Result<void> check_limit(const LimitRow& limit);

/// As parse_figure() reads it; without the burst.
std::string format_limit(const LimitRow& limit);

/// `192.0.2.0/24`, `2001:db8::/32`, or one address without a length. Bits behind the length must be 0.
Result<AddressRangeRow> parse_address_range(std::string_view text);
std::string format_address_range(const AddressRangeRow& range);

}  // namespace apikeyd
