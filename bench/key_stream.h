// What is presented, in which order, and which answer is right: made before anything is timed.
//
// Keys stand one behind the other in the order in which they are presented, so that reading them costs a
// measured loop as little as it costs a server that has just received them.

#pragma once

#include <cstdint>
#include <random>
#include <string_view>
#include <vector>

#include "apikey/apikey.h"

namespace apikey::bench {

/// The one code that is right for a presented key, or kValidOrDisabled.
using Expected = uint8_t;
/// For keys that a writer turns on and off meanwhile.
inline constexpr Expected kValidOrDisabled = 0xff;

inline bool is_right(apikey_code code, Expected expected) {
    return static_cast<Expected>(code) == expected ||
           (expected == kValidOrDisabled && (code == APIKEY_VALID || code == APIKEY_DISABLED));
}

class KeyStream {
  public:
    void reserve(size_t keys, size_t bytes);
    void add(std::string_view key, Expected expected);
    /// After the last add() and before the first use: until then the keys' addresses are not known.
    void seal();

    size_t size() const { return keys_.size(); }
    const apikey_key& key(size_t at) const { return keys_[at]; }
    /// `size()` keys in a row, for a batch.
    const apikey_key* keys() const { return keys_.data(); }
    Expected expected(size_t at) const { return expected_[at]; }

  private:
    std::vector<char> bytes_;
    std::vector<apikey_key> keys_;
    std::vector<Expected> expected_;
};

/// Draws numbers in [0, count): uniformly, or by a Zipf distribution whose ranks are scattered over the
/// range.
///
/// Sources: Gray, Sundaresan, Englert, Baclawski, Weinberger: "Quickly generating billion-record synthetic
/// databases", SIGMOD 1994 (the closed form); Cooper and others: "Benchmarking cloud serving systems with
/// YCSB", 2010 (the scattering by a hash, under which a few ranks may share a number).
class KeyPicker {
  public:
    /// `theta` 0 is uniform, else below 1; YCSB's is 0.99. Zipf takes time proportional to `count` here.
    KeyPicker(uint64_t count, double theta);
    uint64_t pick(std::mt19937_64& random) const;

  private:
    uint64_t count_;
    double theta_;
    double zeta_ = 0;
    double alpha_ = 0;
    double eta_ = 0;
};

/// A bijection that leaves no pattern: the finaliser of SplitMix64 (Steele, Lea, Flood, 2014).
uint64_t scatter(uint64_t value);

}  // namespace apikey::bench
