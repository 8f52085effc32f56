// The points of a process at which it can be killed, or a system call of it be made to fail: each store into
// shared memory (override/shm/atomics.h) and each system call (system_calls.cc), in the order in which they
// come.
//
// A process meets none before arm(). The threads of an armed process take turns, so that the order is the
// same in each run.

#pragma once

#include <atomic>
#include <cstdint>

#include "tests/support/call_place.h"

namespace apikey::crash {

enum class Kind : uint8_t {
    kStore,
    kChange,  ///< a system call after which files are others than before
    kWrite,   ///< such a one that can also be done by half
    kLook,    ///< a system call that leaves no trace when the process is killed
};

/// Where a point is: `shm/table_writer.cc:240`, `pwrite usage.db-wal`.
struct Place {
    char text[112];
    Kind kind;
};

struct Point {
    uint16_t place;
    uint8_t step;
};

inline constexpr uint32_t kPlacesMax = 1024;
inline constexpr uint32_t kPointsMax = 1 << 17;
inline constexpr uint32_t kNowhere = UINT32_MAX;

/// What an armed process met. In memory that it shares with who armed it, zeroed.
struct Record {
    std::atomic<uint32_t> points;
    std::atomic<uint32_t> places;
    std::atomic<uint32_t> done_at;  ///< index + 1 of the point at which the order was carried out; 0: not yet
    Place place[kPlacesMax];
    Point sequence[kPointsMax];
};

enum class Fate : uint8_t {
    kNone,
    kKill,
    kKillHalfway,  ///< when half of a write is done
    kFail,         ///< the system call fails with `error`
    kHalf,         ///< the read or write does half of what it was asked
};

/// What is to happen at the point with this index. All points before it are only counted.
struct Order {
    uint32_t at = kNowhere;
    Fate fate = Fate::kNone;
    int error = 0;
};

/// From here on this process meets points. `whole_record`: with places and sequence, else only what the order
/// meets. `record` outlives the process.
void arm(Record* record, const Order& order, bool whole_record);
/// From here on it is the same moment of CLOCK_REALTIME in each run, and time runs on from it: what a flush
/// writes depends on whether a minute has ended.
void start_clock();
/// Nanoseconds to add to CLOCK_MONOTONIC; 0: nobody started the clock.
int64_t clock_offset_ns();
/// Processes of one run draw other random bytes than each other, and the same in each run.
void seed_random(uint64_t seed);
uint64_t next_random();
/// Which part of the scenario the points to come belong to.
void set_step(uint8_t step);
/// True once the order was carried out, in this process.
bool order_met();
/// Of the place at which it was carried out: the file that the failed call was about.
const char* file_met();

enum class Part : uint8_t { kBefore, kHalf };
void store_point(const test::CallPlace& where, Part part = Part::kBefore);

enum class Answer : uint8_t { kDo, kFail, kHalf, kHalfAndDie };
struct CallAnswer {
    Answer answer;
    int error;
};
/// A system call on `file` (its last name; empty: none).
CallAnswer call_point(const char* call, const char* file, Kind kind);
[[noreturn]] void die();

}  // namespace apikey::crash
