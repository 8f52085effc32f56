#include "source/yaml_patch.h"

#include <algorithm>

namespace apikeyd {

namespace {

/// Where an element of a list in block form stands: whole lines, from its dash on.
struct Lines {
    size_t begin;
    size_t end;
};

/// nullopt where some element does not have its lines for itself.
std::optional<std::vector<Lines>> lines_of(std::string_view text, const YamlSpan& list) {
    std::vector<Lines> all;
    size_t dash = list.range.begin;
    for (const YamlSpan& element : list.children) {
        const size_t begin = line_begin(text, dash);
        const bool alone = dash < text.size() && text[dash] == '-' &&
                           text.substr(begin, dash - begin).find_first_not_of(' ') == std::string_view::npos;
        if (!alone || (!all.empty() && begin < all.back().end) || element.range.begin < dash) {
            return std::nullopt;
        }
        all.push_back({begin, line_end(text, std::max(element.range.end, dash))});
        dash = skip_blanks_and_comments(text, all.back().end);
    }
    return all;
}

/// What becomes of each element that is there: its number in `wanted`, or nullopt for one that goes. What is
/// added comes behind those that stay, so one that would stand before an earlier one goes and is added.
struct Fates {
    std::vector<std::optional<size_t>> of_present;
    std::vector<size_t> added;
};

Fates fates_of(const std::vector<std::string>& names, const std::vector<ListElement>& wanted) {
    Fates fates;
    size_t next = 0;
    for (const std::string& name : names) {
        const bool stays = next < wanted.size() && wanted[next].name == name;
        fates.of_present.push_back(stays ? std::optional(next++) : std::nullopt);
    }
    for (; next < wanted.size(); ++next) {
        fates.added.push_back(next);
    }
    return fates;
}

std::vector<TextChange> block_changes(std::string_view text, const YamlSpan& list,
                                      const std::vector<Lines>& lines, const Fates& fates,
                                      const std::vector<ListElement>& wanted, std::string_view newline) {
    std::vector<TextChange> changes;
    for (size_t i = 0; i < lines.size(); ++i) {
        if (!fates.of_present[i]) {
            changes.push_back({{lines[i].begin, lines[i].end}, ""});
        } else if (wanted[*fates.of_present[i]].changed) {
            changes.push_back({list.children[i].range, wanted[*fates.of_present[i]].text});
        }
    }
    std::string added;
    for (const size_t number : fates.added) {
        added.append(block_indent(text, list), ' ').append("- ").append(wanted[number].text).append(newline);
    }
    changes.push_back({{lines.back().end, lines.back().end}, std::move(added)});
    return changes;
}

std::vector<TextChange> flow_changes(const YamlSpan& list, const Fates& fates,
                                     const std::vector<ListElement>& wanted) {
    std::vector<TextChange> changes;
    const std::vector<YamlSpan>& present = list.children;
    size_t kept = present.size();  // of those that are there, the last one that stays
    while (kept > 0 && !fates.of_present[kept - 1]) {
        --kept;
    }
    if (kept == 0 && fates.added.empty()) {
        return {{list.range, "[]"}};  // with no comma that stood behind the last
    }
    for (size_t i = 0; i < kept; ++i) {
        if (!fates.of_present[i]) {
            changes.push_back({{present[i].range.begin, present[i + 1].range.begin}, ""});
        } else if (wanted[*fates.of_present[i]].changed) {
            changes.push_back({present[i].range, wanted[*fates.of_present[i]].text});
        }
    }
    std::string added;
    for (const size_t number : fates.added) {
        added += (kept == 0 && added.empty() ? "" : ", ") + wanted[number].text;
    }
    const size_t begin = kept != 0 ? present[kept - 1].range.end : present.front().range.begin;
    changes.push_back({{begin, present.back().range.end}, std::move(added)});
    return changes;
}

}  // namespace

std::string with_changes(std::string_view text, std::vector<TextChange> changes) {
    std::stable_sort(changes.begin(), changes.end(),
                     [](const TextChange& a, const TextChange& b) { return a.range.begin < b.range.begin; });
    std::string out;
    size_t at = 0;
    for (const TextChange& change : changes) {
        if (change.range.begin < at) {
            continue;  // spans that overlap come of a form not understood: the caller's parse will tell
        }
        out.append(text.substr(at, change.range.begin - at)).append(change.text);
        at = change.range.end;
    }
    return out.append(text.substr(at));
}

size_t block_indent(std::string_view text, const YamlSpan& list) {
    return list.range.begin - line_begin(text, list.range.begin);
}

std::optional<std::vector<TextChange>> list_changes(std::string_view text, const YamlSpan& list,
                                                    const std::vector<std::string>& names,
                                                    const std::vector<ListElement>& wanted,
                                                    std::string_view newline) {
    if (list.kind != YamlNode::Kind::kList || list.children.empty() || names.size() != list.children.size()) {
        return std::nullopt;
    }
    const Fates fates = fates_of(names, wanted);
    if (list.flow) {
        return flow_changes(list, fates, wanted);
    }
    const auto lines = lines_of(text, list);
    return lines ? std::optional(block_changes(text, list, *lines, fates, wanted, newline)) : std::nullopt;
}

const YamlSpan* field_of(const YamlSpan& map, std::string_view name) {
    for (size_t i = 0; map.kind == YamlNode::Kind::kMap && i + 1 < map.children.size(); i += 2) {
        if (map.children[i].text == name) {
            return &map.children[i + 1];
        }
    }
    return nullptr;
}

TextChange set_field(std::string_view text, const YamlSpan& map, std::string_view name,
                     const std::string& value, std::string_view after, std::string_view newline) {
    if (const YamlSpan* present = field_of(map, name)) {
        const bool empty = present->range.begin == present->range.end;
        return {present->range, (empty ? " " : "") + value};
    }
    const std::string pair = std::string(name) + ": " + value;
    const size_t end = field_of(map, after)->range.end;
    if (map.flow) {
        return {{end, end}, ", " + pair};
    }
    const size_t column = map.range.begin - line_begin(text, map.range.begin);
    const size_t at = line_end(text, end);
    return {{at, at}, std::string(column, ' ') + pair + std::string(newline)};
}

}  // namespace apikeyd
