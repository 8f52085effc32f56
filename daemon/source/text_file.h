// What the source and the configuration share about files: bounded reading, and the words for what went
// wrong.

#pragma once

#include <sys/stat.h>

#include <string>
#include <string_view>

#include "base/result.h"

namespace apikeyd {

/// `path: cannot <doing>: <reason of errno>`.
Error file_error(std::string_view path, std::string_view doing, int error_number);

/// The whole content of a regular file of at most `bytes_max` bytes; symbolic links are followed. `status`
/// receives what fstat says of the very file that was read. Never blocks on a FIFO.
Result<std::string> read_text_file(const std::string& path, size_t bytes_max, struct stat* status = nullptr);

}  // namespace apikeyd
