// Keys find room at home when their group's seed was chosen for them, and are found whatever it is.

#include "shm/group_seeds.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

#include "shm/table_reader.h"
#include "shm/table_writer.h"

namespace apikey::shm {
namespace {

constexpr uint64_t kGroups = 2000;

std::vector<uint64_t> random_hashes(uint64_t count) {
    std::mt19937_64 random(20261124);
    std::vector<uint64_t> hashes(count);
    for (uint64_t& hash : hashes) {
        hash = random();
    }
    return hashes;
}

/// Keys beyond the second of their home line.
size_t homeless(const std::vector<uint64_t>& hashes, const std::vector<uint8_t>& seeds) {
    std::map<uint64_t, size_t> lines;
    size_t count = 0;
    for (const uint64_t hash : hashes) {
        const uint64_t group = group_of(hash, seeds.size());
        EXPECT_LT(group, seeds.size());
        const uint64_t line = line_in_group(hash, seeds[group]);
        EXPECT_LT(line, kGroupLines);
        count += ++lines[group * kGroupLines + line] > kSlotsPerLine ? 1 : 0;
    }
    return count;
}

std::vector<uint8_t> chosen(const std::vector<uint64_t>& hashes, uint64_t groups) {
    std::vector<uint8_t> seeds(groups, 99);
    choose_group_seeds(hashes, seeds);
    return seeds;
}

TEST(GroupSeeds, LeaveFewKeysHomelessAtTheLoadATableIsBuiltWith) {
    const uint64_t keys = kGroups * kGroupLines * kSlotsPerLine * kLoadBuilt / 100;
    const std::vector<uint64_t> hashes = random_hashes(keys);
    const size_t without = homeless(hashes, std::vector<uint8_t>(kGroups, 0));
    const size_t with = homeless(hashes, chosen(hashes, kGroups));
    // Not by chance: one in seven without a choice, one in ninety with it.
    EXPECT_GT(without, keys / 8);
    EXPECT_LT(with, keys / 60);
}

TEST(GroupSeeds, AreTheBestOfAll) {
    const std::vector<uint64_t> hashes = random_hashes(27);
    const std::vector<uint8_t> seeds = chosen(hashes, 1);
    const size_t fewest = homeless(hashes, seeds);
    for (unsigned seed = 0; seed < 256; ++seed) {
        EXPECT_GE(homeless(hashes, {static_cast<uint8_t>(seed)}), fewest) << seed;
    }
}

TEST(GroupSeeds, AreSetForGroupsWithoutKeysToo) {
    EXPECT_EQ(chosen({}, 3), (std::vector<uint8_t>{0, 0, 0}));
    const std::vector<uint64_t> last_only = {~uint64_t{0}};
    EXPECT_EQ(chosen(last_only, 3), (std::vector<uint8_t>{0, 0, 0}));
}

}  // namespace
}  // namespace apikey::shm
