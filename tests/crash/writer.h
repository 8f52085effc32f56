// The daemon's parts as daemon.cc puts them together, without signals, timers and the operators' door: each
// operation is asked for, and over when the call returns.

#pragma once

#include <functional>
#include <memory>
#include <semaphore>
#include <string>
#include <vector>

#include "core/denial_log.h"
#include "core/flusher.h"
#include "core/reloader.h"
#include "runtime/loop.h"

namespace apikey::crash {

/// Where everything of one run stands.
struct Site {
    std::string path;
    std::string base() const { return path + "/run"; }
    std::string instance() const { return base() + "/default"; }
    std::string source() const { return path + "/keys.yaml"; }
    std::string store() const { return path + "/usage.db"; }
    std::string log() const { return path + "/log"; }
    std::string denials() const { return path + "/denials"; }
};

/// One change of the source that the tool sends after it: the source's texts around it.
struct Sent {
    std::vector<apikeyd::Change> changes;
    std::string before;
    std::string after;
};

/// Not thread-safe. Operations answer as the daemon would: what it tells the tool, or logs.
class Writer {
  public:
    /// Starts the loop and the workers; throws when the machine has none.
    explicit Writer(const Site& site);
    ~Writer();

    /// Takes the instance and the store. After a failure it may be called again.
    apikeyd::Result<void> open();
    /// Reads the source.
    apikeyd::Result<void> load();
    /// What the daemon answers to changes, once it does.
    struct Told {
        bool told = false;
        apikeyd::Result<void> outcome;
    };
    /// Sends the tool's changes; those that find room are answered at once.
    std::shared_ptr<Told> send(const Sent& sent);
    apikeyd::Result<void> await(const std::shared_ptr<Told>& answer);
    apikeyd::Result<void> apply(const Sent& sent) { return await(send(sent)); }
    /// The same for changes that need a build: `meanwhile`, which may not throw, runs when it was asked for
    /// and has not begun. A load that is asked for meanwhile begins when the answer was given.
    apikeyd::Result<void> apply_with_build(const Sent& sent, const std::function<void()>& meanwhile);
    apikeyd::Result<void> flush();
    /// Writes what servers were denied, and begins another second.
    void tell_denials();
    /// Tries once to harvest what nobody maps; true when nothing superseded is left.
    bool harvest();
    void serve();
    void beat();
    /// Ends as the daemon does: the last flush, then everything is let go of.
    apikeyd::Result<void> stop();

    apikeyd::Publisher& publisher() { return *publisher_; }

  private:
    /// The builder does nothing else until the result is released.
    std::shared_ptr<std::binary_semaphore> hold_builder();
    void run_until(const std::function<bool()>& done);
    void run_until_told(const bool& told);

    Site site_;
    std::unique_ptr<apikeyd::Log> log_;
    std::unique_ptr<apikeyd::Loop> loop_;
    std::unique_ptr<apikeyd::Worker> builder_;  ///< the loader too, so that the two take turns
    std::unique_ptr<apikeyd::Worker> flush_worker_;
    std::unique_ptr<apikeyd::Publisher> publisher_;
    std::unique_ptr<apikeyd::Reloader> reloader_;
    std::unique_ptr<apikeyd::Flusher> flusher_;
    std::unique_ptr<apikeyd::DenialLog> denials_;
};

}  // namespace apikey::crash
