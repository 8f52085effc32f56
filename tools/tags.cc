#include "tools/tags.h"

#include <algorithm>
#include <boost/json.hpp>
#include <optional>
#include <set>

#include "source/json_text.h"
#include "source/key_rules.h"
#include "source/metadata_json.h"

namespace apikeyd {

namespace {

constexpr size_t kTagBytesMax = 63;
constexpr std::string_view kTags = "tags";

}  // namespace

Result<std::string> with_tags(std::string_view metadata, const std::vector<std::string>& tags) {
    std::string json;
    const auto append = [&](std::string_view name, std::string_view value) {
        json.append(json.empty() ? "{\"" : ",\"").append(name).append("\":").append(value);
    };
    for (const JsonMember& member : json_members(metadata)) {
        if (member.name != kTags) {
            append(member.name, member.value);
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
        append(kTags, list + "]");
    }
    return json.empty() ? json : json + "}";
}

bool has_tags(std::string_view metadata, const std::vector<std::string>& tags) {
    if (tags.empty()) {
        return true;
    }
    const std::vector<JsonMember> members = json_members(metadata);
    const auto found = std::find_if(members.begin(), members.end(),
                                    [](const JsonMember& member) { return member.name == kTags; });
    if (found == members.end()) {
        return false;
    }
    boost::json::error_code error;
    const boost::json::value list = boost::json::parse(found->value, error);
    return !error && list.is_array() && std::all_of(tags.begin(), tags.end(), [&](const std::string& tag) {
        const boost::json::array& there = list.get_array();
        return std::any_of(there.begin(), there.end(), [&](const boost::json::value& one) {
            return one.is_string() && std::string_view(one.get_string()) == tag;
        });
    });
}

}  // namespace apikeyd
