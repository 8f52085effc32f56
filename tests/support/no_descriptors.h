// A process that has reached its limit of open files.

#pragma once

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

namespace apikey::test {

/// No descriptor can be opened while this lives, but for the first `left`.
class NoDescriptors {
  public:
    explicit NoDescriptors(unsigned left = 0) {
        getrlimit(RLIMIT_NOFILE, &before_);
        rlimit limit{0, before_.rlim_max};
        for (; left > 0; ++limit.rlim_cur) {
            left -= fcntl(static_cast<int>(limit.rlim_cur), F_GETFD) == -1 ? 1 : 0;
        }
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    ~NoDescriptors() { setrlimit(RLIMIT_NOFILE, &before_); }
    NoDescriptors(const NoDescriptors&) = delete;
    NoDescriptors& operator=(const NoDescriptors&) = delete;

  private:
    rlimit before_{};
};

}  // namespace apikey::test
