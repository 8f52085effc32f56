#include "source/text_check.h"
#include "base/utf8.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>

namespace apikeyd {

namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

/// True when all eight bytes are printable ASCII or DEL: no high bit, nothing below 0x20.
bool eight_plain_bytes(const char* p) {
    uint64_t w = 0;
    std::memcpy(&w, p, sizeof w);
    constexpr uint64_t kHigh = 0x8080808080808080u;
    constexpr uint64_t kSpaces = 0x2020202020202020u;
    constexpr uint64_t kDels = 0x7F7F7F7F7F7F7F7Fu;
    const uint64_t del = w ^ kDels;  // a zero byte where w has DEL
    constexpr uint64_t kOnes = 0x0101010101010101u;
    return ((w | ((w - kSpaces) & ~w) | ((del - kOnes) & ~del)) & kHigh) == 0;
}

std::string hex_byte(unsigned char byte) {
    char out[8];
    std::snprintf(out, sizeof out, "0x%02X", byte);
    return out;
}

/// Checks one byte sequence that is not plain ASCII; returns its length, or 0 with `what` set.
size_t check_special(std::string_view line, size_t at, std::string& what) {
    const auto byte = static_cast<unsigned char>(line[at]);
    if (byte == '\t') {
        return 1;
    }
    if (byte < 0x20 || byte == 0x7F) {
        what = byte == 0 ? "a NUL byte (want UTF-8 text)"
               : byte == '\r'
                   ? "a carriage return without a newline (want lines that end in LF or CR LF)"
                   : "the control character " + hex_byte(byte) + " (want text without control characters)";
        return 0;
    }
    if (byte < 0x80) {
        return 1;
    }
    char32_t code_point = 0;
    const size_t length = utf8_sequence(line.substr(at), code_point);
    if (length == 0) {
        what = "invalid UTF-8 at byte " + hex_byte(byte) + " (want the file saved as UTF-8)";
        return 0;
    }
    if (code_point == 0xFEFF) {
        what = "a byte order mark amid the text (allowed at the start only)";
        return 0;
    }
    if ((code_point < 0xA0 && code_point != 0x85) || code_point == 0xFFFE || code_point == 0xFFFF) {
        what = "a character that YAML does not allow (want text without control characters)";
        return 0;
    }
    return length;
}

}  // namespace

size_t byte_order_mark_length(std::string_view text) {
    return text.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0;
}

size_t quoted_scalar_end(std::string_view text, size_t begin) {
    const char quote = text[begin];
    for (size_t i = begin + 1; i < text.size(); ++i) {
        if (quote == '"' && text[i] == '\\') {
            ++i;
        } else if (text[i] == quote) {
            if (quote == '"' || i + 1 >= text.size() || text[i + 1] != '\'') {
                return i + 1;
            }
            ++i;  // '' is one quote
        }
    }
    return std::string_view::npos;
}

TextFault check_text(std::string_view text, size_t line_bytes_max) {
    size_t begin = byte_order_mark_length(text);
    size_t line_number = 1;
    for (; begin < text.size(); ++line_number) {
        const size_t window = std::min(text.size() - begin, line_bytes_max + 1);
        const void* newline = std::memchr(text.data() + begin, '\n', window);
        if (newline == nullptr && window > line_bytes_max) {
            return {
                line_number, begin,
                "the line is longer than " + std::to_string(line_bytes_max) + " bytes (want shorter lines)"};
        }
        const size_t end = newline == nullptr
                               ? text.size()
                               : static_cast<size_t>(static_cast<const char*>(newline) - text.data());
        std::string_view line = text.substr(begin, end - begin);
        if (newline != nullptr && line.ends_with('\r')) {
            line.remove_suffix(1);
        }
        for (size_t i = 0; i < line.size();) {
            if (i + 8 <= line.size() && eight_plain_bytes(line.data() + i)) {
                i += 8;
                continue;
            }
            std::string what;
            const size_t length = check_special(line, i, what);
            if (length == 0) {
                return {line_number, begin + i, std::move(what)};
            }
            i += length;
        }
        if (newline == nullptr) {
            return {line_number, text.size(),
                    "the file ends within a line; it may be cut short (want a newline at the end)"};
        }
        begin = end + 1;
    }
    return {};
}

}  // namespace apikeyd
