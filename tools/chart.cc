#include "tools/chart.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <limits>
#include <string_view>

namespace apikeyd {

namespace {

constexpr size_t kRows = 10;
constexpr size_t kEighths = 8;
constexpr size_t kScaleWidth = 6;  // " 2.5k" and the axis
constexpr size_t kColumnWidthMax = 8;
constexpr int64_t kDay_s = 86400;
/// Lengths of time that people count in; beyond, in weeks.
constexpr int64_t kUsual_s[] = {60,   120,   300,   600,   900,   1200,   1800,       3600,
                                7200, 10800, 14400, 21600, 43200, kDay_s, 2 * kDay_s, 7 * kDay_s};
constexpr std::string_view kBlocks[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
constexpr std::string_view kGreen = "\x1b[32m";
constexpr std::string_view kRed = "\x1b[31m";
constexpr std::string_view kPlain = "\x1b[0m";

uint64_t saturating_sum(uint64_t a, uint64_t b) {
    return b > std::numeric_limits<uint64_t>::max() - a ? std::numeric_limits<uint64_t>::max() : a + b;
}

int64_t divided_up(int64_t value, int64_t by) {
    return (value + by - 1) / by;
}

/// The least usual length, of at least a step, by which the stretch finds room.
int64_t column_for(const ChartStretch& stretch, int64_t columns) {
    const int64_t length_s = stretch.until_s - stretch.since_s;
    for (const int64_t usual_s : kUsual_s) {
        if (usual_s >= stretch.step_s && divided_up(length_s, usual_s) <= columns) {
            return usual_s;
        }
    }
    return divided_up(divided_up(length_s, columns), 7 * kDay_s) * 7 * kDay_s;
}

/// The least of 1, 2, 3, 4, 6, 8, 10, 20, … that no bar is above.
double scale_for(uint64_t highest) {
    const auto wanted = static_cast<double>(highest);
    for (double ten = 1;; ten *= 10) {
        for (const double factor : {1.0, 2.0, 3.0, 4.0, 6.0, 8.0}) {
            if (factor * ten >= wanted) {
                return factor * ten;
            }
        }
    }
}

/// `250`, `2.5k`, `10M`.
std::string scale_text(double value) {
    size_t unit = 0;
    for (; value >= 1000; value /= 1000) {
        ++unit;
    }
    char text[32];
    std::snprintf(text, sizeof text, value == std::floor(value) ? "%.0f" : "%.1f", value);
    return text + (unit == 0 ? std::string() : std::string(1, " kMGTPEZ"[unit]));
}

std::string time_text(int64_t unix_s, const char* form) {
    const time_t time = unix_s;
    struct tm parts {};
    gmtime_r(&time, &parts);
    char text[32];
    return {text, strftime(text, sizeof text, form, &parts)};
}

/// Under a column: the date where it is another than at the label before.
std::string label_text(int64_t start_s, int64_t before_s, int64_t column_s) {
    if (column_s >= kDay_s) {
        const bool same_year = time_text(start_s, "%Y") == time_text(before_s, "%Y");
        return time_text(start_s, same_year ? "%m-%d" : "%Y-%m-%d");
    }
    return time_text(start_s, start_s / kDay_s == before_s / kDay_s ? "%H:%M" : "%m-%d %H:%M");
}

std::string length_text(int64_t length_s) {
    const int64_t unit_s = length_s % kDay_s == 0 ? kDay_s : length_s % 3600 == 0 ? 3600 : 60;
    const std::string name = unit_s == kDay_s ? "day" : unit_s == 3600 ? "hour" : "minute";
    const int64_t count = length_s / unit_s;
    return std::to_string(count) + ' ' + name + (count == 1 ? "" : "s");
}

void end_line(std::string& text) {
    text.erase(text.find_last_not_of(' ') + 1);
    text += '\n';
}

}  // namespace

Chart::Chart(const ChartStretch& stretch, const ChartStyle& style) : stretch_(stretch), style_(style) {
    style_.columns = std::max(style.columns, kChartColumnsMin);
    const auto room = static_cast<int64_t>(style_.columns - kScaleWidth);
    column_s_ = column_for(stretch, room);
    const int64_t count = divided_up(stretch.until_s - stretch.since_s, column_s_);
    columns_.resize(static_cast<size_t>(count));
    column_width_ = static_cast<size_t>(
        std::clamp(room / std::max<int64_t>(count, 1), int64_t{1}, static_cast<int64_t>(kColumnWidthMax)));
}

void Chart::add(int64_t start_s, uint64_t allowed, uint64_t denied) {
    Column& column = columns_[static_cast<size_t>((start_s - stretch_.since_s) / column_s_)];
    for (Column* sum : {&column, &sum_}) {
        sum->allowed = saturating_sum(sum->allowed, allowed);
        sum->denied = saturating_sum(sum->denied, denied);
    }
}

Chart::Drawn Chart::cell_of(const Column& column, size_t row, double scale) const {
    const auto allowed = static_cast<double>(column.allowed);
    const auto denied = static_cast<double>(column.denied);
    const auto eighths = static_cast<size_t>(std::ceil((allowed + denied) / scale * kRows * kEighths));
    const size_t cells = std::min((eighths + kEighths - 1) / kEighths, kRows);
    if (row >= cells) {
        return {};
    }
    // In proportion: what is less than half a cell is told by the legend alone, unless it is all there is.
    const auto rounded = static_cast<size_t>(std::llround(denied / scale * kRows));
    const size_t of_denied = allowed > 0 ? std::min(rounded, cells - 1) : cells;
    if (row >= cells - of_denied) {
        return {Cell::kDenied};
    }
    return {Cell::kAllowed,
            of_denied == 0 && style_.utf8 ? std::min(eighths - row * kEighths, kEighths) : kEighths};
}

std::string Chart::paint(const Drawn& drawn) const {
    const std::string_view one = drawn.cell == Cell::kNothing  ? " "
                                 : drawn.cell == Cell::kDenied ? (style_.utf8 ? "░" : "x")
                                 : style_.utf8                 ? kBlocks[drawn.eighths]
                                                               : "#";
    const size_t gap = column_width_ > 1 ? 1 : 0;
    std::string text;
    for (size_t i = 0; i < column_width_ - gap; ++i) {
        text += one;
    }
    if (style_.colour && drawn.cell != Cell::kNothing) {
        text = std::string(drawn.cell == Cell::kDenied ? kRed : kGreen) + text + std::string(kPlain);
    }
    return text.append(gap, ' ');
}

std::string Chart::row_text(size_t row, double scale) const {
    // A label stands at the upper end of its row.
    const bool half =
        row + 1 == kRows / 2 && (scale >= 10 || std::fmod(scale, 2) == 0);  // else it is no whole number
    const std::string label = row + 1 == kRows ? scale_text(scale) : half ? scale_text(scale / 2) : "";
    std::string text(kScaleWidth - 2 - label.size(), ' ');
    text += label + ' ' + (style_.utf8 ? "│" : "|");
    for (const Column& column : columns_) {
        text += paint(cell_of(column, row, scale));
    }
    end_line(text);
    return text;
}

std::string Chart::axis() const {
    std::string labels(kScaleWidth, ' ');
    std::string line = std::string(kScaleWidth - 3, ' ') + "0 " + (style_.utf8 ? "└" : "+");
    int64_t before_s = std::numeric_limits<int32_t>::min();
    size_t drawn = 0;
    for (size_t i = 0; i < columns_.size(); ++i) {
        const size_t at = kScaleWidth + i * column_width_;
        const int64_t start_s = stretch_.since_s + static_cast<int64_t>(i) * column_s_;
        const std::string label = label_text(start_s, before_s, column_s_);
        const bool labelled = (drawn == 0 || at >= labels.size() + 2) && at + label.size() <= style_.columns;
        if (labelled) {
            labels.append(at - labels.size(), ' ').append(label);
            before_s = start_s;
            ++drawn;
        }
        for (size_t place = 0; place < column_width_; ++place) {
            const bool tick = labelled && place == 0;
            line += style_.utf8 ? (tick ? "┬" : "─") : (tick ? "+" : "-");
        }
    }
    return line + '\n' + labels + '\n';
}

std::string Chart::title(const std::string& counted) const {
    const bool days = stretch_.step_s == kDay_s;
    const std::string step = length_text(stretch_.step_s).substr(2);
    const char* form = days ? "%Y-%m-%d" : "%Y-%m-%d %H:%M";
    return counted + " by " + step +
           (column_s_ != stretch_.step_s ? ", " + length_text(column_s_) + " a column" : "") + '\n' +
           time_text(stretch_.since_s, form) + " to " + time_text(stretch_.until_s, form) + " UTC\n";
}

std::string Chart::legend(const std::string& counted, bool with_denied) const {
    if (!with_denied) {
        return counted + ' ' + std::to_string(sum_.allowed) + '\n';
    }
    const std::string allowed = "allowed " + std::to_string(sum_.allowed);
    const std::string denied = "denied " + std::to_string(sum_.denied);
    const bool one_line = allowed.size() + denied.size() + 7 <= style_.columns;
    return (style_.utf8 ? "█ " : "# ") + allowed + (one_line ? "   " : "\n") + (style_.utf8 ? "░ " : "x ") +
           denied + '\n';
}

std::string Chart::format(const std::string& counted, bool with_denied) const {
    if (sum_.allowed == 0 && sum_.denied == 0) {
        return title(counted) + "nothing was counted\n";
    }
    uint64_t highest = 0;
    for (const Column& column : columns_) {
        highest = std::max(highest, saturating_sum(column.allowed, column.denied));
    }
    const double scale = scale_for(highest);
    std::string text = title(counted);
    for (size_t row = kRows; row-- > 0;) {
        text += row_text(row, scale);
    }
    return text + axis() + legend(counted, with_denied);
}

}  // namespace apikeyd
