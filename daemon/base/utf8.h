// Text that came from elsewhere, character by character: what is well-formed, and what no reader should be
// given.

#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace apikeyd {

/// Length in bytes of the well-formed UTF-8 sequence at the start of `text`, its code point in `code_point`;
/// 0 when there is none (Unicode 15, table 3-7: no overlong forms, no surrogates).
inline size_t utf8_sequence(std::string_view text, char32_t& code_point) {
    if (text.empty()) {
        return 0;
    }
    const auto at = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned lead = at(0);
    if (lead < 0x80) {
        code_point = lead;
        return 1;
    }
    const size_t length = lead >= 0xC2 && lead <= 0xDF   ? 2
                          : lead >= 0xE0 && lead <= 0xEF ? 3
                          : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                         : 0;
    if (length == 0 || text.size() < length) {
        return 0;
    }
    // Only the second byte has narrower bounds: they exclude overlong forms, surrogates and what is past
    // U+10FFFF.
    const unsigned second_min = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    const unsigned second_max = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (at(1) < second_min || at(1) > second_max) {
        return 0;
    }
    char32_t value = lead & (0xFFu >> (length + 1));
    for (size_t i = 1; i < length; ++i) {
        if ((at(i) & 0xC0u) != 0x80) {
            return 0;
        }
        value = value << 6 | (at(i) & 0x3Fu);
    }
    code_point = value;
    return length;
}

/// Appends a code point that is no surrogate.
inline void append_utf8(std::string& out, char32_t code_point) {
    const auto add = [&](char32_t byte) { out += static_cast<char>(static_cast<unsigned char>(byte)); };
    const auto tail = [&](unsigned shift) { add(0x80 | ((code_point >> shift) & 0x3F)); };
    if (code_point < 0x80) {
        add(code_point);
    } else if (code_point < 0x800) {
        add(0xC0 | (code_point >> 6));
        tail(0);
    } else if (code_point < 0x10000) {
        add(0xE0 | (code_point >> 12));
        tail(6);
        tail(0);
    } else {
        add(0xF0 | (code_point >> 18));
        tail(12);
        tail(6);
        tail(0);
    }
}

/// True for C0, DEL, C1 and the Unicode line and paragraph separators: what no name may hold.
inline bool is_control(char32_t code_point) {
    return code_point < 0x20 || (code_point >= 0x7F && code_point < 0xA0) || code_point == 0x2028 ||
           code_point == 0x2029;
}

/// True when `text` holds a control character, or is not UTF-8.
inline bool has_control(std::string_view text) {
    while (!text.empty()) {
        char32_t code_point = 0;
        const size_t length = utf8_sequence(text, code_point);
        if (length == 0 || is_control(code_point)) {
            return true;
        }
        text.remove_prefix(length);
    }
    return false;
}

/// True for controls and for the marks that turn the direction of writing, which make a line read as another:
/// what is not written raw to a terminal or a log.
inline bool misleads(char32_t code_point) {
    return is_control(code_point) || code_point == 0x061C || code_point == 0x200E || code_point == 0x200F ||
           (code_point >= 0x202A && code_point <= 0x202E) || (code_point >= 0x2066 && code_point <= 0x2069);
}

}  // namespace apikeyd
