// HTTP/1.1 on a Unix socket and, with or without TLS, on TCP. Knows nothing of keys. Asio and Beast take long
// to compile, so http_server.cc alone includes them.
//
// What a peer may cost is bounded: kConnectionsMax connections on each listener, of which a new one displaces
// the one that has owed its request longest; a header of kHeaderBytesMax, a body of kBodyBytesMax; kTimeout_s
// for a request to come whole, and as much for its answer to be taken.

#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/owned_fd.h"
#include "base/result.h"
#include "source/config.h"
#include "tools/door/http_message.h"

namespace apikeyd {

inline constexpr size_t kConnectionsMax = 64;  // on each listener
inline constexpr size_t kHeaderBytesMax = size_t{8} * 1024;
inline constexpr size_t kBodyBytesMax = size_t{64} * 1024;
inline constexpr int kTimeout_s = 30;
inline constexpr unsigned kHandlers = 4;  // requests that are answered at once; others wait

struct HttpServerOptions {
    OwnedFd unix_listener;  ///< listens; non-blocking
    DoorConfig tcp;         ///< no address: none
    /// Answers a request, on one of kHandlers threads, and may block. Throws nothing.
    std::function<HttpAnswer(const HttpRequest&)> handler;
    std::function<void()> every_second;
    /// Once, when connections are taken; with the address of the TCP listener, or "".
    std::function<void(const std::string& tcp)> on_ready;
    /// What goes on without anybody's request: a certificate that could not be read again, a listener that
    /// cannot accept.
    std::function<void(const std::string& event, const std::string& reason)> on_problem;
};

/// Serves until SIGTERM or SIGINT; SIGHUP reads certificate and key again. Then takes no more connections,
/// finishes what was asked, and returns. Call it from the main thread, before which no other was started.
Result<void> serve_http(HttpServerOptions options);

}  // namespace apikeyd
