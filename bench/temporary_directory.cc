#include "bench/temporary_directory.h"

#include <cstdio>
#include <cstdlib>
#include <filesystem>

namespace apikey::bench {

TemporaryDirectory::TemporaryDirectory() : path_("/dev/shm/apikeyd-bench-XXXXXX") {
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &ends, &before_);
    if (mkdtemp(path_.data()) == nullptr) {
        std::perror("cannot make a directory under /dev/shm");
        std::exit(1);
    }
}

TemporaryDirectory::~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

}  // namespace apikey::bench
