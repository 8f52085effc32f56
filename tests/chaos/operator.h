// Who does everything to a daemon and its clients that may be done, in an order drawn from a seed, and says
// after each what clients may be answered from then on.

#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "clients.h"
#include "limited_keys.h"
#include "support/daemon_process.h"
#include "support/key_board.h"
#include "support/key_book.h"
#include "support/site.h"

namespace apikeyd::test {

struct Happened {
    uint64_t kills = 0;         ///< of the daemon
    uint64_t reloads = 0;       ///< of changed key sets
    uint64_t switches = 0;      ///< generations that were seen to follow another
    uint64_t revocations = 0;   ///< by the tool
    uint64_t tool_changes = 0;  ///< all of the tool's, told done or not
    uint64_t refused_sets = 0;
    uint64_t daemon_stops = 0;
    uint64_t client_stops = 0;
    uint64_t client_deaths = 0;
    uint64_t spoilt_cells = 0;
    uint64_t plan_changes = 0;
    uint64_t store_locks = 0;
    uint64_t audits = 0;  ///< comparisons of the store's totals with the tallies
};

/// What may happen: all of it, or what bears on counts: above all SIGKILL, of the daemon and of clients.
enum class Mix : uint8_t { kEverything, kKills };

class Operator {
  public:
    Operator(unsigned keys, unsigned seed, Mix mix);

    void begin();
    /// One event, whole: what is expected afterwards stands on the board.
    void step();
    /// Compares all totals, while nobody calls.
    void audit();
    /// After this, no process of it is left.
    void end();

    const Happened& happened() const { return happened_; }
    uint64_t validations() const { return board_.validations(); }
    uint64_t violations() const { return board_.violations() + told_.size() + limits_.ledger().violations(); }
    const LimitedKeys& limits() const { return limits_; }
    /// What went wrong since the last call, a line each.
    std::vector<std::string> new_violations();

  private:
    bool chance(unsigned percent) { return book_.random() % 100 < percent; }
    void pause_up_to(unsigned ms);
    void violation(const std::string& what) { told_.push_back(what); }
    size_t pick(const std::function<bool(const BookedKey&)>& wanted);

    void reload();
    void next_generation();
    void change_by_tool();
    void kill_daemon();
    void stop_daemon();
    void kill_client();
    void stop_client();
    void refused_set();
    void change_plan();
    void spoil_cells();
    void lock_store();

    void change_set();
    void change_one();
    void hang_up_and_maybe_kill();
    void restart_daemon();
    void settle();
    bool run_tool(const std::string& arguments, std::string* output);
    void change_state(const char* verb, size_t key, KeyState state);
    void issue_or_rotate(const std::string& arguments, size_t rotated);
    void truncate_or_scribble(const std::string& cells, bool truncate);
    Totals totals_in_a_pause();

    Site site_;
    LimitedKeys limits_;
    KeyBoard board_;
    KeyBook book_;
    DaemonProcess daemon_;
    Clients clients_;
    unsigned keys_;
    Mix mix_;
    unsigned version_ = 1;
    uint32_t generation_ = 0;
    Happened happened_;
    std::vector<std::string> told_;
    size_t given_ = 0;        ///< of told_
    size_t given_board_ = 0;  ///< of the board's
};

}  // namespace apikeyd::test
