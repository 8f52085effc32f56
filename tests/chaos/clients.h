// The client processes of chaos: servers of four kinds that validate, and what is done to them.

#pragma once

#include <sys/types.h>

#include <vector>

#include "limited_keys.h"
#include "support/key_board.h"
#include "support/site.h"

namespace apikeyd::test {

enum class ClientKind : unsigned {
    kPlain,    ///< two threads, single calls and batches
    kKept,     ///< the same, and a housekeeping that calls apikey_refresh()
    kForking,  ///< the same, and it forks children that validate
    kPassing,  ///< one thread that opens and closes all the time
};
inline constexpr unsigned kClientKinds = 4;
/// Two threads and a forked child.
inline constexpr unsigned kLanesPerClient = 3;

/// One process of each kind. A process and its children are a process group of their own.
class Clients {
  public:
    /// The first `stable` keys of the board are valid all the time.
    Clients(const Site& site, KeyBoard& board, LimitedKeys& limits, size_t stable)
        : site_(site), board_(board), limits_(limits), stable_(stable), pids_(kClientKinds, -1) {}
    ~Clients();
    Clients(const Clients&) = delete;
    Clients& operator=(const Clients&) = delete;

    void start_all();
    /// SIGKILL for it and its children, and another one in its place.
    void replace(unsigned client);
    void replace_all();
    /// SIGSTOP and SIGCONT.
    void halt(unsigned client) const;
    void go_on(unsigned client) const;
    /// Replaces those that have ended by themselves, and tells how: wait statuses.
    std::vector<int> replace_ended();
    /// Tells all to end, and waits. Returns the wait statuses other than 0.
    std::vector<int> end_all();

  private:
    void start(unsigned client);
    void reap(unsigned client);

    const Site& site_;
    KeyBoard& board_;
    LimitedKeys& limits_;
    size_t stable_;
    std::vector<pid_t> pids_;
    unsigned started_ = 0;
};

}  // namespace apikeyd::test
