// How far a long piece of work is: a line on standard error, where that is a terminal, and only there.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace apikeyd {

/// What a line tells.
struct ProgressState {
    std::string_view what;  ///< of what so many are done: `keys`
    uint64_t done = 0;
    uint64_t total = 0;  ///< 0: not known
    int64_t elapsed_ms = 0;
};

/// `keys 250000 of 1000000 [#####...............] 25% 83333/s`, the bar as wide as `columns` leave room for
/// and the rest always there; without a total no bar. ASCII, no line feed.
std::string progress_line(const ProgressState& state, size_t columns);

/// The line, drawn anew ten times a second at most and not before a moment has passed; the end takes it away.
/// Nothing else may be written to standard error meanwhile. One thread.
class Progress {
  public:
    /// `wanted`: false for one that is never shown.
    explicit Progress(std::string what, uint64_t total = 0, bool wanted = true);
    ~Progress();
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;

    /// So many are done; cheap.
    void at(uint64_t done);
    /// The same where the total is known only now.
    void at(uint64_t done, uint64_t total);

  private:
    std::string what_;
    uint64_t total_;
    bool shown_;
    bool drawn_ = false;
    int64_t start_ms_;
    int64_t next_ms_;
};

}  // namespace apikeyd
