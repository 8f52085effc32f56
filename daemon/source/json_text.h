// The little JSON that columns of a key store hold: lists of words, and a key's metadata.

#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace apikeyd {

/// `["a","b"]`, with blanks and escapes wherever JSON has them. Errors stand behind the column's name.
Result<std::vector<std::string>> parse_word_list(std::string_view json);
/// Empty for an empty list.
std::string format_word_list(const std::vector<std::string>& words);

/// True for one JSON object (RFC 8259) in valid UTF-8 without blanks between its parts and without a name
/// that stands twice: what compact_metadata() would leave as it is, or could have. False also where it nests
/// deeper than a few levels.
bool is_compact_object(std::string_view json);

}  // namespace apikeyd
