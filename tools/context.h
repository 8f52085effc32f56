// What the options that all verbs share come to: which store, which instance, which form of output.

#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "protocol/admin_protocol.h"
#include "source/config.h"
#include "tools/outcome.h"
#include "tools/output.h"

namespace apikeyd {

class KeySet;

/// Looks at a key set while nobody else changes it, before it is changed; what it refuses leaves all as it
/// was.
using CheckSet = std::function<Outcome(KeySet& set)>;

inline constexpr const char* kConfigDefault = "/etc/apikeyd/apikeyd.yaml";

/// As given on the command line; empty: not given.
struct GlobalOptions {
    std::string config_path;
    std::string store;  ///< see store_name.h
    std::string directory;
    std::string instance;
    OutputForm output = OutputForm::table;
};

/// Other operators may hold a store's lock, waiting for a daemon that builds a generation.
inline constexpr uint32_t kLockWait_ms = 150'000;
/// Time limits for an answer of the daemon. A change may have to wait for a new generation of the table to be
/// built; a reload for the source to be parsed.
inline constexpr int64_t kStatusWait_ms = 10'000;
inline constexpr int64_t kApplyWait_ms = 120'000;
inline constexpr int64_t kReloadWait_ms = 1'800'000;

/// Read once at the start; changes nothing. Not thread-safe.
class Context {
  public:
    explicit Context(GlobalOptions options);

    [[nodiscard]] OutputForm output() const { return options_.output; }

    /// The configuration file's path, its content when it could be used, and the reason when it could not.
    [[nodiscard]] const std::string& config_path() const { return config_path_; }
    [[nodiscard]] const std::optional<Config>& config() const { return config_; }
    [[nodiscard]] const std::string& config_error() const { return config_error_; }

    /// The key set: --store, else what the configuration says.
    [[nodiscard]] tl::expected<StoreName, Failure> store() const;
    /// The usage store's file, by the configuration.
    [[nodiscard]] tl::expected<std::string, Failure> usage_path() const;
    /// The base directory of instances and the instance: the options, else the configuration, else what a
    /// server without options would open.
    [[nodiscard]] const std::string& directory() const { return directory_; }
    [[nodiscard]] const std::string& instance() const { return instance_; }
    /// True when the directory is the caller's own by default and nobody named it: then it must belong to the
    /// caller, since anyone may make one of that name.
    [[nodiscard]] bool own_directory() const;
    [[nodiscard]] std::string instance_directory() const { return directory_ + '/' + instance_; }
    [[nodiscard]] std::string socket_path() const { return instance_directory() + "/admin.sock"; }

    /// The same for somebody else, of whom the audit log is to tell beside the caller; at most
    /// kBehalfBytesMax bytes.
    [[nodiscard]] Context on_behalf_of(std::string whom) const;
    /// The same for who serves many: none of them is to wait longer for whoever is changing the store, nor
    /// for other hosts.
    [[nodiscard]] Context waiting_at_most(uint32_t wait_ms) const;
    /// The same for who may change keys by what these keys say themselves.
    [[nodiscard]] Context checked_by(CheckSet check) const;
    [[nodiscard]] uint32_t wait_ms_max() const { return wait_ms_max_.value_or(kLockWait_ms); }
    [[nodiscard]] Outcome check(KeySet& set) const { return check_ ? check_(set) : Outcome(); }
    [[nodiscard]] const std::string& whom() const { return whom_; }

    /// Fails when a configuration was named and cannot be used: the daemon's place is not known then.
    [[nodiscard]] Outcome check_config() const;

    /// The daemon's answer line; when there is none, why, with Exit::kUnreachable.
    [[nodiscard]] tl::expected<std::string, Failure> ask(const AdminRequest& request, int64_t wait_ms) const;
    [[nodiscard]] tl::expected<DaemonStatus, Failure> ask_status() const;

  private:
    GlobalOptions options_;
    std::string config_path_;
    std::optional<Config> config_;
    std::string config_error_;
    std::string directory_;
    std::string instance_;
    std::string whom_;  // empty: nobody else
    std::optional<uint32_t> wait_ms_max_;
    CheckSet check_;  // empty: none
};

/// Unix seconds now.
int64_t now_s();

}  // namespace apikeyd
