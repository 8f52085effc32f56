// A directory in memory for as long as files have to have names.

#pragma once

#include <signal.h>

#include <string>

namespace apikey::bench {

/// Signals that would end the program wait while one exists, so that it always goes. Not for two at a time.
/// Ends the program with a message when the directory cannot be made.
class TemporaryDirectory {
  public:
    TemporaryDirectory();
    ~TemporaryDirectory();
    TemporaryDirectory(const TemporaryDirectory&) = delete;
    TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
    const std::string& path() const { return path_; }

  private:
    std::string path_;
    sigset_t before_;
};

}  // namespace apikey::bench
