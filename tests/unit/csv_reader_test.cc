#include "tools/csv_reader.h"

#include <gtest/gtest.h>

namespace {

using namespace apikeyd;
using Records = std::vector<std::vector<std::string>>;

Records read(std::string_view text) {
    CsvReader reader(text);
    Records records;
    for (;;) {
        auto record = reader.next();
        if (!record) {
            records.push_back({"!" + record.error().message.substr(0, 7) + std::to_string(reader.line())});
            return records;
        }
        if (!*record) {
            return records;
        }
        records.push_back(**record);
    }
}

TEST(CsvReader, RecordsAndFields) {
    EXPECT_EQ(read(""), Records{});
    EXPECT_EQ(read("a,b\nc,\n"), (Records{{"a", "b"}, {"c", ""}}));
    EXPECT_EQ(read("a,b\r\n\r\n,\r\nlast"), (Records{{"a", "b"}, {"", ""}, {"last"}}));
    EXPECT_EQ(read("a\rb,c"), (Records{{"a\rb", "c"}}));
}

TEST(CsvReader, Quotes) {
    EXPECT_EQ(read("\"a,b\",\"c\"\"d\"\n\"\""), (Records{{"a,b", "c\"d"}, {""}}));
    EXPECT_EQ(read("\"two\nlines\",x\nnext"), (Records{{"two\nlines", "x"}, {"next"}}));
}

TEST(CsvReader, WhatIsWrongIsNamedByItsFirstLine) {
    EXPECT_EQ(read("a\nb\"c\n"), (Records{{"a"}, {"!a quote2"}}));
    EXPECT_EQ(read("\"a\"b\n"), (Records{{"!text be1"}}));
    EXPECT_EQ(read("\"x\ny\"\n\"open\nmore"), (Records{{"x\ny"}, {"!a quote3"}}));
}

}  // namespace
