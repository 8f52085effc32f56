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
#include "source/yaml_tree.h"

namespace apikeyd {

/// Byte offsets into the text, end exclusive.
struct TextRange {
    size_t begin = 0;
    size_t end = 0;
};

/// A value, and what is in it: for those who change a part of it. A mapping's children are name, value, name,
/// value.
struct YamlSpan {
    YamlNode::Kind kind = YamlNode::Kind::kScalar;
    bool flow = false;
    TextRange range;   ///< of a list or mapping in block form: from its first dash or name
    std::string text;  ///< of a scalar: its value
    std::vector<YamlSpan> children;
};

/// A name and its value. The value's range is empty and right behind the colon when there is none.
struct FieldSpan {
    KeyField field = KeyField::kId;
    TextRange name;
    TextRange value;
    YamlSpan tree;  ///< of a list or mapping
};

/// The same of what stands in the root beside the keys.
struct SectionSpan {
    std::string root;  ///< version, scopes, plans or owners
    TextRange name;
    size_t colon_end = 0;
    TextRange value;
    YamlSpan tree;
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
    size_t root_begin = 0;
    std::vector<RowSpan> rows;
    std::vector<SectionSpan> sections;  ///< only when asked for, in the order of the text
};

struct LocatedKeySet {
    std::vector<KeyRow> rows;
    KeySetSpans spans;  ///< rows in the same order
    PolicySet policies;
};

/// What is located besides the keys.
enum class Locate : uint8_t { kKeys, kFields, kSections };

/// Parses `text` and locates its keys, with their fields or what stands beside them. Errors as parse_key_set,
/// joined.
Result<LocatedKeySet> locate_key_set(std::string_view text, const std::string& file, Locate what,
                                     const YamlLimits& limits = {});

/// First offset at or behind `at` that is neither white space nor in a comment.
size_t skip_blanks_and_comments(std::string_view text, size_t at);

/// Offset behind the newline of the line that holds `at`, or the end of the text.
size_t line_end(std::string_view text, size_t at);

/// Offset of the first byte of the line that holds `at`.
size_t line_begin(std::string_view text, size_t at);

}  // namespace apikeyd
