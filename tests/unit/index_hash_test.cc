#include "shm/index_hash.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace apikey::shm {
namespace {

constexpr uint64_t kSeed = 0x0123456789abcdef;

std::array<uint8_t, 32> some_digest() {
    std::array<uint8_t, 32> digest{};
    for (size_t i = 0; i < digest.size(); ++i) {
        digest[i] = static_cast<uint8_t>(i);
    }
    return digest;
}

// Daemon and clients of different builds meet over these: a change is a new ABI. The values are those of
// xxhsum's library, computed apart from this code.
TEST(IndexHash, IsPartOfTheLayout) {
    EXPECT_EQ(index_hash_id("2RkT9pQwX4Za", 0), UINT64_C(0x6b96a0bcb1de4fac));
    EXPECT_EQ(index_hash_id("2RkT9pQwX4Za", kSeed), UINT64_C(0x77d885bc8936710b));
    EXPECT_EQ(index_hash_digest(some_digest().data(), 0), UINT64_C(0x3d392960bfd9df8a));
    EXPECT_EQ(index_hash_digest(some_digest().data(), kSeed), UINT64_C(0xe290291ccd3467b5));
}

TEST(IndexHash, ReadsTwelveBytesOfAnId) {
    std::string id = "2RkT9pQwX4Za_and more";
    const uint64_t hash = index_hash_id(id.data(), kSeed);
    id[12] = 'X';
    EXPECT_EQ(index_hash_id(id.data(), kSeed), hash);
    for (size_t at = 0; at < kIdLength; ++at) {
        std::string other = id;
        other[at] = static_cast<char>(other[at] ^ 1);
        EXPECT_NE(index_hash_id(other.data(), kSeed), hash) << at;
    }
    const std::vector<char> exact(id.begin(),
                                  id.begin() + kIdLength);  // the address sanitizer watches its end
    EXPECT_EQ(index_hash_id(exact.data(), kSeed), hash);
}

TEST(IndexHash, ReadsSixteenBytesOfADigest) {
    std::array<uint8_t, 32> digest = some_digest();
    const uint64_t hash = index_hash_digest(digest.data(), kSeed);
    for (size_t at = 0; at < digest.size(); ++at) {
        std::array<uint8_t, 32> other = digest;
        other[at] ^= 1;
        EXPECT_EQ(index_hash_digest(other.data(), kSeed) == hash, at >= kIndexDigestLength) << at;
    }
    const std::vector<uint8_t> exact(digest.begin(), digest.begin() + kIndexDigestLength);
    EXPECT_EQ(index_hash_digest(exact.data(), kSeed), hash);
}

// Between seeds about half of the bits differ, so a prepared set of ids is scattered in the next generation.
TEST(IndexHash, DependsOnTheSeed) {
    std::mt19937_64 random(1);
    int bits_id = 0;
    int bits_digest = 0;
    constexpr int kTrials = 2000;
    for (int i = 0; i < kTrials; ++i) {
        const uint64_t seed = random();
        const uint64_t other_seed = seed ^ uint64_t { 1 } << (i % 64);
        bits_id +=
            std::popcount(index_hash_id("2RkT9pQwX4Za", seed) ^ index_hash_id("2RkT9pQwX4Za", other_seed));
        bits_digest += std::popcount(index_hash_digest(some_digest().data(), seed) ^
                                     index_hash_digest(some_digest().data(), other_seed));
    }
    EXPECT_NEAR(bits_id / double{kTrials}, 32, 2);
    EXPECT_NEAR(bits_digest / double{kTrials}, 32, 2);
}

TEST(IndexHash, TellsDigestsFromIdsOfTheSameBytes) {
    const std::array<uint8_t, 32> digest = some_digest();
    EXPECT_NE(index_hash_digest(digest.data(), kSeed), XXH3_64bits_withSeed(digest.data(), 16, kSeed));
}

// Linear probing lives from an even spread in the low bits, also over ids that differ in one character only.
TEST(IndexHash, SpreadsSimilarIdsEvenly) {
    constexpr size_t kBuckets = 256;
    std::array<double, kBuckets> counts{};
    constexpr unsigned kIds = 100000;
    for (unsigned i = 0; i < kIds; ++i) {
        std::string id = std::to_string(i);
        id.insert(0, kIdLength - id.size(), '0');
        counts[index_hash_id(id.data(), kSeed) % kBuckets] += 1;
    }
    double chi_squared = 0;
    for (const double count : counts) {
        const double expected = double{kIds} / kBuckets;
        chi_squared += (count - expected) * (count - expected) / expected;
    }
    EXPECT_LT(chi_squared, 255 + 6 * 22.6);  // 255 degrees of freedom
}

}  // namespace
}  // namespace apikey::shm
