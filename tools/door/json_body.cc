#include "tools/door/json_body.h"

#include <algorithm>
#include <boost/json.hpp>

#include "source/json_text.h"

namespace apikeyd {

namespace json = boost::json;

namespace {

/// The media type without its parameters, in lower case.
std::string media_type(std::string_view header) {
    std::string type(header.substr(0, header.find(';')));
    type.erase(type.find_last_not_of(" \t") + 1);
    std::transform(type.begin(), type.end(), type.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
    return type;
}

/// The end of the string that begins at `at`: its second quote.
size_t string_end(std::string_view text, size_t at) {
    for (++at; at < text.size() && text[at] != '"'; ++at) {
        at += text[at] == '\\' ? 1 : 0;
    }
    return at;
}

std::string unquoted(std::string_view written) {
    json::error_code error;
    const json::value value = json::parse(json::string_view(written.data(), written.size()), error);
    return value.is_string() ? std::string(value.get_string()) : std::string(written);
}

}  // namespace

std::optional<std::string> name_given_twice(std::string_view text) {
    struct Level {
        bool object;
        std::set<std::string> names = {};
    };
    std::vector<Level> levels;
    bool name_next = false;
    for (size_t at = 0; at < text.size(); ++at) {
        const char c = text[at];
        if (c == '{' || c == '[') {
            levels.push_back({c == '{'});
            name_next = c == '{';
        } else if (c == '}' || c == ']') {
            levels.pop_back();
            name_next = false;
        } else if (c == ',') {
            name_next = levels.back().object;
        } else if (c == '"') {
            const size_t end = string_end(text, at);
            if (name_next) {
                const auto [name, fresh] =
                    levels.back().names.insert(unquoted(text.substr(at, end + 1 - at)));
                if (!fresh) {
                    return *name;
                }
            }
            name_next = false;
            at = end;
        }
    }
    return std::nullopt;
}

std::string pointer_part(std::string_view name) {
    std::string part = "/";
    for (const char c : name) {
        part += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
    }
    return part;
}

tl::expected<JsonBody, HttpAnswer> JsonBody::read(const HttpRequest& request, bool required,
                                                  const std::vector<std::string_view>& types) {
    JsonBody body;
    if (request.body.empty() && !required) {
        return body;
    }
    if (!request.has_length) {
        return tl::unexpected(problem(411, "The body has no Content-Length."));
    }
    const std::string type = media_type(request.content_type.value_or(""));
    if (std::find(types.begin(), types.end(), type) == types.end()) {
        return tl::unexpected(problem(415, "Want Content-Type: " + std::string(types.front()) + "."));
    }
    json::error_code error;
    json::parser parser;
    const size_t parsed = parser.write(request.body.data(), request.body.size(), error);
    if (error) {
        return tl::unexpected(problem(400, "The body is no JSON.",
                                      {.errors = {{.detail = "want JSON (RFC 8259)", .offset = parsed}}}));
    }
    json::value value = parser.release();
    if (!value.is_object()) {
        return tl::unexpected(
            problem(400, "The body is no JSON object.",
                    {.errors = {{.detail = "want {\"name\": value, ...}", .pointer = ""}}}));
    }
    body.written_.assign(request.body);
    if (const auto twice = name_given_twice(body.written_)) {
        return tl::unexpected(problem(400, "The body has a name twice in one object.",
                                      {.errors = {{.detail = "'" + *twice + "': want each name once"}}}));
    }
    body.object_ = std::move(value.get_object());
    return body;
}

const json::value* JsonBody::find(std::string_view name) {
    known_.emplace(name);
    return object_.if_contains(json::string_view(name.data(), name.size()));
}

std::string JsonBody::raw(std::string_view name) const {
    for (const JsonMember& member : json_members(written_)) {
        if (unquoted('"' + std::string(member.name) + '"') == name) {
            return std::string(member.value);
        }
    }
    return {};
}

const json::string* JsonBody::text(std::string_view name) {
    const json::value* value = find(name);
    if (value != nullptr && !value->is_string() && !value->is_null()) {
        fault(name, "want a string");
    }
    return value != nullptr ? value->if_string() : nullptr;
}

const json::array* JsonBody::array(std::string_view name) {
    const json::value* value = find(name);
    if (value != nullptr && !value->is_array() && !value->is_null()) {
        fault(name, "want a list");
    }
    return value != nullptr ? value->if_array() : nullptr;
}

std::optional<std::vector<std::string>> JsonBody::texts(std::string_view name) {
    const json::array* list = array(name);
    if (list == nullptr) {
        return std::nullopt;
    }
    std::vector<std::string> texts;
    for (size_t i = 0; i < list->size(); ++i) {
        if (const json::string* one = (*list)[i].if_string()) {
            texts.emplace_back(*one);
        } else {
            fault(name, "want a string", "/" + std::to_string(i));
        }
    }
    return texts;
}

bool JsonBody::is_null(std::string_view name) {
    const json::value* value = find(name);
    return value != nullptr && value->is_null();
}

void JsonBody::fault(std::string_view name, std::string detail, const std::string& at) {
    faults_.push_back({.detail = std::move(detail), .pointer = pointer_part(name) + at});
}

std::vector<ProblemPart> JsonBody::faults() const {
    std::vector<ProblemPart> all = faults_;
    for (const auto& member : object_) {
        const std::string name(member.key());
        if (known_.find(name) == known_.end()) {
            all.push_back({.detail = "no such field", .pointer = pointer_part(name)});
        }
    }
    return all;
}

}  // namespace apikeyd
