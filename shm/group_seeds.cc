#include "shm/group_seeds.h"

#include <algorithm>
#include <array>

#include "shm/table_reader.h"

namespace apikey::shm {
namespace {

constexpr unsigned kSeeds = 256;

/// How many of a group's keys find both slots of their line taken.
size_t homeless(std::span<const uint64_t> hashes, uint8_t seed) {
    std::array<uint8_t, kGroupLines> taken{};
    size_t count = 0;
    for (const uint64_t hash : hashes) {
        uint8_t& line = taken[line_in_group(hash, seed)];
        if (line == kSlotsPerLine) {
            ++count;
        } else {
            ++line;
        }
    }
    return count;
}

uint8_t best_seed(std::span<const uint64_t> hashes) {
    uint8_t best = 0;
    size_t fewest = homeless(hashes, best);
    for (unsigned seed = 1; seed < kSeeds && fewest != 0; ++seed) {
        const size_t count = homeless(hashes, static_cast<uint8_t>(seed));
        if (count < fewest) {
            fewest = count;
            best = static_cast<uint8_t>(seed);
        }
    }
    return best;
}

}  // namespace

void choose_group_seeds(std::vector<uint64_t> hashes, std::span<uint8_t> seeds) {
    // In order of the hash, each group's keys stand together: its number is the hash's upper part.
    std::sort(hashes.begin(), hashes.end());
    auto first = hashes.begin();
    for (uint64_t group = 0; group < seeds.size(); ++group) {
        const auto last = std::find_if(first, hashes.end(),
                                       [&](uint64_t hash) { return group_of(hash, seeds.size()) != group; });
        seeds[group] = best_seed({first, last});
        first = last;
    }
}

}  // namespace apikey::shm
