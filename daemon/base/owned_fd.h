// A file descriptor that is closed when its owner goes.

#pragma once

#include <unistd.h>

#include <utility>

namespace apikeyd {

/// Sole owner of one file descriptor, or of none (-1). Not thread-safe; moving leaves the source empty.
class OwnedFd {
  public:
    OwnedFd() = default;
    explicit OwnedFd(int fd) : fd_(fd) {}
    OwnedFd(OwnedFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    OwnedFd& operator=(OwnedFd&& other) noexcept {
        if (this != &other) {
            reset(std::exchange(other.fd_, -1));
        }
        return *this;
    }
    OwnedFd(const OwnedFd&) = delete;
    OwnedFd& operator=(const OwnedFd&) = delete;
    ~OwnedFd() { reset(); }

    int get() const { return fd_; }
    bool is_open() const { return fd_ >= 0; }

    /// Closes what was owned. close() is not retried after EINTR: Linux has freed the number by then.
    void reset(int fd = -1) {
        if (fd_ >= 0) {
            ::close(fd_);
        }
        fd_ = fd;
    }

  private:
    int fd_ = -1;
};

}  // namespace apikeyd
