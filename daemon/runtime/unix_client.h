// One request to a daemon's Unix socket, and its answer.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

namespace apikeyd {

enum class RequestFailure {
    not_running,  ///< no socket, or nobody listens on it: nothing was sent
    forbidden,    ///< the socket's or its directory's mode forbids it: nothing was sent
    timeout,      ///< no answer in time: the daemon may have received the request, and may yet carry it out
    broken,       ///< the connection ended before a whole answer: as for timeout
    usage,        ///< the request or the path cannot be used: nothing was sent
};

struct RequestError {
    RequestFailure failure;
    std::string message;  ///< names the socket
};

/// An answer longer than this is refused.
constexpr std::size_t kAnswerBytesMax = std::size_t{256} << 20U;

/// Sends `line` (no line feed in it) and waits for the answering line, which comes back without its line
/// feed. Blocks for at most `timeout_ms` in all. Safe from any thread; raises no SIGPIPE.
tl::expected<std::string, RequestError> request(const std::string& socket_path, std::string_view line,
                                                std::int64_t timeout_ms);

}  // namespace apikeyd
