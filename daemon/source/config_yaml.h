// The daemon's configuration file.
//
//     instance: default            # 1 to 32 characters a-z0-9-
//     directory: /run/apikeyd
//     source: yaml:/etc/apikeyd/keys.yaml       # required
//     usage: sqlite:/var/lib/apikeyd/usage.db   # required
//     clients_group: apikey
//     operators_group: apikey-ops
//     log: {format: logfmt, level: info, file: /var/log/apikeyd.log}
//     audit_log: {format: logfmt, file: /var/log/apikeyd/audit.log}
//     reload: {debounce_ms: 100, poll_ms: 2000, max_loss_percent: 50}
//     snapshot: {file: /var/lib/apikeyd/keys.snapshot, max_age_h: 168}
//     retention: {minutes_h: 48, hours_d: 90, days_d: 3660}
//     flush_interval_ms: 1000
//     heartbeat_interval_ms: 1000
//     capacity: 0
//     event_loop: auto             # auto, io_uring, epoll
// Relative paths are relative to the file's own directory. Defaults and bounds: config.h.

#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "source/config.h"

namespace apikeyd {

/// `text` as the content of the configuration file `file`. All errors, one a line, each with
/// file:line:column.
Result<Config> parse_config(std::string_view text, const std::string& file);

/// Reads and parses the file at `path`. Touches nothing else: whether groups and directories exist is for the
/// daemon.
Result<Config> load_config(const std::string& path);

}  // namespace apikeyd
