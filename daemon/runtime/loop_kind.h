// Which back end the event loop uses; apart from loop.h so that the configuration can name it.

#pragma once

namespace apikeyd {

enum class LoopKind {
    automatic,  ///< io_uring, or epoll where io_uring cannot be had
    io_uring,
    epoll,
};

}  // namespace apikeyd
