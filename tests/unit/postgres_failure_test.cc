// What is shown of a server's messages: one line, bounded, and no key in it.

#include "postgres/failure.h"

#include <gtest/gtest.h>

#include <string>

namespace apikeyd {
namespace {

const std::string kSecret = "0123456789abcdefghijABCDEFGHI";  // and four characters of a checksum behind it
const std::string kKey = "ak_live_zzzzzzzzzzz0_" + kSecret + "JKLM";

TEST(PostgresFailure, AMessageHasNoKeyWhereverItIsCut) {
    for (size_t before = 0; before < 700; ++before) {
        const std::string text = std::string(before, ' ') + std::string(before, '.') + kKey + " and more";
        EXPECT_EQ(shown_message(text).find(kSecret), std::string::npos) << before;
        EXPECT_EQ(shown_message(kKey + text).find(kSecret), std::string::npos) << before;
    }
}

TEST(PostgresFailure, AMessageIsOneLineOfPrintingCharacters) {
    EXPECT_EQ(shown_message("  two\nlines\tand\x1b[31m colour \xff"), "two lines and [31m colour ?");
    EXPECT_EQ(shown_message(std::string(5000, 'x')), std::string(600, 'x') + "...");
}

TEST(PostgresFailure, TheStateOfAFailedConnectionIsFoundInItsText) {
    PostgresFailure failure;
    ASSERT_TRUE(find_sqlstate(
        "connection to server failed: FATAL:  3D000: database \"keys\" does not exist\nLOCATION: x",
        failure));
    EXPECT_EQ(failure.sqlstate, "3D000");
    EXPECT_EQ(failure.text, "database \"keys\" does not exist");
    PostgresFailure none;
    EXPECT_FALSE(find_sqlstate("connection refused:  is it running?", none));
    EXPECT_EQ(none.kind, PostgresFailure::Kind::kNone);
}

TEST(PostgresFailure, WhatWasAskedWronglyIsNoFailureOfTheStore) {
    const auto of_store = [](const char* sqlstate) {
        return worded("//h/d", "changing it",
                      {.kind = PostgresFailure::Kind::kServer, .sqlstate = sqlstate, .text = "why"})
            .of_store;
    };
    EXPECT_FALSE(of_store("23505"));
    EXPECT_FALSE(of_store("P0001"));
    EXPECT_TRUE(of_store("53100"));
    EXPECT_TRUE(of_store("57P01"));
}

}  // namespace
}  // namespace apikeyd
