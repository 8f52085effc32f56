#include "shm/group_seeds.h"

#include <algorithm>
#include <array>
#include <exception>
#include <optional>
#include <thread>

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

struct Groups {
    uint64_t first;
    uint64_t end;
};

/// For the groups from first to end, of which all the hashes are.
void choose_seeds(std::span<uint64_t> hashes, std::span<uint8_t> seeds, Groups groups, unsigned threads) {
    if (threads > 1) {
        const uint64_t middle = (groups.first + groups.end) / 2;
        const auto upper = std::partition(hashes.begin(), hashes.end(), [&](uint64_t hash) {
            return group_of(hash, seeds.size()) < middle;
        });
        std::optional<std::jthread> other;
        const auto lower = [&] {
            choose_seeds({hashes.begin(), upper}, seeds, {groups.first, middle}, threads / 2);
        };
        try {
            other.emplace(lower);
        } catch (const std::exception&) {  // no more threads, or no memory for one
            lower();
        }
        choose_seeds({upper, hashes.end()}, seeds, {middle, groups.end}, threads - threads / 2);
        return;
    }
    // In order of the hash, each group's keys stand together: its number is the hash's upper part.
    std::sort(hashes.begin(), hashes.end());
    auto first = hashes.begin();
    for (uint64_t group = groups.first; group < groups.end; ++group) {
        const auto last = std::find_if(first, hashes.end(),
                                       [&](uint64_t hash) { return group_of(hash, seeds.size()) != group; });
        seeds[group] = best_seed({first, last});
        first = last;
    }
}

}  // namespace

void choose_group_seeds(std::vector<uint64_t> hashes, std::span<uint8_t> seeds, unsigned threads) {
    choose_seeds(hashes, seeds, {0, seeds.size()}, std::max(threads, 1u));
}

}  // namespace apikey::shm
