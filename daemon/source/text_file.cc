#include "source/text_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "base/file_io.h"
#include "base/owned_fd.h"

namespace apikeyd {

Error file_error(std::string_view path, std::string_view doing, int error_number) {
    return {std::string(path) + ": cannot " + std::string(doing) + ": " +
            std::generic_category().message(error_number)};
}

Result<std::string> read_text_file(const std::string& path, size_t bytes_max, struct stat* status) {
    const OwnedFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (!file.is_open()) {
        return tl::unexpected(file_error(path, "open", errno));
    }
    struct stat st {};
    if (fstat(file.get(), &st) != 0) {
        return tl::unexpected(file_error(path, "examine", errno));
    }
    if (!S_ISREG(st.st_mode)) {
        return fail(path + ": no regular file (want a text file)");
    }
    const auto too_long = [&] {
        return fail(path + ": more than " + std::to_string(bytes_max) + " bytes (the limit)");
    };
    if (st.st_size < 0 || static_cast<uintmax_t>(st.st_size) > bytes_max) {
        return too_long();
    }
    constexpr size_t kChunk = size_t{64} << 10;
    std::string text;
    text.resize(static_cast<size_t>(st.st_size) + 1);  // one more: the read that finds the end
    size_t used = 0;
    for (;;) {
        const size_t wanted = text.size() - used;
        const ssize_t got = read_all(file.get(), text.data() + used, wanted);
        if (got < 0) {
            return tl::unexpected(file_error(path, "read", errno));
        }
        used += static_cast<size_t>(got);
        if (used > bytes_max) {
            return too_long();
        }
        if (static_cast<size_t>(got) < wanted) {
            break;
        }
        text.resize(used + kChunk);  // it has grown since
    }
    text.resize(used);
    if (status != nullptr) {
        *status = st;
    }
    return text;
}

}  // namespace apikeyd
