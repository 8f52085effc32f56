// What top tells of an instance, and how two looks at its counters become rates. Values only: nothing here
// reads shared memory or writes to a terminal.

#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "shm/attach_result.h"
#include "shm/layout.h"

namespace apikeyd::top {

using CodeCounts = std::array<uint64_t, apikey::shm::kCodesMax>;

/// The host's totals by verdict code in one generation, at one moment.
struct GenerationCounts {
    uint32_t number = 0;
    CodeCounts codes{};
};

/// Where the daemon and its table stand. Times are Unix nanoseconds; 0: never.
struct Health {
    apikey::shm::ControlState state{};
    uint64_t heartbeat_ns = 0;
    uint64_t pid = 0;
    uint64_t started_ns = 0;
    uint64_t loaded_ns = 0;
    uint64_t refused = 0;  ///< loads since the last one that was accepted
    uint64_t flushed_ns = 0;
    uint32_t generation = 0;
    uint32_t next = 0;         ///< announced; 0: none
    uint64_t generations = 0;  ///< whose files stand in the directory
    uint64_t slots = 0;
    uint64_t live = 0;
    uint64_t dead = 0;
    /// Keys whose counts may wait for a flush, at most: a mark in shared memory is for several.
    uint64_t unflushed_max = 0;
    std::optional<uint64_t> mappings = {};  ///< of tables, by servers; not known without /proc/locks
};

/// One look at an instance. Where `attached` is not kOk nothing else says anything but the times.
struct Look {
    apikey::shm::AttachResult attached = apikey::shm::AttachResult::kWaiting;
    uint64_t monotonic_ns = 0;
    uint64_t realtime_ns = 0;
    std::array<uint8_t, apikey::shm::kUidLength> instance{};
    std::vector<GenerationCounts> generations;
    uint32_t newest = 0;  ///< the highest number of a generation in the directory
    Health health;
};

/// Why the rates of a look are not those of one unchanged table.
enum class RateNote : uint8_t {
    kNone,
    kFirst,       ///< nothing to compare with
    kReplaced,    ///< another instance stands there, or the files were away meanwhile
    kGeneration,  ///< counting went on in another generation; the rates hold for both
};

struct CodeRates {
    RateNote note = RateNote::kFirst;
    double seconds = 0;  ///< between the looks; 0: there are no rates
    double total = 0;
    std::array<double, apikey::shm::kCodesMax> by_code{};
};

/// Validations a second between two looks. A generation that came since counts from 0, one that was there
/// and could not be read from when it first was. Counters that fell, as only a scribbler makes them, count
/// nothing, and what they rise by at most kPlausible_per_s: a rate is never negative and never absurd.
CodeRates rates_between(const std::optional<Look>& before, const Look& after);

/// No host validates more; what says so was scribbled.
inline constexpr double kPlausible_per_s = 1e10;
/// `count` in this time, as a rate; 0 where it is not plausible.
double plausible_rate(uint64_t count, double seconds);

struct KeyRate {
    std::string id;
    std::string owner;
    std::string plan;
    std::string name;
    double allowed = 0;  ///< a second
    double denied = 0;
};
enum class Sort : uint8_t { kTotal, kAllowed, kDenied };
/// The busiest first; those of the same id, in several generations, become one. At most `count` are left.
void keep_busiest(std::vector<KeyRate>* keys, Sort sort, size_t count);
double sort_value(const KeyRate& key, Sort sort);

/// A limit of which more than kNearShare is used.
struct LimitUse {
    std::string id;     ///< of the key; empty: the owner's keys share it
    std::string owner;  ///< may be empty for a key
    std::string limit;
    bool rate = false;
    bool shadow = false;
    double used = 0;  ///< share, 0 to 1
    uint64_t allowance = 0;
    uint64_t remaining = 0;
    uint64_t reset_ms = 0;
};
inline constexpr double kNearShare = 0.8;

/// What a walk over all cells found.
struct Activity {
    double seconds = 0;   ///< since the walk before; 0: there are no rates
    uint64_t active = 0;  ///< keys that were counted since
    std::vector<KeyRate> keys;
    uint64_t near = 0;             ///< limits, of which these are the nearest:
    std::vector<LimitUse> limits;  ///< the most used first
};

/// When the cells are walked again. The walk reads each of them, so its cost grows with the table: it may
/// take kWalkShare of one CPU, and is made less often than the screen is drawn where it would take more.
class WalkPace {
  public:
    static constexpr double kWalkShare = 0.02;

    bool due(uint64_t monotonic_ns) const { return monotonic_ns >= next_ns_; }
    void walked(uint64_t began_ns, uint64_t cpu_ns) {
        next_ns_ = began_ns + static_cast<uint64_t>(static_cast<double>(cpu_ns) / kWalkShare);
    }

  private:
    uint64_t next_ns_ = 0;
};

/// What is shown.
struct View {
    std::string instance;  ///< its directory
    Look look;
    CodeRates codes;
    Activity activity;
    Sort sort = Sort::kTotal;
};

/// The daemon in one word: serving, starting, stopped, superseded, or silent where the heartbeat is too old.
const char* daemon_word(const Look& look);
/// Milliseconds between two moments; 0 where the clock was set back.
uint64_t age_ms(uint64_t then_ns, uint64_t now_ns);
/// How often servers have mapped a table, of which these are device and inode, by /proc/locks: each mapping
/// holds a read lock.
uint64_t count_mappings(const std::string& locks, uint64_t device, uint64_t inode);

}  // namespace apikeyd::top
