#include "source/policy_text.h"

#include <algorithm>
#include <array>
#include <vector>

#include "source/row_text.h"
#include "source/yaml_patch.h"

namespace apikeyd {

namespace {

/// The parts of a key set in the order in which they are written.
constexpr std::array<std::string_view, 4> kOrder = {"version", "scopes", "plans", "owners"};

size_t place_of(std::string_view root) {
    return static_cast<size_t>(std::find(kOrder.begin(), kOrder.end(), root) - kOrder.begin());
}

const SectionSpan* section_of(const KeySetSpans& spans, std::string_view root) {
    const auto found = std::find_if(spans.sections.begin(), spans.sections.end(),
                                    [&](const SectionSpan& one) { return one.root == root; });
    return found != spans.sections.end() ? &*found : nullptr;
}

std::string name_of(const YamlSpan& element) {
    const YamlSpan* name = field_of(element, "name");
    return name != nullptr ? name->text : element.text;
}

std::vector<std::string> names_of(const YamlSpan& list) {
    std::vector<std::string> names;
    for (const YamlSpan& element : list.children) {
        names.push_back(name_of(element));
    }
    return names;
}

/// The same elements, for list_changes().
std::vector<ListElement> as_they_are(const std::vector<std::string>& names) {
    std::vector<ListElement> elements;
    for (const std::string& name : names) {
        elements.push_back({name, {}, false});
    }
    return elements;
}

const YamlSpan* element_of(const KeySetSpans& spans, std::string_view root, std::string_view name) {
    const SectionSpan* section = section_of(spans, root);
    if (section == nullptr) {
        return nullptr;
    }
    const auto found = std::find_if(section->tree.children.begin(), section->tree.children.end(),
                                    [&](const YamlSpan& one) { return name_of(one) == name; });
    return found != section->tree.children.end() ? &*found : nullptr;
}

/// An element that comes: in flow form, and as the lines behind a dash.
struct NewElement {
    std::string name;
    std::string flow;
    std::vector<std::string> lines;

    /// The lines behind a dash at this column, without the last line feed.
    std::string behind_dash(size_t indent, std::string_view newline) const {
        std::string text;
        for (const std::string& line : lines) {
            text += (text.empty() ? "" : std::string(newline) + std::string(indent + 2, ' ')) + line;
        }
        return text;
    }
    std::string whole_lines(size_t indent, std::string_view newline) const {
        return std::string(indent, ' ') + "- " + behind_dash(indent, newline) + std::string(newline);
    }
};

size_t spaces_before(std::string_view text, size_t at) {
    size_t begin = at;
    while (begin > 0 && text[begin - 1] == ' ') {
        --begin;
    }
    return at - begin;
}

/// `root` is there and has no element.
std::vector<TextChange> fill_section(const LocatedText& set, const SectionSpan& section,
                                     const NewElement& element) {
    const TextRange value = section.value;
    const std::string_view written = set.text.substr(value.begin, value.end - value.begin);
    if (written.find('#') != std::string_view::npos) {  // `plans: [ # none yet`
        return {{{value.begin + 1, value.begin + 1}, element.flow}};
    }
    if (set.spans.root_flow) {
        return {{value, (written.empty() ? " [" : "[") + element.flow + "]"}};
    }
    const bool comment_touches = set.text.substr(value.end).starts_with('#');
    const size_t next = line_end(set.text, value.end);
    const size_t indent = spaces_before(set.text, section.name.begin) + 2;
    return {{{section.colon_end, value.end}, comment_touches ? " " : ""},
            {{next, next}, element.whole_lines(indent, set.newline)}};
}

/// `root` is not there.
std::vector<TextChange> make_section(const LocatedText& set, std::string_view root,
                                     const NewElement& element) {
    const KeySetSpans& spans = set.spans;
    if (spans.root_flow) {
        return {
            {{spans.root_begin + 1, spans.root_begin + 1}, std::string(root) + ": [" + element.flow + "], "}};
    }
    const SectionSpan* before = nullptr;
    size_t first = spans.keys_name.begin;
    for (const SectionSpan& section : spans.sections) {
        first = std::min(first, section.name.begin);
        if (place_of(section.root) < place_of(root) &&
            (before == nullptr || place_of(before->root) < place_of(section.root))) {
            before = &section;
        }
    }
    const size_t column = spaces_before(set.text, spans.keys_name.begin);
    const std::string lines = std::string(root) + ":" + std::string(set.newline) +
                              element.whole_lines(column + 2, set.newline) + std::string(column, ' ');
    if (before == nullptr) {
        return {{{first, first}, lines}};
    }
    const size_t at = line_end(set.text, before->value.end);
    return {{{at, at}, std::string(column, ' ') + lines.substr(0, lines.size() - column)}};
}

std::optional<std::string> changed(const LocatedText& set, std::optional<std::vector<TextChange>> changes) {
    return changes ? std::optional(with_changes(set.text, *std::move(changes))) : std::nullopt;
}

std::optional<std::string> add(const LocatedText& set, std::string_view root, const NewElement& element) {
    const SectionSpan* section = section_of(set.spans, root);
    if (section == nullptr) {
        return changed(set, make_section(set, root, element));
    }
    const YamlSpan& list = section->tree;
    if (list.children.empty()) {
        return changed(set, fill_section(set, *section, element));
    }
    const std::vector<std::string> names = names_of(list);
    std::vector<ListElement> wanted = as_they_are(names);
    wanted.push_back(
        {element.name,
         list.flow ? element.flow : element.behind_dash(block_indent(set.text, list), set.newline), false});
    return changed(set, list_changes(set.text, list, names, wanted, set.newline));
}

std::string flow_limits(const std::vector<LimitRow>& limits) {
    std::string text = "[";
    for (const LimitRow& limit : limits) {
        text += (text.size() > 1 ? ", " : "") + flow_limit(limit);
    }
    return text + "]";
}

NewElement new_element(const std::string& scope) {
    return {scope, yaml_string(scope), {yaml_string(scope)}};
}

NewElement new_element(const PlanRow& plan) {
    const std::string name = "name: " + yaml_string(plan.name);
    NewElement element{plan.name, "{" + name + ", limits: " + flow_limits(plan.limits) + "}", {name}};
    if (!plan.limits.empty()) {
        element.lines.emplace_back("limits:");
    }
    for (const LimitRow& limit : plan.limits) {
        element.lines.push_back("  - " + flow_limit(limit));
    }
    return element;
}

NewElement new_element(const OwnerRow& owner) {
    const std::string text = "{name: " + yaml_string(owner.name) +
                             (owner.plan.empty() ? "" : ", plan: " + yaml_string(owner.plan)) + "}";
    return {owner.name, text, {text}};
}

template <typename Row>
void append_section(std::string& text, std::string_view root, const std::vector<Row>& rows, size_t column,
                    std::string_view newline) {
    if (rows.empty()) {
        return;
    }
    text.append(column, ' ').append(root).append(":").append(newline);
    for (const Row& row : rows) {
        text += new_element(row).whole_lines(column + 2, newline);
    }
}

}  // namespace

std::optional<std::string> add_scope(const LocatedText& set, const std::string& scope) {
    return add(set, "scopes", new_element(scope));
}

std::optional<std::string> add_plan(const LocatedText& set, const PlanRow& plan) {
    return add(set, "plans", new_element(plan));
}

std::optional<std::string> add_owner(const LocatedText& set, const OwnerRow& owner) {
    return add(set, "owners", new_element(owner));
}

std::optional<std::string> add_sections(const LocatedText& set, const PolicySet& policies) {
    if (set.spans.root_flow) {
        return std::nullopt;
    }
    const size_t column = spaces_before(set.text, set.spans.keys_name.begin);
    std::string lines;
    append_section(lines, "scopes", policies.scopes, column, set.newline);
    append_section(lines, "plans", policies.plans, column, set.newline);
    append_section(lines, "owners", policies.owners, column, set.newline);
    const size_t at = set.spans.keys_name.begin - column;
    return changed(set, std::vector<TextChange>{{{at, at}, std::move(lines)}});
}

std::optional<std::string> change_plan(const LocatedText& set, const PlanRow& before, const PlanRow& plan) {
    const YamlSpan* element = element_of(set.spans, "plans", plan.name);
    if (element == nullptr) {
        return std::nullopt;
    }
    const YamlSpan* limits = field_of(*element, "limits");
    if (limits != nullptr && !limits->children.empty()) {
        return changed(set, list_changes(set.text, *limits, names_of(*limits),
                                         wanted_limits(before.limits, plan.limits), set.newline));
    }
    return changed(set, std::vector<TextChange>{set_field(set.text, *element, "limits",
                                                          flow_limits(plan.limits), "name", set.newline)});
}

std::optional<std::string> change_owner(const LocatedText& set, const OwnerRow& owner) {
    const YamlSpan* element = element_of(set.spans, "owners", owner.name);
    if (element == nullptr) {
        return std::nullopt;
    }
    const std::string plan = owner.plan.empty() ? "null" : yaml_string(owner.plan);
    return changed(set,
                   std::vector<TextChange>{set_field(set.text, *element, "plan", plan, "name", set.newline)});
}

std::optional<std::string> erase_named(const LocatedText& set, std::string_view root, std::string_view name) {
    const SectionSpan* section = section_of(set.spans, root);
    if (section == nullptr) {
        return std::nullopt;
    }
    const std::vector<std::string> names = names_of(section->tree);
    std::vector<ListElement> wanted = as_they_are(names);
    std::erase_if(wanted, [&](const ListElement& one) { return one.name == name; });
    return changed(set, list_changes(set.text, section->tree, names, wanted, set.newline));
}

}  // namespace apikeyd
