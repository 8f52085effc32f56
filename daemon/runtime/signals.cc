#include "runtime/signals.h"

#include <fmt/core.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "base/errno_text.h"

namespace apikeyd {
namespace {

sigset_t daemon_signals() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    return set;
}

}  // namespace

Result<void> block_daemon_signals() {
    struct sigaction ignore {};
    ignore.sa_handler = SIG_IGN;
    if (::sigaction(SIGPIPE, &ignore, nullptr) != 0) {
        return fail(fmt::format("signals: cannot ignore SIGPIPE: {}", errno_text(errno)));
    }
    const sigset_t set = daemon_signals();
    if (const int error_number = ::pthread_sigmask(SIG_BLOCK, &set, nullptr); error_number != 0) {
        return fail(fmt::format("signals: cannot block them: {}", errno_text(error_number)));
    }
    return {};
}

Result<std::unique_ptr<SignalWatch>> SignalWatch::create(Loop& loop, Callback callback) {
    const sigset_t set = daemon_signals();
    OwnedFd fd(::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
    if (!fd.is_open()) {
        return fail(fmt::format("signals: signalfd: {}", errno_text(errno)));
    }
    std::unique_ptr<SignalWatch> signals(new SignalWatch(loop, std::move(fd), std::move(callback)));
    auto watch = loop.watch(signals->fd_.get(), Interest::readable,
                            [raw = signals.get()](Ready) { raw->read_signals(); });
    if (!watch) {
        return tl::unexpected<Error>(watch.error());
    }
    signals->watch_ = *watch;
    return signals;
}

SignalWatch::SignalWatch(Loop& loop, OwnedFd fd, Callback callback)
    : loop_(loop), fd_(std::move(fd)), callback_(std::move(callback)) {}

SignalWatch::~SignalWatch() {
    loop_.unwatch(watch_);
}

void SignalWatch::read_signals() {
    bool reload = false;
    bool reopen_logs = false;
    bool terminate = false;
    std::array<signalfd_siginfo, 8> batch;
    while (true) {
        // A signalfd answers whole records only.
        const ssize_t bytes = ::read(fd_.get(), batch.data(), sizeof(batch));
        if (bytes < 0 && errno == EINTR) {
            continue;
        }
        if (bytes <= 0) {
            break;
        }
        const std::size_t count = static_cast<std::size_t>(bytes) / sizeof(signalfd_siginfo);
        for (std::size_t i = 0; i < count; ++i) {
            reload = reload || batch[i].ssi_signo == SIGHUP;
            reopen_logs = reopen_logs || batch[i].ssi_signo == SIGUSR1;
            terminate = terminate || batch[i].ssi_signo == SIGTERM || batch[i].ssi_signo == SIGINT;
        }
    }
    if (reload) {
        callback_(Signal::reload);
    }
    if (reopen_logs) {
        callback_(Signal::reopen_logs);
    }
    if (terminate) {
        callback_(Signal::terminate);
    }
}

}  // namespace apikeyd
