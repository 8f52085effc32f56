#include "tools/tags.h"

#include <algorithm>
#include <boost/json.hpp>
#include <optional>
#include <set>

#include "source/key_rules.h"
#include "source/metadata_json.h"

namespace apikeyd {

namespace {

constexpr size_t kTagBytesMax = 63;
constexpr std::string_view kTags = "\"tags\"";

/// Behind what begins at `at` in compact JSON: behind the comma or bracket that ends it, on its own level.
size_t end_of_member(std::string_view json, size_t at) {
    size_t depth = 0;
    for (; at < json.size(); ++at) {
        const char c = json[at];
        if (c == '"') {
            for (++at; at < json.size() && json[at] != '"'; ++at) {
                at += json[at] == '\\' ? 1 : 0;
            }
        } else if (c == '{' || c == '[') {
            ++depth;
        } else if (depth == 0 && (c == ',' || c == '}')) {
            return at + 1;
        } else if (c == '}' || c == ']') {
            --depth;
        }
    }
    return json.size();
}

/// The members of an object as they are written, without the commas.
std::vector<std::string_view> members_of(std::string_view json) {
    std::vector<std::string_view> members;
    for (size_t at = 1; at + 1 < json.size();) {
        const size_t end = end_of_member(json, at);
        members.push_back(json.substr(at, end - 1 - at));
        at = end;
    }
    return members;
}

bool is_tags(std::string_view member) {
    return member.starts_with(kTags) && member.substr(kTags.size()).starts_with(':');
}

}  // namespace

Result<std::string> with_tags(std::string_view metadata, const std::vector<std::string>& tags) {
    std::string json;
    const auto append = [&](std::string_view member) {
        json.append(json.empty() ? "{" : ",").append(member);
    };
    for (const std::string_view member : members_of(metadata)) {
        if (!is_tags(member)) {
            append(member);
        }
    }
    std::string list;
    for (const std::string& tag : std::set<std::string>(tags.begin(), tags.end())) {
        const auto fault = text_fault(tag, kTagBytesMax);
        if (fault || tag.empty()) {
            return fail(fault.value_or("empty (want a word)"));
        }
        list += list.empty() ? "[" : ",";
        append_json_string(list, tag);
    }
    if (!list.empty()) {
        append(std::string(kTags) + ":" + list + "]");
    }
    return json.empty() ? json : json + "}";
}

bool has_tags(std::string_view metadata, const std::vector<std::string>& tags) {
    if (tags.empty()) {
        return true;
    }
    const std::vector<std::string_view> members = members_of(metadata);
    const auto found = std::find_if(members.begin(), members.end(), is_tags);
    if (found == members.end()) {
        return false;
    }
    boost::json::error_code error;
    const boost::json::value list = boost::json::parse(found->substr(kTags.size() + 1), error);
    return !error && list.is_array() && std::all_of(tags.begin(), tags.end(), [&](const std::string& tag) {
        const boost::json::array& there = list.get_array();
        return std::any_of(there.begin(), there.end(), [&](const boost::json::value& one) {
            return one.is_string() && std::string_view(one.get_string()) == tag;
        });
    });
}

}  // namespace apikeyd
