// Where in its text each key of a key set stands: what an editor needs to change one thing and touch nothing
// else.
//
// yaml-cpp marks where a node begins, not where it ends. The ends are found here, from the text: a quoted
// scalar by its quote, a block scalar by its indentation, a plain one by its value, a flow collection by its
// bracket.

#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "source/key_set_visitor.h"
#include "source/yaml_source.h"

namespace apikeyd {

/// Byte offsets into the text, end exclusive.
struct TextRange {
    size_t begin = 0;
    size_t end = 0;
};

struct FieldSpan {
    KeyField field = KeyField::kId;
    TextRange name;
    TextRange value;  ///< empty and right behind the colon when there is no value
};

struct RowSpan {
    TextRange map;  ///< from the first name, or `{`, to the end of the last value, or behind `}`
    bool flow = false;
    std::vector<FieldSpan> fields;  ///< only when asked for
};

struct KeySetSpans {
    TextRange keys;  ///< the list; empty and behind the colon when `keys:` has no value
    TextRange keys_name;
    size_t keys_colon_end = 0;
    bool flow = false;       ///< the list is `[…]`
    bool root_flow = false;  ///< the whole set is `{…}`
    std::vector<RowSpan> rows;
};

struct LocatedKeySet {
    std::vector<KeyRow> rows;
    KeySetSpans spans;  ///< rows in the same order
    PolicySet policies;
};

/// Parses `text` and locates its keys, and their fields if `fields`. Errors as parse_key_set, joined.
Result<LocatedKeySet> locate_key_set(std::string_view text, const std::string& file, bool fields,
                                     const YamlLimits& limits = {});

/// First offset at or behind `at` that is neither white space nor in a comment.
size_t skip_blanks_and_comments(std::string_view text, size_t at);

/// Offset behind the newline of the line that holds `at`, or the end of the text.
size_t line_end(std::string_view text, size_t at);

/// Offset of the first byte of the line that holds `at`.
size_t line_begin(std::string_view text, size_t at);

}  // namespace apikeyd
