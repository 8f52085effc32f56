// Promise: what the tool prints can be read back, by programs in JSON and CSV, and by people in a table.

#include "tools/output.h"

#include <gtest/gtest.h>

namespace apikeyd {
namespace {

const Record kRecord = {{"text", std::string("a \"b\"\n\x1b[31m,\xc3\xa9")},
                        {"none", text_or_none("")},
                        {"yes", true},
                        {"count", uint64_t{18446744073709551615U}},
                        {"time", time_or_none(1'800'000'000)},
                        {"raw", RawJson{R"({"a":[1]})"}}};
const std::vector<std::string_view> kNames = {"text", "none", "yes", "count", "time", "raw"};

TEST(Output, JsonEscapesTextAndKeepsTypes) {
    EXPECT_EQ(
        json_object(kRecord),
        R"({"text":"a \"b\"\n\u001b[31m,)"
        "\xc3\xa9"
        R"(","none":null,"yes":true,"count":18446744073709551615,"time":"2027-01-15T08:00:00Z","raw":{"a":[1]}})");
    EXPECT_EQ(json_object({}), "{}");
}

TEST(Output, JsonLists) {
    EXPECT_EQ(json_list({}), "[]");
    EXPECT_EQ(json_list({{{"a", true}}, {{"a", false}}}), "[\n{\"a\":true},\n{\"a\":false}\n]");
}

TEST(Output, ListsOfTextsAreListsInJsonOnly) {
    const Record record = {{"none", list_of({})}, {"two", list_of({"a", "b\"c"})}};
    EXPECT_EQ(json_object(record), R"({"none":[],"two":["a","b\"c"]})");
    EXPECT_EQ(format_record(OutputForm::table, record), "none  -\ntwo   a b\"c\n");
    EXPECT_EQ(format_record(OutputForm::csv, record), "none,two\r\n,\"a b\"\"c\"\r\n");
}

TEST(Output, CsvQuotesWhatNeedsIt) {
    EXPECT_EQ(format_list(OutputForm::csv, kNames, {kRecord}),
              "text,none,yes,count,time,raw\r\n"
              "\"a \"\"b\"\"\n\x1b[31m,\xc3\xa9\",,true,18446744073709551615,2027-01-15T08:00:00Z,"
              "\"{\"\"a\"\":[1]}\"\r\n");
    EXPECT_EQ(format_list(OutputForm::csv, {"a", "b"}, {}), "a,b\r\n");
}

TEST(Output, ATableShowsNoControlCharacter) {
    const std::string table = format_list(OutputForm::table, kNames, {kRecord});
    EXPECT_NE(table.find("a \"b\"??[31m,\xc3\xa9  -"), std::string::npos) << table;
    // The marks that turn the direction of writing, a C1 control, half a character.
    EXPECT_EQ(format_record(OutputForm::table, {{"text", std::string("a\xe2\x80\xae"
                                                                     "b\xe2\x81\xa6"
                                                                     "c\xc2\x9b"
                                                                     "d\xc3")}}),
              "text  a?b?c?d?\n");
}

TEST(Output, TableColumnsLineUpByCharacters) {
    EXPECT_EQ(format_list(OutputForm::table, {"id", "n"},
                          {{{"id", std::string("\xc3\xa9\xc3\xa9\xc3\xa9")}, {"n", uint64_t{1}}},
                           {{"id", std::string("a")}, {"n", uint64_t{22}}}}),
              "ID   N\n\xc3\xa9\xc3\xa9\xc3\xa9  1\na    22\n");
    EXPECT_EQ(format_list(OutputForm::table, {"id", "n"}, {}), "ID  N\n");
}

TEST(Output, OneRecordAsATable) {
    EXPECT_EQ(format_record(OutputForm::table, {{"long_name", true}, {"b", Value()}}),
              "long_name  true\nb          -\n");
}

}  // namespace
}  // namespace apikeyd
