#include "bench/write_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "base/errno_text.h"
#include "base/file_io.h"
#include "base/owned_fd.h"

namespace apikey::bench {
namespace {

constexpr mode_t kReportMode = 0644;

}  // namespace

apikeyd::Result<void> write_file(const std::string& path, const std::string& text) {
    const std::string build = path + ".new";
    const auto failure = [&](int error) {
        unlink(build.c_str());
        return apikeyd::fail(build + ": " + apikeyd::errno_text(error));
    };
    apikeyd::OwnedFd file(open(build.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, kReportMode));
    if (!file.is_open()) {
        return apikeyd::fail(build + ": " + apikeyd::errno_text(errno));
    }
    if (const int error = apikeyd::write_all(file.get(), text); error != 0) {
        return failure(error);
    }
    if (rename(build.c_str(), path.c_str()) != 0) {
        return failure(errno);
    }
    return {};
}

}  // namespace apikey::bench
