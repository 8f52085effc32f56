// One key as YAML text: written anew, or changed in place.

#pragma once

#include <string>
#include <string_view>

#include "source/key_row.h"
#include "source/yaml_patch.h"

namespace apikeyd {

/// `text` as a YAML scalar that every YAML parser, 1.1 or 1.2, reads as this string: plain where that is
/// safe, else double-quoted with escapes.
std::string yaml_string(std::string_view text);

/// `{name: burst, rate: 100/s, burst: 200}`
std::string flow_limit(const LimitRow& limit);
/// A list of limits as it is to be, for list_changes().
std::vector<ListElement> wanted_limits(const std::vector<LimitRow>& old_limits,
                                       const std::vector<LimitRow>& new_limits);

/// `{id: …, sha256: …}`; fields at their defaults are left out, but for the state.
std::string flow_key_row(const KeyRow& row);

/// A list entry of whole lines, its dash at column `indent`.
std::string block_key_row(const KeyRow& row, size_t indent, std::string_view newline);

/// `text` with the key at `span` (located with its fields) turned from `old_row` into `new_row`: values that
/// differ are rewritten where they stand, of lists the elements that differ; fields that are missing are put
/// behind their nearest predecessor.
/// The caller parses the result: an odd form can defy this.
std::string edit_key_row(std::string_view text, const RowSpan& span, const KeyRow& old_row,
                         const KeyRow& new_row, std::string_view newline);

}  // namespace apikeyd
