// The two ways to wait, known to make_loop() only.

#pragma once

#include <memory>

#include "runtime/loop.h"

namespace apikeyd {

/// A loop, or the errno of what the kernel refused and the step that it refused.
struct RingRefused {
    int error_number;
    const char* step;
};

tl::expected<std::unique_ptr<Loop>, RingRefused> make_uring_loop();
Result<std::unique_ptr<Loop>> make_epoll_loop();

}  // namespace apikeyd
