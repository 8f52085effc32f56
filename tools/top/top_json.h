// What top shows, as JSON for machines; the names and types are stable.

#pragma once

#include <string>

#include "tools/top/model.h"

namespace apikeyd::top {

/// One object on one line, line feed included.
std::string json_line(const View& view, size_t keys);

}  // namespace apikeyd::top
