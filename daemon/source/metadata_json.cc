#include "source/metadata_json.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdio>

#include "base/utf8.h"
#include "source/key_row.h"

namespace apikeyd {

namespace {

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/// Eats the digits at the front of `text`.
std::string_view take_digits(std::string_view& text) {
    size_t n = 0;
    while (n < text.size() && is_digit(text[n])) {
        ++n;
    }
    const std::string_view digits = text.substr(0, n);
    text.remove_prefix(n);
    return digits;
}

/// 0x… and 0o… as decimal.
std::optional<std::string> based_number(std::string_view text) {
    const int base = text.starts_with("0x") ? 16 : 8;
    const std::string_view digits = text.substr(2);
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
    if (digits.empty() || end != digits.data() + digits.size()) {
        return std::nullopt;
    }
    return error == std::errc{} ? std::to_string(value) : std::string{};
}

}  // namespace

std::optional<bool> core_schema_bool(std::string_view text) {
    if (text == "true" || text == "True" || text == "TRUE") {
        return true;
    }
    if (text == "false" || text == "False" || text == "FALSE") {
        return false;
    }
    return std::nullopt;
}

// YAML 1.2.2, section 10.3.2: int [-+]?[0-9]+, 0o[0-7]+, 0x[0-9a-fA-F]+; float
// [-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)
// ([eE][-+]?[0-9]+)?, [-+]?\.(inf|Inf|INF), \.(nan|NaN|NAN).
std::optional<std::string> core_schema_number(std::string_view text) {
    if (text.starts_with("0x") || text.starts_with("0o")) {
        return based_number(text);
    }
    const bool sign = text.starts_with('-') || text.starts_with('+');
    std::string out = text.starts_with('-') ? "-" : "";
    std::string_view rest = text.substr(sign ? 1 : 0);
    if (rest == ".inf" || rest == ".Inf" || rest == ".INF" ||
        (!sign && (rest == ".nan" || rest == ".NaN" || rest == ".NAN"))) {
        return std::string{};
    }
    const std::string_view whole = take_digits(rest);
    const size_t leading_zeros = std::min(whole.find_first_not_of('0'), whole.size());
    out += leading_zeros == whole.size() ? "0" : whole.substr(leading_zeros);
    if (rest.starts_with('.')) {
        rest.remove_prefix(1);
        const std::string_view fraction = take_digits(rest);
        if (whole.empty() && fraction.empty()) {
            return std::nullopt;
        }
        out += '.';
        out += fraction.empty() ? "0" : fraction;
    } else if (whole.empty()) {
        return std::nullopt;
    }
    if (rest.starts_with('e') || rest.starts_with('E')) {
        out += 'e';
        rest.remove_prefix(1);
        if (rest.starts_with('-') || rest.starts_with('+')) {
            out += rest.front();
            rest.remove_prefix(1);
        }
        const std::string_view exponent = take_digits(rest);
        if (exponent.empty()) {
            return std::nullopt;
        }
        out += exponent;
    }
    return rest.empty() ? std::optional(out) : std::nullopt;
}

void append_json_string(std::string& out, std::string_view text) {
    out += '"';
    for (size_t i = 0; i < text.size();) {
        char32_t code_point = 0;
        const size_t length = std::max<size_t>(utf8_sequence(text.substr(i), code_point), 1);
        const std::string_view one = text.substr(i, length);
        i += length;
        if (code_point == '"' || code_point == '\\') {
            out += '\\';
            out += one;
        } else if (code_point == '\n') {
            out += "\\n";
        } else if (code_point == '\t') {
            out += "\\t";
        } else if (is_control(code_point) || code_point == 0xFEFF || code_point == 0xFFFE ||
                   code_point == 0xFFFF) {
            char escaped[16];
            std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(code_point));
            out += escaped;
        } else {
            out += one;
        }
    }
    out += '"';
}

void MetadataJson::error(YamlPlace place, std::string_view what) {
    failed_ = true;
    reporter_.add(place, label_ + std::string(what));
}

void MetadataJson::before_value() {
    if (levels_.empty()) {
        return;
    }
    Level& level = levels_.back();
    if (level.map) {
        level.key_next = true;  // behind the value
    } else {
        json_ += level.first ? "" : ",";
        level.first = false;
    }
}

void MetadataJson::key(const YamlScalar& scalar) {
    Level& level = levels_.back();
    if (scalar.kind == YamlScalarKind::kNull) {
        error(scalar.place, "a name is null or missing (want a string; quote it when it is one)");
    } else if (!level.keys.emplace(scalar.text).second) {
        error(scalar.place, yaml_quote(scalar.text) + " stands twice in one mapping (want each name once)");
    }
    json_ += level.first ? "" : ",";
    append_json_string(json_, scalar.text);
    json_ += ':';
    level.first = false;
    level.key_next = false;
}

void MetadataJson::value(const YamlScalar& scalar) {
    before_value();
    if (scalar.kind == YamlScalarKind::kNull) {
        json_ += "null";
        return;
    }
    if (scalar.kind == YamlScalarKind::kPlain) {
        if (const auto truth = core_schema_bool(scalar.text)) {
            json_ += *truth ? "true" : "false";
            return;
        }
        if (const auto number = core_schema_number(scalar.text)) {
            if (number->empty()) {
                error(scalar.place,
                      yaml_quote(scalar.text) +
                          " is a number that JSON cannot express (quote it to keep it as text)");
            }
            json_ += *number;
            return;
        }
    }
    append_json_string(json_, scalar.text);
}

void MetadataJson::on_scalar(const YamlScalar& scalar) {
    if (json_.size() > kMetadataBytesMax) {
        json_.resize(kMetadataBytesMax + 1);  // too long already: keep no more than the proof of it
        levels_.back().key_next = !levels_.back().key_next;
        return;
    }
    if (levels_.back().map && levels_.back().key_next) {
        key(scalar);
    } else {
        value(scalar);
    }
}

void MetadataJson::on_begin(YamlPlace place, bool map) {
    start_ = levels_.empty() ? place : start_;
    if (!levels_.empty() && levels_.back().map && levels_.back().key_next) {
        error(place, "a name is a list or a mapping (want a string)");
        levels_.back().key_next = false;
    } else {
        before_value();
    }
    levels_.push_back({.map = map, .key_next = map, .first = true, .keys = {}});
    json_ += map ? '{' : '[';
}

void MetadataJson::on_end() {
    json_ += levels_.back().map ? '}' : ']';
    levels_.pop_back();
}

std::optional<std::string> MetadataJson::take() {
    if (!failed_ && json_.size() > kMetadataBytesMax) {
        error(start_,
              "more than " + std::to_string(kMetadataBytesMax) + " bytes as JSON (want at most that)");
    }
    if (failed_) {
        return std::nullopt;
    }
    return json_ == "{}" ? std::string{} : std::move(json_);
}

}  // namespace apikeyd
