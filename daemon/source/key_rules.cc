#include "source/key_rules.h"

#include <algorithm>

#include "base/utf8.h"
#include "source/key_row.h"
#include "source/rfc3339.h"
#include "source/yaml_events.h"

namespace apikeyd {

namespace {

bool is_base62(char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

bool is_environment_character(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z');
}

}  // namespace

std::optional<std::string> key_id_fault(std::string_view id) {
    if (id.size() == kKeyIdLength && std::all_of(id.begin(), id.end(), is_base62)) {
        return std::nullopt;
    }
    return "no key id (want 12 characters 0-9A-Za-z; these are " + std::to_string(id.size()) + " bytes)";
}

std::optional<std::string> environment_fault(std::string_view name) {
    if (name.size() <= kEnvironmentBytesMax &&
        std::all_of(name.begin(), name.end(), is_environment_character)) {
        return std::nullopt;
    }
    return yaml_quote(name) + " is no environment (want 1 to 15 characters a-z0-9)";
}

std::optional<std::string> text_fault(std::string_view text, std::size_t bytes_max) {
    if (text.size() > bytes_max) {
        return std::to_string(text.size()) + " bytes (want at most " + std::to_string(bytes_max) + ")";
    }
    if (has_control(text)) {
        return yaml_quote(text) + " has control characters (want one line of plain text)";
    }
    return std::nullopt;
}

std::optional<std::string> time_fault(int64_t unix_s, int64_t last_s) {
    if (unix_s > 0 && unix_s <= last_s) {
        return std::nullopt;
    }
    return "is out of range (want a time from 1970-01-01T00:00:01Z to " + format_rfc3339(last_s) + ")";
}

std::string state_fault(std::string_view word) {
    return yaml_quote(word) + " is no state (want active, disabled or revoked)";
}

std::string environments_fault(std::string_view name) {
    return yaml_quote(name) + " is one environment too many (want at most " +
           std::to_string(kEnvironmentsMax) + " different ones)";
}

}  // namespace apikeyd
