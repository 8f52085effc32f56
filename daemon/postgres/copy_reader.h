// Rows as COPY sends them. Private to daemon/postgres.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "postgres/connection.h"

namespace apikeyd {

/// Takes the binary format of COPY apart as it comes. The server sends a row a piece, the header with the
/// first, but the protocol promises no such thing.
class CopyReader {
  public:
    enum class Outcome : uint8_t { kMore, kEnough, kDamaged };

    explicit CopyReader(size_t columns) : fields_(columns) {}

    /// kEnough: `row` wants no more.
    Outcome take(std::string_view piece, const PostgresConnection::CopyRow& row);
    /// Whether the end has come, and nothing behind it.
    [[nodiscard]] bool is_whole() const { return ended_ && kept_.empty(); }

  private:
    enum class Read : uint8_t { kShort, kDamaged, kHeader, kRow, kEnd };

    /// The next `length` bytes; nullopt when they are not all there yet.
    std::optional<std::string_view> next(size_t length);
    Read read_header();
    Read read_row();

    std::vector<std::optional<std::string_view>> fields_;
    std::string_view rest_;  // while take() runs
    std::string kept_;       // the begin of what has not come whole
    bool in_header_ = true;
    bool ended_ = false;
};

}  // namespace apikeyd
