// What top shows, as lines of text for a width and a height. Nothing here writes to a terminal.

#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "tools/top/model.h"

namespace apikeyd::top {

enum class Style : uint8_t { kPlain, kHead, kGood, kWarn, kBad };
struct Span {
    std::string text;
    Style style = Style::kPlain;
};
using Line = std::vector<Span>;

/// In columns and lines. A height of 0: as many lines as there is to say.
struct Size {
    size_t width;
    size_t height;
};

/// The lines for this size, none wider, not more than fit. `keys`: at most so many of them (0: as many as
/// fit).
std::vector<Line> lay_out(const View& view, Size size, size_t keys);

/// `text` in exactly `width` columns, cut or filled with blanks. What could steer a terminal becomes `?`:
/// control characters, marks that turn the direction of writing, and what is no UTF-8.
std::string fit(std::string_view text, size_t width);

/// The lines as text, with colours or without; before each but the first stands `between`, and after the
/// colours of one line nothing is left for the next.
std::string render(const std::vector<Line>& lines, bool colour, std::string_view between);

/// `0`, `0.25`, `12.5`, `1234`, `1.2M`
std::string rate_text(double per_s);
/// `450ms`, `12s`, `5m`, `3h`, `2d`
std::string duration_text(uint64_t ms);

}  // namespace apikeyd::top
