// Rows of keys whose plaintext a test has, and limits in the words of a key set.

#pragma once

#include <gtest/gtest.h>

#include <string>

#include "shm/key_form.h"
#include "shm/sha256.h"
#include "source/key_row.h"
#include "source/limit_text.h"

namespace apikeyd {

inline LimitRow limit(const std::string& name, const std::string& text, uint32_t burst = 0,
                      bool shadow = false) {
    LimitRow row;
    row.name = name;
    const Result<void> read = text.find("/s") != std::string::npos ||
                                      text.find("/min") != std::string::npos || text.ends_with("/h") ||
                                      text.ends_with("/d")
                                  ? parse_rate(text, row)
                                  : parse_quota(text, row);
    EXPECT_TRUE(read) << text << ": " << read.error().message;
    row.burst = burst != 0 ? burst : row.burst;
    row.shadow = shadow;
    return row;
}

struct PlainRow {
    std::string text;
    KeyRow row;
};

/// The same native key for the same number.
inline PlainRow make_row(unsigned number) {
    uint8_t random[64] = {static_cast<uint8_t>(number), static_cast<uint8_t>(number >> 8)};
    for (size_t i = 2; i < sizeof random; ++i) {
        random[i] = static_cast<uint8_t>(number * 37 + i * 11);
    }
    char text[apikey::shm::kNativeKeyLengthMax];
    const size_t length = apikey::shm::native_key_make("ak_live", 7, random, sizeof random, text);
    PlainRow made;
    made.text.assign(text, length);
    made.row.id.assign(apikey::shm::native_key_id(text, length), apikey::shm::kIdLength);
    made.row.environment = "live";
    apikey::shm::sha256_kernel().hash(text, length, made.row.digest.data());
    return made;
}

}  // namespace apikeyd
