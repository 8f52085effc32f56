// The bytes of a configuration or key set text, checked before any parser sees them.

#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace apikeyd {

struct TextFault {
    size_t line = 1;    ///< from 1
    size_t offset = 0;  ///< of the offending byte
    std::string what;   ///< empty: nothing is wrong
};

/// The first reason not to give `text` to a YAML parser: a line of more than `line_bytes_max` bytes, invalid
/// UTF-8, a NUL or another character that YAML does not allow (yaml-cpp takes 0x04 for the end of the text,
/// which would drop all keys behind it), a byte order mark other than at the start, a carriage return without
/// a newline, a last line without a newline (what a truncated file looks like). One pass, stops at the first
/// fault.
TextFault check_text(std::string_view text, size_t line_bytes_max);

/// Bytes of the UTF-8 byte order mark at the start of `text`: 3 or 0.
size_t byte_order_mark_length(std::string_view text);

/// Offset behind the quoted YAML scalar whose opening quote stands at `begin`; npos when it is never closed.
size_t quoted_scalar_end(std::string_view text, size_t begin);

}  // namespace apikeyd
