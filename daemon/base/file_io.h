// Reading and writing whole, for blocking descriptors: signals and short transfers are met here.

#pragma once

#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <string_view>

namespace apikeyd {

/// Reads until there are `bytes`, or the file ends. How many were read, or -1 with errno.
inline ssize_t read_all(int fd, char* to, std::size_t bytes) {
    std::size_t have = 0;
    while (have < bytes) {
        const ssize_t got = ::read(fd, to + have, bytes - have);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return -1;
        }
        if (got == 0) {
            break;
        }
        have += static_cast<std::size_t>(got);
    }
    return static_cast<ssize_t>(have);
}

/// Writes all of `text`; 0 or an errno.
inline int write_all(int fd, std::string_view text) {
    while (!text.empty()) {
        const ssize_t put = ::write(fd, text.data(), text.size());
        if (put < 0) {
            if (errno == EINTR) {
                continue;
            }
            return errno;
        }
        text.remove_prefix(static_cast<std::size_t>(put));
    }
    return 0;
}

}  // namespace apikeyd
