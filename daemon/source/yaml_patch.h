// Changes of parts of a YAML text that leave all else as it is: elements of a list, fields of a mapping.
//
// They go by where things stand (yaml_locate.h) and know nothing of what YAML makes of the result: the caller
// parses it. A form that cannot be changed so is told, and nothing is changed.

#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "source/yaml_locate.h"

namespace apikeyd {

/// One replacement, by offsets of the text before all of them.
struct TextChange {
    TextRange range;
    std::string text;
};

/// `text` with the changes, in any order. One that overlaps another is left out.
std::string with_changes(std::string_view text, std::vector<TextChange> changes);

/// What a list is to have.
struct ListElement {
    std::string name;      ///< what it is known by; unique
    std::string text;      ///< right in flow form; of a new element of a list in block form whole lines may
                           ///< follow, indented as after a dash at block_indent()
    bool changed = false;  ///< is there, and is to be replaced
};

/// The column of a block list's dashes.
size_t block_indent(std::string_view text, const YamlSpan& list);

/// Changes that make `list`, which is not empty, have `wanted` in this order: elements that are not wanted go
/// with their lines, new ones come behind all others, and so does what is to stand elsewhere. `names` are
/// those of its elements, in their order. nullopt for a form that defies this.
std::optional<std::vector<TextChange>> list_changes(std::string_view text, const YamlSpan& list,
                                                    const std::vector<std::string>& names,
                                                    const std::vector<ListElement>& wanted,
                                                    std::string_view newline);

/// The value of a mapping's field; nullptr when it has none of this name.
const YamlSpan* field_of(const YamlSpan& map, std::string_view name);

/// Gives a mapping's field the value `text`, which is right in flow form. One that is missing is put behind
/// the field `after`, which is there.
TextChange set_field(std::string_view text, const YamlSpan& map, std::string_view name,
                     const std::string& value, std::string_view after, std::string_view newline);

}  // namespace apikeyd
