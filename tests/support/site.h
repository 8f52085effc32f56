// A place of its own for a real daemon: configuration, key set, usage store and run directory under /dev/shm,
// and the tool that operates it.
//
// Failures of the machine throw std::runtime_error. Not thread-safe, but for tool().

#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <utility>

#include "apikey/apikey.h"

namespace apikeyd::test {

/// How long a test waits for what must come; what hangs ends, a busy machine with sanitizers does not.
inline constexpr std::chrono::seconds kPatience{60};

/// Looks every millisecond. False when patience ended first.
bool await(const std::function<bool()>& condition);

/// A key with its plaintext, as only tests keep it.
struct PlainKey {
    std::string text;
    std::string id;
    std::string sha256;  ///< hexadecimal

    static PlainKey of(const std::string& text);
    /// Its row in a key set, with a line's end; `more` as `, state: revoked`.
    std::string row(const std::string& more = "", const std::string& owner = "test") const;
};

/// A native key of the environment `test`; the same random numbers give the same key.
PlainKey draw_key(std::minstd_rand& random);

/// What the tool tells of the usage store.
struct Totals {
    struct Key {
        uint64_t allowed = 0;
        uint64_t denied = 0;
    };
    std::map<std::string, Key> by_id;
    std::map<std::string, uint64_t> by_code;
};

class Site {
  public:
    /// `more` are lines for the configuration file.
    explicit Site(const std::string& more = "");
    ~Site();
    Site(const Site&) = delete;
    Site& operator=(const Site&) = delete;

    std::string path(const std::string& name) const { return directory_ + "/" + name; }
    std::string config() const { return path("apikeyd.yaml"); }
    std::string keys() const { return path("keys.yaml"); }
    std::string run() const { return path("run"); }
    /// A file of the instance, as `table.7`.
    std::string segment(const std::string& name) const { return run() + "/default/" + name; }

    /// Replaces the file, whole.
    void write(const std::string& name, const std::string& text) const;
    std::string read(const std::string& name) const;
    /// Replaces the key set by these rows.
    void write_keys(const std::string& rows) const { write("keys.yaml", "version: 1\nkeys:\n" + rows); }

    struct Ran {
        int status;
        std::string output;  ///< standard output
    };
    /// Runs the program that the environment's APIKEYCTL names.
    Ran tool(const std::string& arguments) const;
    /// After a flush.
    Totals totals() const;

    /// Waits until the daemon says that the key set, as it stands now, is in force. Returns the generation.
    uint32_t await_applied() const;

    /// Opens a client of this site's instance.
    apikey_client* open_client(uint32_t stale_after_ms = 0,
                               apikey_stale_policy policy = APIKEY_STALE_SERVE) const;
    /// The end of what the daemon logged and said.
    std::string last_words() const;

  private:
    std::string directory_;
};

}  // namespace apikeyd::test
