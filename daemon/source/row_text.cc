#include "source/row_text.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "base/hex.h"
#include "source/limit_text.h"
#include "source/rfc3339.h"
#include "source/yaml_patch.h"

namespace apikeyd {

namespace {

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}
bool is_letter(char c) {
    return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}

/// True when some parser could take the plain scalar for a number, a time or a date: digits and their
/// punctuation, with an exponent or a base at most.
bool like_a_number(std::string_view text) {
    if (text.size() > 1 && text[0] == '0' && is_letter(text[1])) {
        return true;
    }
    size_t exponents = 0;
    for (const char c : text) {
        if ((c | 0x20) == 'e') {
            ++exponents;
        } else if (!is_digit(c) && std::string_view("+-._: TZ/").find(c) == std::string_view::npos) {
            return false;
        }
    }
    return exponents <= 1 && std::any_of(text.begin(), text.end(), is_digit);
}

/// Words with a meaning of their own in YAML 1.1 or 1.2.
bool is_word_of_yaml(std::string_view text) {
    std::string lower(text);
    std::transform(lower.begin(), lower.end(), lower.begin(),
                   [](char c) { return is_letter(c) ? static_cast<char>(c | 0x20) : c; });
    for (const std::string_view word : {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}) {
        if (lower == word) {
            return true;
        }
    }
    return false;
}

bool plain_is_safe(std::string_view text) {
    const auto safe = [](char c) {
        return is_digit(c) || is_letter(c) || std::string_view(" _-./@+").find(c) != std::string_view::npos;
    };
    return !text.empty() && (is_letter(text.front()) || is_digit(text.front()) || text.front() == '/') &&
           text.back() != ' ' && std::all_of(text.begin(), text.end(), safe) && !like_a_number(text) &&
           !is_word_of_yaml(text);
}

std::string yaml_address(const AddressRangeRow& range) {
    return '"' + format_address_range(range) + '"';
}

template <typename Element, typename Format>
std::string list_text(const std::vector<Element>& elements, Format format) {
    std::string out;
    for (const Element& element : elements) {
        out += (out.empty() ? "[" : ", ") + format(element);
    }
    return out.empty() ? "[]" : out + "]";
}

/// A field's value as YAML text, also right in flow form.
std::string value_text(const KeyRow& row, KeyField field) {
    switch (field) {
        case KeyField::kId:
            return yaml_string(row.id);
        case KeyField::kSha256:
            return yaml_string(to_hex(row.digest));
        case KeyField::kState:
            return std::string(key_state_name(row.state));
        case KeyField::kExpires:
            return row.expires_s ? format_rfc3339(*row.expires_s) : "null";
        case KeyField::kPlan:
            return terms_of(row).plan.empty() ? "null" : yaml_string(terms_of(row).plan);
        case KeyField::kLimits:
            return list_text(terms_of(row).overrides, flow_limit);
        case KeyField::kAddresses:
            return list_text(terms_of(row).addresses, yaml_address);
        case KeyField::kScopes:
            return list_text(terms_of(row).scopes, yaml_string);
        case KeyField::kEnvironment:
            return yaml_string(row.environment);
        case KeyField::kOwner:
            return yaml_string(row.owner);
        case KeyField::kName:
            return yaml_string(row.name);
        case KeyField::kCreated:
            return row.created_s != 0 ? format_rfc3339(row.created_s) : "null";
        case KeyField::kForeign:
            return row.foreign ? "true" : "false";
        case KeyField::kMetadata:
            break;
    }
    return row.metadata.empty() ? "{}" : row.metadata;
}

/// True when leaving `field` out of a new row says the same.
bool may_be_absent(const KeyRow& row, KeyField field) {
    const KeyRow plain;
    switch (field) {
        case KeyField::kId:
        case KeyField::kSha256:
        case KeyField::kState:
            return false;
        default:
            return value_text(row, field) == value_text(plain, field);
    }
}

std::vector<KeyField> written_fields(const KeyRow& row) {
    std::vector<KeyField> fields;
    for (size_t i = 0; i < kKeyFieldCount; ++i) {
        if (!may_be_absent(row, static_cast<KeyField>(i))) {
            fields.push_back(static_cast<KeyField>(i));
        }
    }
    return fields;
}

std::string pair_text(const KeyRow& row, KeyField field) {
    return std::string(kKeyFieldNames[static_cast<size_t>(field)]) + ": " + value_text(row, field);
}

/// Where a field that is not there goes: behind the one before it in the order of KeyField. An id is always
/// there.
const FieldSpan& predecessor(const RowSpan& span, KeyField field) {
    const FieldSpan* best = &span.fields.front();
    for (const FieldSpan& present : span.fields) {
        if (present.field < field && (best->field > field || present.field >= best->field)) {
            best = &present;
        }
    }
    return *best;
}

TextChange insertion(std::string_view text, const RowSpan& span, const KeyRow& row, KeyField field,
                     std::string_view newline) {
    const size_t end = predecessor(span, field).value.end;
    if (span.flow) {
        return {{end, end}, ", " + pair_text(row, field)};
    }
    const size_t column = span.map.begin - line_begin(text, span.map.begin);
    const size_t at = line_end(text, end);
    return {{at, at}, std::string(column, ' ') + pair_text(row, field) + std::string(newline)};
}

/// Addresses as they are compared, whatever their spelling.
std::string address_name(std::string_view text) {
    const auto range = parse_address_range(text);
    return range ? format_address_range(*range) : std::string(text);
}

std::vector<ListElement> wanted_scopes(const KeyRow& row, const std::vector<std::string>& present) {
    std::vector<ListElement> wanted;
    const std::vector<std::string>& scopes = terms_of(row).scopes;
    const auto add = [&](const std::string& scope) { wanted.push_back({scope, yaml_string(scope), false}); };
    const auto is_in = [](const std::string& scope, const std::vector<std::string>& list) {
        return std::find(list.begin(), list.end(), scope) != list.end();
    };
    // A set, which has the order of the text.
    std::for_each(present.begin(), present.end(), [&](const std::string& scope) {
        if (is_in(scope, scopes) && std::none_of(wanted.begin(), wanted.end(),
                                                 [&](const ListElement& one) { return one.name == scope; })) {
            add(scope);
        }
    });
    for (const std::string& scope : scopes) {
        if (!is_in(scope, present)) {
            add(scope);
        }
    }
    return wanted;
}

/// The changes within a list of a key's; nullopt where it is to be written anew.
std::optional<std::vector<TextChange>> list_field_changes(std::string_view text, const FieldSpan& span,
                                                          const KeyRow& old_row, const KeyRow& new_row,
                                                          std::string_view newline) {
    std::vector<std::string> names;
    for (const YamlSpan& element : span.tree.children) {
        const YamlSpan* name = span.field == KeyField::kLimits ? field_of(element, "name") : &element;
        names.push_back(name == nullptr                      ? ""
                        : span.field == KeyField::kAddresses ? address_name(name->text)
                                                             : name->text);
    }
    std::vector<ListElement> wanted;
    if (span.field == KeyField::kScopes) {
        wanted = wanted_scopes(new_row, names);
    } else if (span.field == KeyField::kAddresses) {
        for (const AddressRangeRow& range : terms_of(new_row).addresses) {
            wanted.push_back({format_address_range(range), yaml_address(range), false});
        }
    } else if (span.field == KeyField::kLimits) {
        wanted = wanted_limits(terms_of(old_row).overrides, terms_of(new_row).overrides);
    }
    return list_changes(text, span.tree, names, wanted, newline);
}

}  // namespace

std::string yaml_string(std::string_view text) {
    if (plain_is_safe(text)) {
        return std::string(text);
    }
    std::string out;
    append_json_string(out, text);
    return out;
}

std::string flow_limit(const LimitRow& limit) {
    const bool rate = limit.form == LimitForm::kRate;
    return "{name: " + yaml_string(limit.name) + (rate ? ", rate: " : ", quota: ") + format_limit(limit) +
           (rate && limit.burst != limit.requests ? ", burst: " + std::to_string(limit.burst) : "") +
           (limit.shadow ? ", shadow: true}" : "}");
}

std::vector<ListElement> wanted_limits(const std::vector<LimitRow>& old_limits,
                                       const std::vector<LimitRow>& new_limits) {
    std::vector<ListElement> wanted;
    for (const LimitRow& limit : new_limits) {
        const LimitRow* old = limit_named(old_limits, limit.name);
        wanted.push_back({limit.name, flow_limit(limit), old != nullptr && *old != limit});
    }
    return wanted;
}

std::string flow_key_row(const KeyRow& row) {
    std::string out = "{";
    for (const KeyField field : written_fields(row)) {
        out += (out.size() == 1 ? "" : ", ") + pair_text(row, field);
    }
    return out + "}";
}

std::string block_key_row(const KeyRow& row, size_t indent, std::string_view newline) {
    std::string out;
    for (const KeyField field : written_fields(row)) {
        out += std::string(indent, ' ') + (out.empty() ? "- " : "  ") + pair_text(row, field) +
               std::string(newline);
    }
    return out;
}

std::string edit_key_row(std::string_view text, const RowSpan& span, const KeyRow& old_row,
                         const KeyRow& new_row, std::string_view newline) {
    std::vector<TextChange> changes;
    for (size_t i = 0; i < kKeyFieldCount; ++i) {
        const auto field = static_cast<KeyField>(i);
        const std::string wanted = value_text(new_row, field);
        if (wanted == value_text(old_row, field)) {
            continue;
        }
        const auto present = std::find_if(span.fields.begin(), span.fields.end(),
                                          [&](const FieldSpan& f) { return f.field == field; });
        if (present == span.fields.end()) {
            changes.push_back(insertion(text, span, new_row, field, newline));
        } else if (auto within = list_field_changes(text, *present, old_row, new_row, newline)) {
            changes.insert(changes.end(), within->begin(), within->end());
        } else {
            const bool empty = present->value.begin == present->value.end;
            changes.push_back({present->value, (empty ? " " : "") + wanted});
        }
    }
    return with_changes(text, std::move(changes));
}

}  // namespace apikeyd
