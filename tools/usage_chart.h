// What the usage store has of a stretch of time, as a chart to standard output.

#pragma once

#include <optional>
#include <string>

#include "tools/key_groups.h"
#include "tools/outcome.h"
#include "usage/usage_reader.h"

namespace apikeyd {

/// Whose counts are drawn: one key's by `stretch.key_id`, those of `keys`, one code's, or the host's, for
/// which every answer but VALID is a denial.
struct ChartQuestion {
    RollupQuery stretch;
    const KeyGroups* keys = nullptr;
    std::optional<uint8_t> code = std::nullopt;
};

/// Holds a number a column of the terminal.
Outcome print_chart(UsageReader& reader, const ChartQuestion& question);

}  // namespace apikeyd
