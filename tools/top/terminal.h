// The terminal as a full screen: raw input, the alternate screen, and everything as it was afterwards.

#pragma once

#include <cstdint>
#include <string>

#include "base/owned_fd.h"
#include "tools/top/layout.h"

namespace apikeyd::top {

/// From construction to destruction standard output's terminal shows the alternate screen, and standard
/// input, where that is a terminal, gives single keys. At most one lives at a time. Signals that end a
/// process restore the terminal first, also those of a crash; only SIGKILL cannot.
class Terminal {
  public:
    enum class Event : uint8_t {
        kTime,    ///< nothing happened until then
        kResize,  ///< also when the process was stopped and goes on
        kKey,     ///< key() tells which
        kEnd,     ///< a signal, or the terminal went away; ended_by() tells which signal
    };

    Terminal();
    ~Terminal();
    Terminal(const Terminal&) = delete;
    Terminal& operator=(const Terminal&) = delete;

    /// True where a full screen makes sense: standard output is a terminal that knows more than lines.
    static bool usable();

    /// As it is now; 80 x 24 where it does not tell.
    Size size() const;
    /// Puts the lines in place of what is shown. False when the terminal went away.
    bool draw(const std::vector<Line>& lines, bool colour);
    /// Waits until `until_ns` of CLOCK_MONOTONIC, or an event.
    Event wait(uint64_t until_ns);

    char key() const { return key_; }
    int ended_by() const { return ended_by_; }

  private:
    Event on_signal();

    OwnedFd signals_;
    bool reads_keys_ = true;
    char key_ = 0;
    int ended_by_ = 0;
};

}  // namespace apikeyd::top
