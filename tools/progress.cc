#include "tools/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "base/file_io.h"

namespace apikeyd {

namespace {

constexpr size_t kBarMin = 4;
constexpr size_t kBarMax = 40;
constexpr int64_t kFirst_ms = 300;
constexpr int64_t kInterval_ms = 100;
constexpr std::string_view kEraseToEnd = "\x1b[K";

int64_t now_ms() {
    using namespace std::chrono;
    return duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count();
}

size_t columns_of_terminal() {
    struct winsize size {};
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col != 0 ? size.ws_col : 80;
}

/// What cannot be drawn is no error of the work.
void draw(std::string_view text) {
    (void)write_all(STDERR_FILENO, text);
}

}  // namespace

std::string progress_line(const ProgressState& state, size_t columns) {
    const uint64_t done = state.total != 0 ? std::min(state.done, state.total) : state.done;
    const auto rate = static_cast<uint64_t>(static_cast<double>(done) * 1000 /
                                            static_cast<double>(std::max<int64_t>(state.elapsed_ms, 1)));
    std::string head = std::string(state.what) + " " + std::to_string(done);
    std::string tail = " " + std::to_string(rate) + "/s";
    if (state.total == 0) {
        return head + tail;
    }
    const double share = static_cast<double>(done) / static_cast<double>(state.total);
    head += " of " + std::to_string(state.total);
    tail = " " + std::to_string(static_cast<unsigned>(share * 100)) + "%" + tail;
    // A column stays free, so that no terminal goes on to the next line.
    const size_t taken = head.size() + tail.size() + 4;
    const size_t width = columns > taken ? std::min(columns - taken, kBarMax) : 0;
    if (width >= kBarMin) {
        const auto filled = static_cast<size_t>(share * static_cast<double>(width));
        head += " [" + std::string(filled, '#') + std::string(width - filled, '.') + "]";
    }
    return head + tail;
}

Progress::Progress(std::string what, uint64_t total, bool wanted)
    : what_(std::move(what)),
      total_(total),
      shown_(wanted && isatty(STDERR_FILENO) == 1),
      start_ms_(now_ms()),
      next_ms_(start_ms_ + kFirst_ms) {}

Progress::~Progress() {
    if (drawn_) {
        draw(std::string("\r").append(kEraseToEnd));
    }
}

void Progress::at(uint64_t done) {
    if (!shown_) {
        return;
    }
    const int64_t now = now_ms();
    if (now < next_ms_) {
        return;
    }
    next_ms_ = now + kInterval_ms;
    drawn_ = true;
    draw("\r" +
         progress_line({what_, done, total_, now - start_ms_}, columns_of_terminal()).append(kEraseToEnd));
}

void Progress::at(uint64_t done, uint64_t total) {
    total_ = total;
    at(done);
}

}  // namespace apikeyd
