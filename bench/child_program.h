// Other programs of the same build, run beside a measurement.

#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace apikey::bench {

/// Where a program is in the build that this one is of, by its name there, as in daemon/apikeyd. Throws
/// RunEnded where it is missing.
std::string built_program(const std::string& name);

/// Ends with this process, and with this object. Not thread-safe.
class ChildProgram {
  public:
    /// `command`: its path, then its arguments. `log` is added to with what it says. Throws RunEnded.
    ChildProgram(std::vector<std::string> command, const std::string& log);
    /// SIGKILL to what still runs, and reaps.
    ~ChildProgram();
    ChildProgram(const ChildProgram&) = delete;
    ChildProgram& operator=(const ChildProgram&) = delete;

    /// The exit status, once it has ended; 128 and the signal when one ended it.
    std::optional<int> ended();

  private:
    pid_t pid_;
    std::optional<int> status_;
};

}  // namespace apikey::bench
