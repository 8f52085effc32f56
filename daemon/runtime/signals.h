// The signals a daemon answers to, as events of the loop.

#pragma once

#include <functional>
#include <memory>

#include "base/owned_fd.h"
#include "base/result.h"
#include "runtime/loop.h"

namespace apikeyd {

enum class Signal {
    reload,       ///< SIGHUP
    reopen_logs,  ///< SIGUSR1
    terminate,    ///< SIGTERM or SIGINT
};

/// Blocks those signals in the calling thread and ignores SIGPIPE in the process. main() calls it before it
/// starts any thread: threads inherit the mask, and a signal that one thread leaves open never reaches a
/// SignalWatch.
Result<void> block_daemon_signals();

/// Tells of signals through a signalfd on the loop. Belongs to the loop's thread; the loop outlives it.
///
/// A signal is a level, not a count: the kernel keeps one pending signal of a kind, and what arrived together
/// is told once. Of SIGHUP a caller may conclude only "the source is to be looked at, at some moment after
/// this call".
class SignalWatch {
  public:
    using Callback = std::function<void(Signal)>;

    /// block_daemon_signals() comes first. In one turn of the loop `callback` is called at most once for each
    /// kind, in the order of the enum. It must not destroy the SignalWatch.
    static Result<std::unique_ptr<SignalWatch>> create(Loop& loop, Callback callback);

    ~SignalWatch();
    SignalWatch(const SignalWatch&) = delete;
    SignalWatch& operator=(const SignalWatch&) = delete;

  private:
    SignalWatch(Loop& loop, OwnedFd fd, Callback callback);
    void read_signals();

    Loop& loop_;
    OwnedFd fd_;
    Callback callback_;
    WatchId watch_;
};

}  // namespace apikeyd
