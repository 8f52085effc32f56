// A digest that is written here is read here as the same bytes, and what is no digest is not taken for one.

#include "base/hex.h"

#include <gtest/gtest.h>

#include <array>
#include <numeric>

namespace apikeyd {
namespace {

TEST(Hex, WritesTwoLowerCaseDigitsAByte) {
    EXPECT_EQ(to_hex(std::array<uint8_t, 5>{0x00, 0x0f, 0xa0, 0x7e, 0xff}), "000fa07eff");
    EXPECT_EQ(to_hex(std::array<uint8_t, 0>{}), "");
    std::string text = "sha256: ";
    append_hex(text, std::array<uint8_t, 2>{0x12, 0xcd});
    EXPECT_EQ(text, "sha256: 12cd");
}

TEST(Hex, EveryByteComesBack) {
    std::array<uint8_t, 256> all{};
    std::iota(all.begin(), all.end(), uint8_t{0});
    std::array<uint8_t, 256> back{};
    ASSERT_TRUE(from_hex(to_hex(all), back));
    EXPECT_EQ(back, all);
}

TEST(Hex, ReadsBothCases) {
    std::array<uint8_t, 3> bytes{};
    ASSERT_TRUE(from_hex("aBCdeF", bytes));
    EXPECT_EQ(bytes, (std::array<uint8_t, 3>{0xab, 0xcd, 0xef}));
}

TEST(Hex, ReadsExactlyAsManyDigitsAsAreWanted) {
    std::array<uint8_t, 2> bytes{};
    for (const char* text : {"", "1", "123", "12345", "123456"}) {
        EXPECT_FALSE(from_hex(text, bytes)) << text;
    }
    EXPECT_TRUE(from_hex("1234", bytes));
}

TEST(Hex, EveryOtherCharacterIsNoDigit) {
    const std::string_view digits = "0123456789abcdefABCDEF";
    for (int c = 0; c < 256; ++c) {
        const bool digit = digits.find(static_cast<char>(c)) != std::string_view::npos;
        std::array<uint8_t, 1> byte{};
        EXPECT_EQ(from_hex(std::string{static_cast<char>(c), '0'}, byte), digit) << c;
        EXPECT_EQ(from_hex(std::string{'0', static_cast<char>(c)}, byte), digit) << c;
    }
}

}  // namespace
}  // namespace apikeyd
