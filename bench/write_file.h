// Figures as a file for programs.

#pragma once

#include <string>

#include "base/result.h"

namespace apikey::bench {

/// Writes `text` to `path`, mode 0644; nothing half-written stays under the name.
apikeyd::Result<void> write_file(const std::string& path, const std::string& text);

}  // namespace apikey::bench
