// The daemon as a whole: what hangs on its loop, and in which order it starts and ends.

#pragma once

#include "base/result.h"
#include "source/config.h"

namespace apikeyd {

/// Runs until SIGTERM or SIGINT, then flushes, marks the table stopped and returns; the files stay, so that
/// clients go on. An error means that the daemon could not start or had to give up; what was serving goes on
/// serving. Call once, on the main thread, before any other thread is started.
Result<void> run_daemon(const Config& config);

}  // namespace apikeyd
