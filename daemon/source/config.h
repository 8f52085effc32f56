// What the daemon is told by its configuration file.

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "runtime/log_format.h"
#include "runtime/loop_kind.h"
#include "shm/instance_place.h"
#include "source/store_name.h"

namespace apikeyd {

/// Bounds and defaults, each stated here and nowhere else.
inline constexpr std::size_t kInstanceBytesMax = 32;
inline constexpr uint32_t kDebounceDefault_ms = 100, kDebounceMin_ms = 0, kDebounceMax_ms = 60'000;
inline constexpr uint32_t kPollDefault_ms = 2'000, kPollMin_ms = 100, kPollMax_ms = 3'600'000;
inline constexpr uint32_t kLossDefault_percent = 50, kLossMin_percent = 0, kLossMax_percent = 100;
inline constexpr uint32_t kFlushDefault_ms = 1'000, kFlushMin_ms = 10, kFlushMax_ms = 600'000;
inline constexpr uint32_t kMinutesDefault_h = 48, kMinutesMin_h = 1, kMinutesMax_h = 87'600;
inline constexpr uint32_t kHoursDefault_d = 90, kHoursMin_d = 1, kHoursMax_d = 36'600;
inline constexpr uint32_t kDaysDefault_d = 3'660, kDaysMin_d = 1, kDaysMax_d = 36'600;
inline constexpr uint32_t kHeartbeatDefault_ms = 1'000, kHeartbeatMin_ms = 10, kHeartbeatMax_ms = 60'000;
inline constexpr uint32_t kDenialsDefault = 10, kDenialsMin = 1, kDenialsMax = 1'000;  // a second
inline constexpr uint32_t kSnapshotAgeDefault_h = 168, kSnapshotAgeMin_h = 1, kSnapshotAgeMax_h = 87'600;
inline constexpr uint64_t kCapacityMax_keys = 1'000'000'000;

struct LogConfig {
    LogFormat format = LogFormat::logfmt;
    LogLevel level = LogLevel::info;
    std::string file;  ///< absolute; empty: standard error
};

/// Of the audit log and the denial log.
struct SideLogConfig {
    LogFormat format = LogFormat::logfmt;
    std::string file;  ///< absolute; empty: none is kept
};

struct DenialLogConfig : SideLogConfig {
    uint32_t per_second = kDenialsDefault;  ///< lines of each verdict code
};

struct ReloadConfig {
    uint32_t debounce_ms = kDebounceDefault_ms;  ///< from the first sign of a change to reading the source
    uint32_t poll_ms = kPollDefault_ms;          ///< between looks at the source where notices are silent
    uint32_t max_loss_percent =
        kLossDefault_percent;  ///< a set that loses more keys is refused unless forced
};

/// How long counts by time are kept.
struct RetentionConfig {
    uint32_t minutes_h = kMinutesDefault_h;
    uint32_t hours_d = kHoursDefault_d;
    uint32_t days_d = kDaysDefault_d;
};

/// What the source said last, for a start without it.
struct SnapshotConfig {
    std::string file;                            ///< absolute; empty: none is kept
    uint32_t max_age_h = kSnapshotAgeDefault_h;  ///< one that is older is not used
};

/// Where the admin door (tools/door/) listens besides its Unix socket.
struct DoorConfig {
    std::string address;      ///< of an interface, IPv4 or IPv6; empty: not on TCP
    uint16_t port = 0;        ///< 0: any that is free
    bool tls = true;          ///< false only on a loopback address
    std::string certificate;  ///< absolute, of a PEM file; with its chain
    std::string key;          ///< absolute, of a PEM file
};

struct Config {
    std::string instance = apikey::shm::kInstanceDefault;
    std::string host;             ///< what a fleet calls this host; empty: as the kernel does
    std::string directory;        ///< absolute; the segments stand in directory/instance
    StoreName source;             ///< its place absolute
    std::string usage_path;       ///< absolute, of the SQLite usage store
    std::string clients_group;    ///< name; empty: the daemon's own group
    std::string operators_group;  ///< name; empty: the daemon's own group
    LogConfig log;
    SideLogConfig audit_log;
    DenialLogConfig denial_log;
    ReloadConfig reload;
    SnapshotConfig snapshot;
    RetentionConfig retention;
    DoorConfig door;
    uint32_t flush_interval_ms = kFlushDefault_ms;
    uint32_t heartbeat_interval_ms = kHeartbeatDefault_ms;
    uint64_t capacity_keys = 0;  ///< room that each table has at least; 0: by what is loaded
    LoopKind event_loop = LoopKind::automatic;

    /// Where each field that was given stands: `log.file` -> `file:line:column`.
    std::map<std::string, std::string, std::less<>> places;
    /// The field with its place, to begin an error with: `file:line:column: field`, or `field (default)`.
    [[nodiscard]] std::string named(std::string_view field) const;
};

/// What a new instance may be called: it becomes the name of a directory. Narrower than what may be opened,
/// see apikey::shm::is_plain_name().
bool is_instance_name(std::string_view name);

}  // namespace apikeyd
