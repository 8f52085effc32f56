// Counts by time as bars in a terminal.
//
// Steps that find no column of their own are joined, as many as make a usual length of time; the title says
// how many. A bar is as high as its column's sum, allowed below and denied above; what is not nothing is
// never invisible.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace apikeyd {

struct ChartStyle {
    size_t columns = 80;  ///< of the terminal; below kChartColumnsMin it is taken for that
    bool utf8 = false;    ///< block elements; else ASCII
    bool colour = false;  ///< says nothing that the characters do not
};
inline constexpr size_t kChartColumnsMin = 24;

struct ChartStretch {
    int64_t step_s;   ///< a minute, an hour, a day
    int64_t since_s;  ///< both at the start of a step
    int64_t until_s;  ///< not before `since_s`
};

class Chart {
  public:
    Chart(const ChartStretch& stretch, const ChartStyle& style);

    /// Counts in the step that begins at `start_s`, which lies in the stretch. Sums stop at 2^64 - 1.
    void add(int64_t start_s, uint64_t allowed, uint64_t denied);
    /// All of it, line feeds included. `counted` is what the bars are of; `denied` is left out of the legend
    /// where it is none.
    [[nodiscard]] std::string format(const std::string& counted, bool with_denied) const;

  private:
    struct Column {
        uint64_t allowed = 0;
        uint64_t denied = 0;
    };
    /// What of a bar stands in one cell.
    enum class Cell : uint8_t { kNothing, kAllowed, kDenied };
    struct Drawn {
        Cell cell = Cell::kNothing;
        size_t eighths = 8;
    };

    [[nodiscard]] Drawn cell_of(const Column& column, size_t row, double scale) const;
    [[nodiscard]] std::string row_text(size_t row, double scale) const;
    [[nodiscard]] std::string paint(const Drawn& drawn) const;
    [[nodiscard]] std::string axis() const;
    [[nodiscard]] std::string title(const std::string& counted) const;
    [[nodiscard]] std::string legend(const std::string& counted, bool with_denied) const;

    ChartStretch stretch_;
    ChartStyle style_;
    int64_t column_s_;     ///< the time that a column stands for
    size_t column_width_;  ///< in characters, the gap behind it included
    std::vector<Column> columns_;
    Column sum_;
};

}  // namespace apikeyd
