#include "tools/top/terminal.h"

#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>

#include "base/clock.h"
#include "base/file_io.h"

namespace apikeyd::top {

namespace {

// Alternate screen, no cursor, and nothing wraps; and back.
constexpr std::string_view kEnter = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
constexpr std::string_view kLeave = "\x1b[?7h\x1b[?25h\x1b[?1049l";
constexpr int kEnding[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF};
constexpr int kCrashes[] = {SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE, SIGSYS, SIGXCPU, SIGXFSZ};

// What a handler can reach.
termios cooked;
bool is_raw = false;
volatile sig_atomic_t entered = 0;

void enter() {
    is_raw = tcgetattr(STDIN_FILENO, &cooked) == 0;
    if (is_raw) {
        termios raw = cooked;
        raw.c_lflag &= static_cast<tcflag_t>(~(ICANON | ECHO));  // signals still come by Ctrl-C and Ctrl-Z
        raw.c_cc[VMIN] = 1;
        raw.c_cc[VTIME] = 0;
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    entered = 1;
    (void)write_all(STDOUT_FILENO, kEnter);
}

/// Safe in a signal handler.
void leave() {
    if (entered == 0) {
        return;
    }
    entered = 0;
    (void)write_all(STDOUT_FILENO, kLeave);
    if (is_raw) {
        tcsetattr(STDIN_FILENO, TCSANOW, &cooked);
    }
}

/// A segment that somebody truncated is a SIGBUS; the handler is reset, so the signal ends the process.
void on_crash(int signal) {
    leave();
    raise(signal);
}

sigset_t handled_signals() {
    sigset_t set;
    sigemptyset(&set);
    for (const int signal : kEnding) {
        sigaddset(&set, signal);
    }
    sigaddset(&set, SIGWINCH);
    sigaddset(&set, SIGTSTP);
    return set;
}

}  // namespace

Terminal::Terminal() {
    const sigset_t set = handled_signals();
    sigprocmask(SIG_BLOCK, &set, nullptr);
    signals_.reset(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    struct sigaction crash {};
    crash.sa_handler = on_crash;
    crash.sa_flags = static_cast<int>(SA_RESETHAND | SA_NODEFER);
    for (const int signal : kCrashes) {
        sigaction(signal, &crash, nullptr);
    }
    enter();
}

Terminal::~Terminal() {
    leave();
    for (const int signal : kCrashes) {
        ::signal(signal, SIG_DFL);
    }
    const sigset_t set = handled_signals();
    sigprocmask(SIG_UNBLOCK, &set, nullptr);
}

bool Terminal::usable() {
    const char* kind = getenv("TERM");
    return isatty(STDOUT_FILENO) == 1 && kind != nullptr && *kind != '\0' && std::string_view(kind) != "dumb";
}

Size Terminal::size() const {
    winsize now{};
    const bool told = ioctl(STDOUT_FILENO, TIOCGWINSZ, &now) == 0 && now.ws_col != 0 && now.ws_row != 0;
    return told ? Size{now.ws_col, now.ws_row} : Size{80, 24};
}

bool Terminal::draw(const std::vector<Line>& lines, bool colour) {
    // Each line is cleared before it is written: behind its last column there is nowhere to clear from. No
    // line feed follows the last one, which would scroll a full screen.
    const std::string text = "\x1b[H\x1b[K" + render(lines, colour, "\r\n\x1b[K");
    const bool full = lines.size() >= size().height;
    return write_all(STDOUT_FILENO, full ? text : text + "\r\n\x1b[J") == 0;
}

Terminal::Event Terminal::on_signal() {
    signalfd_siginfo info{};
    if (read(signals_.get(), &info, sizeof info) != static_cast<ssize_t>(sizeof info)) {
        return Event::kTime;
    }
    const int number = static_cast<int>(info.ssi_signo);
    if (number == SIGTSTP) {
        leave();
        kill(getpid(), SIGSTOP);  // until somebody lets it go on
        enter();
        return Event::kResize;
    }
    if (number == SIGWINCH) {
        return Event::kResize;
    }
    ended_by_ = number;
    return Event::kEnd;
}

Terminal::Event Terminal::wait(uint64_t until_ns) {
    for (;;) {
        const uint64_t now_ns = monotonic_now_ns();
        if (now_ns >= until_ns) {
            return Event::kTime;
        }
        pollfd files[] = {{signals_.get(), POLLIN, 0},
                          {reads_keys_ && is_raw ? STDIN_FILENO : -1, POLLIN, 0}};
        const int left_ms = static_cast<int>((until_ns - now_ns + 999'999) / 1'000'000);
        if (poll(files, 2, left_ms) < 0) {
            continue;  // EINTR, after SIGSTOP
        }
        if (files[0].revents != 0) {
            const Event event = on_signal();
            if (event != Event::kTime) {
                return event;
            }
        } else if (files[1].revents != 0) {
            if (read(STDIN_FILENO, &key_, 1) == 1) {
                return Event::kKey;
            }
            if ((files[1].revents & POLLHUP) != 0) {
                return Event::kEnd;
            }
            reads_keys_ = false;
        }
    }
}

}  // namespace apikeyd::top
