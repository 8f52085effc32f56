// A real apikeyd for tests: started, killed, stopped and awaited by pid.

#pragma once

#include <sys/types.h>

#include <string>

namespace apikeyd::test {

/// Starts the binary that the environment's APIKEYD names (meson sets it). One process at a time; the
/// destructor kills what still runs. Failures of the machine throw std::runtime_error. Not thread-safe.
class DaemonProcess {
  public:
    /// `config` is the path of a configuration file. Standard error goes to `<config>.stderr`.
    explicit DaemonProcess(std::string config) : config_(std::move(config)) {}
    ~DaemonProcess();
    DaemonProcess(const DaemonProcess&) = delete;
    DaemonProcess& operator=(const DaemonProcess&) = delete;

    /// Starts without waiting for it to be ready.
    void start();
    /// SIGKILL, and reaps.
    void kill9();
    /// SIGTERM, and waits for the end; returns the exit status (128 + signal when one killed it).
    int terminate();
    /// Waits for the end it comes to by itself.
    int wait();
    pid_t pid() const { return pid_; }

    /// Waits until the admin socket answers (the first load is over). Throws when the daemon ends or patience
    /// does.
    void wait_ready();
    /// Sends one request line to the admin socket and returns the answer.
    std::string request(const std::string& line) const;
    std::string stderr_path() const { return config_ + ".stderr"; }

  private:
    std::string socket_path() const;

    std::string config_;
    pid_t pid_ = -1;
};

}  // namespace apikeyd::test
