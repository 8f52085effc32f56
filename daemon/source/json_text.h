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

struct JsonMember {
    std::string_view name;   ///< as it is written between its quotes
    std::string_view value;  ///< as it is written
};
/// The members of what is known to be one JSON object, blanks between its parts or not, as they stand there.
std::vector<JsonMember> json_members(std::string_view object);

/// The object (RFC 8259) as a key's row holds it: without blanks, characters as themselves where JSON lets
/// them be and no line is broken, numbers with all their digits; empty for an object without members. Errors
/// stand behind the field's name: what is no JSON object, a name that stands twice in one object, and more
/// than kMetadataLevelsMax or kMetadataBytesMax.
Result<std::string> compact_metadata(std::string_view json);

}  // namespace apikeyd
