#include "shm/key_form.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace apikey::shm {
namespace {

std::vector<uint8_t> random_bytes(size_t len, unsigned seed) {
    std::mt19937 random(seed);
    std::vector<uint8_t> bytes(len);
    std::generate(bytes.begin(), bytes.end(), [&] { return static_cast<uint8_t>(random()); });
    return bytes;
}

std::string make_key(const std::string& prefix, unsigned seed) {
    const std::vector<uint8_t> random = random_bytes(128, seed);
    std::string key(prefix.size() + 1 + kNativeTailLength, '\0');
    const size_t len =
        native_key_make(prefix.data(), prefix.size(), random.data(), random.size(), key.data());
    EXPECT_EQ(len, key.size());
    return key;
}

bool checksum_ok(const std::string& key) {
    return native_key_checksum_ok(key.data(), key.size());
}

TEST(KeyForm, IsOneSha256BlockAtMost) {
    EXPECT_EQ(kNativeKeyLengthMax, 55U);
    EXPECT_EQ(make_key("ak_live", 1).size(), 54U);
}

// A fixed key: whatever changes the alphabet, the checksum or the order breaks every key already given out.
TEST(KeyForm, IsStable) {
    std::vector<uint8_t> random(39);
    for (size_t i = 0; i < random.size(); ++i) {
        random[i] = static_cast<uint8_t>(i * 6);
    }
    std::string key(54, '\0');
    ASSERT_EQ(native_key_make("ak_live", 7, random.data(), random.size(), key.data()), key.size());
    EXPECT_EQ(key, "ak_live_06CIOUagmsy4_AGMSYekqw28EKQWciou06CIOUag21XhSc");
}

TEST(KeyForm, MakesKeysThatParseWithAnyPrefix) {
    for (const std::string prefix : {"a", "ak", "ak_live", "ak_test_", "________", "12345678"}) {
        for (unsigned seed = 0; seed < 200; ++seed) {
            const std::string key = make_key(prefix, seed);
            const char* id = native_key_id(key.data(), key.size());
            ASSERT_EQ(id, key.data() + prefix.size() + 1) << key.size();
            ASSERT_EQ(key.substr(0, prefix.size() + 1), std::string(prefix).append("_"));
            ASSERT_TRUE(checksum_ok(key));
        }
    }
}

TEST(KeyForm, RefusesPrefixesOutOfRange) {
    const std::vector<uint8_t> random = random_bytes(128, 1);
    std::array<char, 128> out;
    out.fill('#');
    EXPECT_EQ(native_key_make("", 0, random.data(), random.size(), out.data()), 0U);
    EXPECT_EQ(native_key_make("123456789", 9, random.data(), random.size(), out.data()), 0U);
    EXPECT_TRUE(std::all_of(out.begin(), out.end(), [](char c) { return c == '#'; }));
}

TEST(KeyForm, AsksForMoreRandomBytesRatherThanBias) {
    std::vector<uint8_t> random(38, 0);  // one too few
    std::string out(54, '#');
    EXPECT_EQ(native_key_make("ak_live", 7, random.data(), random.size(), out.data()), 0U);
    EXPECT_EQ(out, std::string(54, '\0')) << "half a secret was left behind";
    EXPECT_EQ(native_key_make("ak_live", 7, nullptr, 0, out.data()), 0U);
    random.push_back(248);  // the first byte that would favour the first characters
    random.push_back(255);
    EXPECT_EQ(native_key_make("ak_live", 7, random.data(), random.size(), out.data()), 0U);
    random.push_back(247);
    ASSERT_EQ(native_key_make("ak_live", 7, random.data(), random.size(), out.data()), 54U);
    EXPECT_EQ(out[54 - 7], 'z');
    EXPECT_TRUE(checksum_ok(out));
}

TEST(KeyForm, CatchesEveryChangeOfOneCharacter) {
    const std::string good = make_key("ak_live", 3);
    size_t caught = 0;
    for (size_t at = 0; at < good.size(); ++at) {
        for (int value = 0; value < 256; ++value) {
            std::string key = good;
            key[at] = static_cast<char>(value);
            if (key == good) {
                continue;
            }
            ASSERT_FALSE(checksum_ok(key)) << "position " << at << ", byte " << value;
            ++caught;
        }
    }
    EXPECT_EQ(caught, good.size() * 255);
}

TEST(KeyForm, CatchesTwoSwappedNeighbours) {
    const std::string good = make_key("ak_live", 4);
    size_t swapped = 0;
    for (size_t at = 0; at + 1 < good.size(); ++at) {
        std::string key = good;
        std::swap(key[at], key[at + 1]);
        if (key != good) {
            ASSERT_FALSE(checksum_ok(key)) << "position " << at;
            ++swapped;
        }
    }
    EXPECT_GT(swapped, good.size() / 2);
}

/// The checksum as the definition has it, bit by bit.
std::string slow_checksum(const std::string& text) {
    uint32_t crc = 0xffffffff;
    for (const char c : text) {
        crc ^= static_cast<uint8_t>(c);
        for (int bit = 0; bit < 8; ++bit) {
            crc = (crc & 1) != 0 ? crc >> 1 ^ 0xedb88320 : crc >> 1;
        }
    }
    crc = ~crc;
    std::string out;
    for (int i = 0; i < 6; ++i) {
        out.insert(out.begin(), "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[crc % 62]);
        crc /= 62;
    }
    return out;
}

TEST(KeyForm, ChecksumIsCrc32OfAllBeforeIt) {
    ASSERT_EQ(slow_checksum("123456789"), "3jZRME")
        << "the reference itself: CRC-32's check value is cbf43926";
    for (unsigned seed = 0; seed < 100; ++seed) {
        for (size_t prefix_len = 1; prefix_len <= kPrefixLengthMax; ++prefix_len) {
            const std::string key = make_key(std::string(prefix_len, 'p'), seed);
            ASSERT_EQ(key.substr(key.size() - 6), slow_checksum(key.substr(0, key.size() - 6)));
        }
    }
}

// A right checksum over a wrong alphabet is still malformed.
TEST(KeyForm, WantsBase62InIdAndSecret) {
    const std::string good = make_key("ak_live", 5);
    const size_t id_at = good.size() - kNativeTailLength;
    for (size_t at = id_at; at < good.size() - kCrcLength; ++at) {
        if (at == id_at + kIdLength) {
            continue;  // the underscore
        }
        for (int value = 0; value < 256; ++value) {
            std::string key = good;
            key[at] = static_cast<char>(value);
            key.replace(key.size() - 6, 6, slow_checksum(key.substr(0, key.size() - 6)));
            const bool base62 = (value >= '0' && value <= '9') || (value >= 'A' && value <= 'Z') ||
                                (value >= 'a' && value <= 'z');
            ASSERT_EQ(checksum_ok(key), base62) << "position " << at << ", byte " << value;
        }
    }
}

TEST(KeyForm, FindsTheIdFromTheEndForEveryLength) {
    for (size_t len = 0; len <= 600; ++len) {
        const std::string all(len, '_');  // an underscore everywhere: only the length decides
        const char* id = native_key_id(all.data(), all.size());
        if (len >= 48 && len <= 55) {
            EXPECT_EQ(id, all.data() + len - 46) << len;
        } else {
            EXPECT_EQ(id, nullptr) << len;
        }
        EXPECT_FALSE(checksum_ok(all)) << len;
    }
    EXPECT_EQ(native_key_id(nullptr, 0), nullptr);
}

TEST(KeyForm, NeedsBothUnderscores) {
    const std::string good = make_key("ak_live", 6);
    for (size_t at = 0; at < good.size(); ++at) {
        std::string key = good;
        key[at] = '-';
        const bool is_separator = at == 7 || at == 20;
        EXPECT_EQ(native_key_id(key.data(), key.size()) == nullptr, is_separator) << at;
    }
}

// Chi-squared over 62 cells has 61 degrees of freedom: mean 61, standard deviation 11. A plain
// % 62 favours eight characters by a fifth, which would add about 2000 at this size.
TEST(KeyForm, DrawsCharactersEvenly) {
    std::array<double, 256> counts{};
    constexpr unsigned kKeys = 8000;
    for (unsigned seed = 0; seed < kKeys; ++seed) {
        const std::string key = make_key("p", seed);
        for (size_t at = 2; at < 2 + kIdLength + 1 + kSecretLength; ++at) {
            if (at != 2 + kIdLength) {
                counts[static_cast<uint8_t>(key[at])] += 1;
            }
        }
    }
    const double expected = kKeys * 39 / 62.0;
    double chi_squared = 0;
    double outside = 0;
    for (int c = 0; c < 256; ++c) {
        const double count = counts[static_cast<size_t>(c)];
        if (c < 128 && std::isalnum(c) != 0) {
            chi_squared += (count - expected) * (count - expected) / expected;
        } else {
            outside += count;
        }
    }
    EXPECT_EQ(outside, 0);
    EXPECT_LT(chi_squared, 61 + 6 * 11);
    EXPECT_GT(chi_squared, 61 - 5 * 11) << "too even to be random";
}

TEST(KeyForm, NoTwoIdsMeet) {
    std::set<std::string> ids;
    for (unsigned seed = 0; seed < 5000; ++seed) {
        const std::string key = make_key("ak_live", seed);
        ids.insert(key.substr(8, kIdLength));
    }
    EXPECT_EQ(ids.size(), 5000U);
}

}  // namespace
}  // namespace apikey::shm
