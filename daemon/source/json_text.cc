#include "source/json_text.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/hex.h"
#include "base/utf8.h"
#include "source/key_row.h"
#include "source/key_set_limits.h"
#include "source/metadata_json.h"

namespace apikeyd {

namespace {

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/// Walks over JSON. Each take_… answers whether it stood there, and has moved behind it then.
class Scanner {
  public:
    explicit Scanner(std::string_view text) : text_(text), size_(text.size()) {}

    [[nodiscard]] bool at_end() const { return text_.empty(); }
    [[nodiscard]] size_t offset() const { return size_ - text_.size(); }
    [[nodiscard]] char next() const { return text_.empty() ? '\0' : text_.front(); }
    bool take(char c) {
        if (!text_.starts_with(c)) {
            return false;
        }
        text_.remove_prefix(1);
        return true;
    }
    /// With the blanks before it and behind it.
    bool take_mark(char c) {
        skip_blanks();
        const bool there = take(c);
        skip_blanks();
        return there;
    }
    void skip_blanks() {
        while (!text_.empty() && std::string_view(" \t\n\r").find(text_.front()) != std::string_view::npos) {
            text_.remove_prefix(1);
        }
    }

    /// What a string says.
    std::optional<std::string> take_string() {
        if (!take('"')) {
            return std::nullopt;
        }
        std::string said;
        while (!take('"')) {
            char32_t code_point = 0;
            const size_t length = utf8_sequence(text_, code_point);
            if (length == 0 || code_point < 0x20) {
                return std::nullopt;
            }
            if (code_point != '\\') {
                said.append(text_.substr(0, length));
                text_.remove_prefix(length);
            } else if (!take_escape(said)) {
                return std::nullopt;
            }
        }
        return said;
    }
    /// true, false or null.
    std::optional<std::string_view> take_word() {
        for (const std::string_view word : {"true", "false", "null"}) {
            if (text_.starts_with(word)) {
                text_.remove_prefix(word.size());
                return word;
            }
        }
        return std::nullopt;
    }
    /// As it is written.
    std::optional<std::string_view> take_number() {
        const std::string_view start = text_;
        take('-');
        bool good = take('0') || take_digits();
        if (good && take('.')) {
            good = take_digits();
        }
        if (good && (take('e') || take('E'))) {
            if (!take('+')) {
                take('-');
            }
            good = take_digits();
        }
        return good ? std::optional(start.substr(0, start.size() - text_.size())) : std::nullopt;
    }

  private:
    bool take_escape(std::string& said) {
        text_.remove_prefix(1);
        if (text_.empty()) {
            return false;
        }
        const char kind = text_.front();
        text_.remove_prefix(1);
        if (kind != 'u') {
            constexpr std::string_view kKinds = "\"\\/bfnrt";
            const size_t which = kKinds.find(kind);
            if (which != std::string_view::npos) {
                said += "\"\\/\b\f\n\r\t"[which];
            }
            return which != std::string_view::npos;
        }
        const auto first = take_code_unit();
        if (!first) {
            return false;
        }
        char32_t code_point = *first;
        if (code_point >= 0xD800 && code_point < 0xE000) {  // one of a pair (RFC 8259, section 7)
            const auto second =
                code_point < 0xDC00 && take('\\') && take('u') ? take_code_unit() : std::nullopt;
            if (!second || *second < 0xDC00 || *second >= 0xE000) {
                return false;
            }
            code_point = 0x10000 + ((code_point - 0xD800) << 10) + (*second - 0xDC00);
        }
        append_utf8(said, code_point);
        return true;
    }
    std::optional<char32_t> take_code_unit() {
        constexpr size_t kDigits = 4;
        if (text_.size() < kDigits) {
            return std::nullopt;
        }
        char32_t value = 0;
        for (const char digit : text_.substr(0, kDigits)) {
            if (hex_digit_value(digit) < 0) {
                return std::nullopt;
            }
            value = value * 16 + static_cast<char32_t>(hex_digit_value(digit));
        }
        text_.remove_prefix(kDigits);
        return value;
    }
    bool take_digits() {
        const auto* const end = std::find_if_not(text_.begin(), text_.end(), is_digit);
        const auto count = static_cast<size_t>(end - text_.begin());
        text_.remove_prefix(count);
        return count > 0;
    }

    std::string_view text_;
    size_t size_;
};

/// Writes JSON again, in the one form that metadata has.
class Compactor {
  public:
    explicit Compactor(std::string_view json) : scanner_(json) {}

    Result<std::string> object() {
        scanner_.skip_blanks();
        if (scanner_.next() != '{') {
            return fail("is no JSON object (want {\"name\": value, ...})");
        }
        if (!value(0)) {
            return fail(fault_.empty() ? "is broken JSON at offset " + std::to_string(scanner_.offset()) +
                                             " (want {\"name\": value, ...})"
                                       : std::move(fault_));
        }
        scanner_.skip_blanks();
        if (!scanner_.at_end()) {
            return fail("goes on behind its object at offset " + std::to_string(scanner_.offset()));
        }
        return out_ == "{}" ? std::string() : std::move(out_);
    }

  private:
    /// False with or without a fault in words.
    bool fault(std::string words) {
        fault_ = std::move(words);
        return false;
    }
    bool value(unsigned levels) {
        switch (scanner_.next()) {
            case '{':
                return levels < kMetadataLevelsMax ? members(levels + 1) : too_deep();
            case '[':
                return levels < kMetadataLevelsMax ? elements(levels + 1) : too_deep();
            case '"':
                return string();
            default:
                break;
        }
        if (const auto word = scanner_.take_word()) {
            out_ += *word;
            return bounded();
        }
        const auto number = scanner_.take_number();
        out_ += number ? *core_schema_number(*number) : "";  // each number of JSON is one of YAML's
        return number && bounded();
    }
    bool string() {
        const auto text = scanner_.take_string();
        if (text) {
            append_json_string(out_, *text);
        }
        return text && bounded();
    }
    bool members(unsigned levels) {
        std::vector<std::pair<size_t, size_t>> names;  // where they stand in out_; bounded() keeps them few
        scanner_.take_mark('{');
        out_ += '{';
        for (bool more = scanner_.next() != '}'; more;) {
            const size_t begin = out_.size();
            if (!string()) {
                return false;
            }
            const std::string_view name = std::string_view(out_).substr(begin);
            for (const auto& [other, length] : names) {
                if (std::string_view(out_).substr(other, length) == name) {
                    return fault("'" + std::string(name.substr(1, name.size() - 2)) +
                                 "' stands twice in one object (want each name once)");
                }
            }
            names.emplace_back(begin, name.size());
            out_ += ':';
            if (!scanner_.take_mark(':') || !value(levels)) {
                return false;
            }
            more = scanner_.take_mark(',');
            out_ += more ? "," : "";
        }
        out_ += '}';
        return scanner_.take('}') && bounded();
    }
    bool elements(unsigned levels) {
        scanner_.take_mark('[');
        out_ += '[';
        for (bool more = scanner_.next() != ']'; more;) {
            if (!value(levels)) {
                return false;
            }
            more = scanner_.take_mark(',');
            out_ += more ? "," : "";
        }
        out_ += ']';
        return scanner_.take(']') && bounded();
    }
    /// Ends where it is too long already: what somebody else wrote may be of any length.
    bool bounded() {
        return out_.size() <= kMetadataBytesMax ||
               fault("more than " + std::to_string(kMetadataBytesMax) + " bytes as JSON (want at most that)");
    }
    bool too_deep() {
        return fault("nested deeper than " + std::to_string(kMetadataLevelsMax) +
                     " levels (want at most that)");
    }

    Scanner scanner_;
    std::string out_, fault_;
};

/// Behind what begins at `at` in a JSON object: at the comma or bracket that ends it, on its own level.
size_t end_of_value(std::string_view json, size_t at) {
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
            return at;
        } else if (c == '}' || c == ']') {
            --depth;
        }
    }
    return json.size();
}

}  // namespace

Result<std::vector<std::string>> parse_word_list(std::string_view json) {
    constexpr const char* kWant = "is no list of words (want a JSON array of strings, as [\"a\",\"b\"])";
    Scanner scanner(json);
    std::vector<std::string> words;
    scanner.skip_blanks();
    if (!scanner.take('[')) {
        return fail(kWant);
    }
    scanner.skip_blanks();
    for (bool more = !scanner.take(']'); more;) {
        scanner.skip_blanks();
        auto word = scanner.take_string();
        if (!word) {
            return fail(kWant);
        }
        words.push_back(*std::move(word));
        scanner.skip_blanks();
        more = scanner.take(',');
        if (!more && !scanner.take(']')) {
            return fail(kWant);
        }
    }
    scanner.skip_blanks();
    return scanner.at_end() ? Result<std::vector<std::string>>(std::move(words)) : fail(kWant);
}

std::string format_word_list(const std::vector<std::string>& words) {
    std::string json;
    for (const std::string& word : words) {
        json += json.empty() ? '[' : ',';
        append_json_string(json, word);
    }
    return json.empty() ? json : json + ']';
}

std::vector<JsonMember> json_members(std::string_view object) {
    constexpr std::string_view kBlanks = " \t\n\r";
    std::vector<JsonMember> members;
    for (size_t at = object.find('"'); at < object.size(); at = object.find('"', at)) {
        size_t name_end = at + 1;
        while (name_end < object.size() && object[name_end] != '"') {
            name_end += object[name_end] == '\\' ? 2 : 1;
        }
        const size_t value = object.find_first_not_of(kBlanks, object.find(':', name_end) + 1);
        if (value == std::string_view::npos) {
            break;
        }
        const size_t end = end_of_value(object, value);
        const std::string_view written = object.substr(value, end - value);
        members.push_back({object.substr(at + 1, name_end - at - 1),
                           written.substr(0, written.find_last_not_of(kBlanks) + 1)});
        at = end;
    }
    return members;
}

Result<std::string> compact_metadata(std::string_view json) {
    return Compactor(json).object();
}

}  // namespace apikeyd
