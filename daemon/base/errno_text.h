// The words for an errno, for error messages.

#pragma once

#include <cstring>
#include <string>

namespace apikeyd {

/// "No such file or directory" for ENOENT. Safe from any thread, unlike strerror().
inline std::string errno_text(int error_number) {
    const char* text = ::strerrordesc_np(error_number);
    return text != nullptr ? std::string(text) : "error " + std::to_string(error_number);
}

}  // namespace apikeyd
