#include "source/json_text.h"

#include <algorithm>
#include <optional>

#include "base/hex.h"
#include "base/utf8.h"
#include "source/metadata_json.h"

namespace apikeyd {

namespace {

constexpr unsigned kLevelsMax = 16;

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/// Walks over JSON. Each take_… answers whether it stood there, and has moved behind it then.
class Scanner {
  public:
    explicit Scanner(std::string_view text) : text_(text) {}

    [[nodiscard]] bool at_end() const { return text_.empty(); }
    bool take(char c) {
        if (!text_.starts_with(c)) {
            return false;
        }
        text_.remove_prefix(1);
        return true;
    }
    void skip_blanks() {
        while (!text_.empty() && std::string_view(" \t\n\r").find(text_.front()) != std::string_view::npos) {
            text_.remove_prefix(1);
        }
    }

    /// What stands between the quotes, as it is written.
    std::optional<std::string_view> take_string() {
        const std::string_view start = text_;
        if (!take('"')) {
            return std::nullopt;
        }
        while (!take('"')) {
            char32_t code_point = 0;
            const size_t length = utf8_sequence(text_, code_point);
            if (length == 0 || code_point < 0x20 || (code_point == '\\' && !take_escape())) {
                return std::nullopt;
            }
            text_.remove_prefix(code_point == '\\' ? 0 : length);
        }
        return start.substr(1, start.size() - text_.size() - 2);
    }

    bool take_value(unsigned levels) {
        if (text_.starts_with('"')) {
            return take_string().has_value();
        }
        if (text_.starts_with('{') || text_.starts_with('[')) {
            return levels > 0 && (text_.front() == '{' ? take_object(levels - 1) : take_array(levels - 1));
        }
        for (const std::string_view word : {"true", "false", "null"}) {
            if (text_.starts_with(word)) {
                text_.remove_prefix(word.size());
                return true;
            }
        }
        return take_number();
    }

    bool take_object(unsigned levels) {
        std::vector<std::string_view> names;
        if (!take('{')) {
            return false;
        }
        if (take('}')) {
            return true;
        }
        do {
            const auto name = take_string();
            if (!name || std::find(names.begin(), names.end(), *name) != names.end() || !take(':') ||
                !take_value(levels)) {
                return false;
            }
            names.push_back(*name);
        } while (take(','));
        return take('}');
    }

  private:
    bool take_escape() {
        text_.remove_prefix(1);
        if (text_.empty()) {
            return false;
        }
        const char kind = text_.front();
        text_.remove_prefix(1);
        if (kind != 'u') {
            return std::string_view("\"\\/bfnrt").find(kind) != std::string_view::npos;
        }
        const std::string_view digits = text_.substr(0, 4);
        text_.remove_prefix(digits.size());
        return digits.size() == 4 &&
               std::all_of(digits.begin(), digits.end(), [](char c) { return hex_digit_value(c) >= 0; });
    }
    bool take_array(unsigned levels) {
        text_.remove_prefix(1);
        if (take(']')) {
            return true;
        }
        do {
            if (!take_value(levels)) {
                return false;
            }
        } while (take(','));
        return take(']');
    }
    bool take_digits() {
        const auto* const end = std::find_if_not(text_.begin(), text_.end(), is_digit);
        const auto count = static_cast<size_t>(end - text_.begin());
        text_.remove_prefix(count);
        return count > 0;
    }
    bool take_number() {
        take('-');
        if (!take('0') && !take_digits()) {
            return false;
        }
        if (take('.') && !take_digits()) {
            return false;
        }
        if (take('e') || take('E')) {
            if (!take('+')) {
                take('-');
            }
            return take_digits();
        }
        return true;
    }

    std::string_view text_;
};

/// What an escaped string says; words have no use for characters past ASCII.
std::optional<std::string> unescaped(std::string_view written) {
    std::string text;
    for (size_t i = 0; i < written.size(); ++i) {
        if (written[i] != '\\') {
            text += written[i];
            continue;
        }
        const char kind = written[++i];
        if (kind == 'u') {
            unsigned value = 0;
            for (size_t digit = 1; digit <= 4; ++digit) {
                value = value * 16 + static_cast<unsigned>(hex_digit_value(written[i + digit]));
            }
            if (value >= 0x80) {
                return std::nullopt;
            }
            text += static_cast<char>(value);
            i += 4;
        } else {
            constexpr std::string_view kKinds = "\"\\/bfnrt";
            text += "\"\\/\b\f\n\r\t"[kKinds.find(kind)];
        }
    }
    return text;
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
        const auto written = scanner.take_string();
        auto word = written ? unescaped(*written) : std::nullopt;
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

bool is_compact_object(std::string_view json) {
    Scanner scanner(json);
    return scanner.take_object(kLevelsMax) && scanner.at_end();
}

}  // namespace apikeyd
