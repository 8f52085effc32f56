// What the tool and the daemon say to each other on the admin socket: one JSON object a line, one answer a
// request.
//
//   {"verb":"status"}
//   {"verb":"reload","force":false}
//   {"verb":"flush"}
//   {"verb":"apply","before":"<hex>","after":"<hex>","changes":[{"op":"upsert","row":{…}},{"op":"remove","row":{…}}]}
//   {"verb":"apply",…,"on_behalf_of":"key 2RkT9pQwX4Za"}
//   {"verb":"apply",…,"policies":[{"op":"upsert","plan":{…}},{"op":"remove","owner":{…}},{"op":"upsert","scope":"…"}]}
//
// Answers: {"ok":true,…} or {"ok":false,"error":"<one or more lines for people>"}. No plaintext key ever
// travels here.

#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/hex.h"  // the form of digests and fingerprints on the wire
#include "base/result.h"
#include "core/change.h"
#include "source/fingerprint.h"

namespace apikeyd {

/// Whom the peer of an apply acts for, in its own words: `key 2RkT9pQwX4Za`.
inline constexpr size_t kBehalfBytesMax = 64;

struct StatusRequest {};
struct FlushRequest {};
struct ReloadRequest {
    bool force = false;
};
/// Changes that are durable in the source already, of keys or of what stands beside them. The hashes are the
/// source's before and after.
struct ApplyRequest {
    Fingerprint before{};
    Fingerprint after{};
    std::vector<Change> changes = {};
    std::vector<PolicyChange> policies = {};  ///< then there are no changes
    std::string on_behalf_of = {};            ///< for the audit log; empty: of the peer's own accord
};
using AdminRequest = std::variant<StatusRequest, ReloadRequest, FlushRequest, ApplyRequest>;

/// The line for a request, without its line feed.
std::string format_request(const AdminRequest& request);
/// Errors name the field. Nothing of the line is repeated in them.
Result<AdminRequest> parse_request(std::string_view line);

/// {"ok":false,"error":…}
std::string format_failure(std::string_view error);

struct ReloadAnswer {
    bool unchanged = false;
    uint64_t keys = 0;
    uint64_t added = 0;
    uint64_t updated = 0;
    uint64_t removed = 0;
};
std::string format_reload_answer(const ReloadAnswer& answer);
/// The daemon's error, when it answered with one.
Result<ReloadAnswer> parse_reload_answer(std::string_view line);

/// What an apply is answered with: {"ok":true,"learned_ns":…}. The time, of CLOCK_MONOTONIC, is the one at
/// which the daemon had read the request, for those who measure how long a change took to be in force.
std::string format_applied(uint64_t learned_ns);
/// The time, or the daemon's error.
Result<uint64_t> parse_applied(std::string_view line);

/// {"ok":true}
std::string format_done();
/// Success, or the daemon's error.
Result<void> parse_done(std::string_view line);

struct SupersededStatus {
    uint32_t generation = 0;
    uint64_t bytes = 0;
};
/// What the daemon says of itself.
struct DaemonStatus {
    uint64_t pid = 0;
    std::string version;
    uint64_t started_s = 0;
    std::string instance;
    std::string directory;
    std::string source;
    std::string usage;
    std::string event_loop;
    uint32_t generation = 0;
    bool building = false;
    uint64_t keys = 0;
    uint64_t slots = 0;
    uint64_t dead = 0;
    uint64_t bytes = 0;
    uint64_t huge_bytes = 0;  ///< of `bytes`, backed by 2 MiB pages
    std::vector<SupersededStatus> superseded;
    uint64_t unread = 0;  ///< generations of another layout, which no change reaches
    uint64_t position = 0;
    std::string fingerprint;  ///< hex; empty while unknown
    uint64_t loaded_s = 0;
    std::string load_error;         ///< why the last load was refused; empty when it was not
    std::string snapshot;           ///< its path; empty where none is kept
    uint64_t snapshot_taken_s = 0;  ///< what is in force is of it, and of then; 0: it is of the source
    std::string snapshot_problem;   ///< why it could not be written; empty when it could
    uint64_t flushed_s = 0;
    std::string flush_error;
    std::string
        usage_send_error;  ///< why the fleet's database lacks what was counted; empty when it does not
    uint64_t quarantined = 0;
    std::string watch_problem;    ///< why the source is only polled
    uint64_t log_dropped = 0;     ///< lines that could not be logged, and that the log does not tell of yet
    std::string audit_problem;    ///< why the last line of the audit log was lost; empty when it was not
    std::string denials_problem;  ///< of the denial log
};
std::string format_status(const DaemonStatus& status);
Result<DaemonStatus> parse_status(std::string_view line);

}  // namespace apikeyd
