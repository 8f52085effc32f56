// What the duties of `serving` share: what is asked for, what each hands back, and how a run ends early.

#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bench/exit_status.h"
#include "bench/histogram.h"
#include "bench/key_stream.h"
#include "bench/tick_clock.h"

namespace apikey::bench {

struct ServingOptions {
    uint64_t keys = 1'000'000;
    double seconds = 0.3;      ///< of each timed stretch, and between two flushes
    uint32_t repetitions = 3;  ///< of what is not one event after the other
    uint32_t switches = 20;    ///< generations published in the first case of `switch`
    /// In the table of `switch`; fewer than `keys`, since so many generations are built there.
    uint64_t switch_keys = 250'000;
    uint64_t store_keys = 100'000;  ///< in the database of `store`
    uint32_t revocations = 1000;    ///< there, of each kind
    std::string store_directory = "/var/tmp";
};

/// One line of figures. Units stand in the names.
struct FigureRow {
    std::string what;
    std::vector<std::pair<const char*, double>> figures;
};

struct FigureTable {
    const char* name;  ///< as programs call it
    std::string title;
    std::vector<FigureRow> rows;
};

/// Ends the run; what was made is cleaned up on the way to main().
class RunEnded : public std::runtime_error {
  public:
    RunEnded(Exit exit, const std::string& reason) : std::runtime_error(reason), exit_(exit) {}
    Exit exit() const { return exit_; }

  private:
    Exit exit_;
};

// The duties, each in a file of its own; its header comment says what is measured and how. They throw
// RunEnded.
std::vector<FigureTable> measure_switch(const ServingOptions& options);
std::vector<FigureTable> measure_hot(const ServingOptions& options);
std::vector<FigureTable> measure_pair(const ServingOptions& options);
std::vector<FigureTable> measure_build(const ServingOptions& options);
std::vector<FigureTable> measure_sweep(const ServingOptions& options);
std::vector<FigureTable> measure_load(const ServingOptions& options);
std::vector<FigureTable> measure_store(const ServingOptions& options);

/// One in so many keys is a victim: it may be revoked, and so is in no stream.
inline constexpr uint64_t kKeysPerVictim = 16;

/// Valid keys of a table with `keys` keys, drawn uniformly, none of them a victim; where `unknown_one_in` is
/// not 0, one in so many is of no table instead. Long enough that a large table does not stay in the caches
/// from one round to the next.
KeyStream make_stream(uint64_t keys, uint32_t unknown_one_in = 0);

/// For people: "key 17 was answered NOT_FOUND, right is VALID", after what was going on.
std::string wrong_words(const char* when, const std::string& key, apikey_code code, const char* right);

/// The value in the middle, of an even number the lower one; 0 of none.
double median(std::vector<double> values);
/// The values a quarter from both ends; 0 of none.
struct Quartiles {
    double lower = 0;
    double upper = 0;
};
Quartiles quartiles(std::vector<double> values);

/// Percentiles of times in units of `unit_ns`, as nanoseconds and with the number of samples.
FigureRow percentile_row(std::string what, const Histogram& times, double unit_ns);

}  // namespace apikey::bench
