// Comma-separated values as RFC 4180 has them.

#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace apikeyd {

/// One record after the other of a text that must live as long. Lines end in LF or CRLF, also in the last
/// record; a line break inside of quotes belongs to the field. Empty lines are no records.
class CsvReader {
  public:
    explicit CsvReader(std::string_view text) : text_(text) {}

    /// nullopt at the end. The error says what is wrong in the record that begins in line().
    Result<std::optional<std::vector<std::string>>> next();
    /// From 1: where the record that next() gave begins.
    [[nodiscard]] size_t line() const { return line_; }

  private:
    Result<std::string> field();
    [[nodiscard]] bool at_line_end() const;
    void end_line();

    std::string_view text_;
    size_t at_ = 0;
    size_t line_ = 0;
    size_t next_line_ = 1;
};

}  // namespace apikeyd
