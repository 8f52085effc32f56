// Bytes as hexadecimal digits, and back.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace apikeyd {

/// Appends two lower-case digits a byte.
inline void append_hex(std::string& text, std::span<const uint8_t> bytes) {
    constexpr char kDigits[] = "0123456789abcdef";
    for (const uint8_t byte : bytes) {
        text += kDigits[byte >> 4];
        text += kDigits[byte & 15];
    }
}

inline std::string to_hex(std::span<const uint8_t> bytes) {
    std::string text;
    text.reserve(2 * bytes.size());
    append_hex(text, bytes);
    return text;
}

/// What a digit of either case is worth; -1 for any other character.
constexpr int hex_digit_value(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    const char lower = static_cast<char>(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/// Fills `bytes` from two digits each, and from nothing more. False when `text` is not just that; what
/// `bytes` holds is nothing to go by then.
inline bool from_hex(std::string_view text, std::span<uint8_t> bytes) {
    if (text.size() != 2 * bytes.size()) {
        return false;
    }
    for (size_t i = 0; i < bytes.size(); ++i) {
        const int high = hex_digit_value(text[2 * i]);
        const int low = hex_digit_value(text[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        bytes[i] = static_cast<uint8_t>(high << 4 | low);
    }
    return true;
}

}  // namespace apikeyd
