#include "source/json_text.h"

#include <gtest/gtest.h>

#include <string>

#include "source/key_row.h"
#include "source/key_set_limits.h"
#include "source/yaml_source.h"

namespace {

using namespace apikeyd;

std::string compact(std::string_view json) {
    auto text = compact_metadata(json);
    return text ? *text : "! " + text.error().message;
}

TEST(source_JsonText, MetadataHasOneForm) {
    EXPECT_EQ(compact(" { \"a\" : \"1\",\t\"b\":[ true , null ,false], \"c\": {}, \"d\":[] }\n"),
              R"({"a":"1","b":[true,null,false],"c":{},"d":[]})");
    EXPECT_EQ(compact("{}"), "");
    EXPECT_EQ(compact("{ }"), "");
    EXPECT_EQ(compact(R"({"n":[12345678901234567890123,1.5E0,-0.10,1e+7,0]})"),
              R"({"n":[12345678901234567890123,1.5e0,-0.10,1e+7,0]})");
    EXPECT_EQ(compact(R"({"\u0061\/":"\u00e4\ud83d\ude00\t\u0000\""})"),
              "{\"a/\":\"ä\xF0\x9F\x98\x80\\t\\u0000\\\"\"}");
}

TEST(source_JsonText, WhatIsCompactStaysAndAKeySetSaysTheSame) {
    const std::string forms[] = {R"({"a":[1,-2.5e3,{"b":null}],"c":"'\"\\\u0000\n;--"})",
                                 R"({"e":"\u2028\u007f\ufeff","n":1e400})",
                                 "{\"a\":" + std::string(kMetadataLevelsMax - 1, '[') +
                                     std::string(kMetadataLevelsMax - 1, ']') + "}"};
    for (const std::string& form : forms) {
        EXPECT_EQ(compact(form), form);
        const auto rows = parse_key_rows(
            "version: 1\nkeys:\n- id: 2RkT9pQwX4Za\n  environment: live\n  sha256: " + std::string(64, 'a') +
                "\n  metadata: " + form + "\n",
            "keys.yaml");
        ASSERT_TRUE(rows) << rows.error().message;
        EXPECT_EQ(rows->front().metadata, form);
    }
}

TEST(source_JsonText, WhatIsNoMetadata) {
    for (const std::string text : {"", "[1]", "x", "\"a\"", "null"}) {
        EXPECT_EQ(compact(text), "! is no JSON object (want {\"name\": value, ...})") << text;
    }
    for (const auto& [text, offset] : {std::pair(R"({"a":1)", 6),
                                       {R"({"a" 1})", 5},
                                       {R"({a:1})", 1},
                                       {R"({"a":01})", 6},
                                       {R"({"a":1,})", 7},
                                       {R"({"a":+1})", 5},
                                       {R"({"a":.5})", 5},
                                       {R"({"a":tru})", 5},
                                       {R"({"a":[1 2]})", 8},
                                       {"{\"a\":\"\xFF\"}", 6},
                                       {"{\"a\":\"\n\"}", 6},
                                       {R"({"a":"\x"})", 8},
                                       {R"({"a":"\ud83d"})", 12},
                                       {R"({"a":"\ud83d\u0041"})", 18},
                                       {R"({"a":"\ude00"})", 12},
                                       {R"({"a":"\u00g0"})", 8}}) {
        EXPECT_EQ(compact(text).substr(0, 30),
                  ("! is broken JSON at offset " + std::to_string(offset) + " (want").substr(0, 30))
            << text;
    }
    EXPECT_EQ(compact("{\"a\": 1} x"), "! goes on behind its object at offset 9");
    EXPECT_EQ(compact(R"({"a":1,"b":2,"\u0061":3})"),
              "! 'a' stands twice in one object (want each name once)");
    EXPECT_EQ(compact("{\"a\":" + std::string(kMetadataLevelsMax, '[') +
                      std::string(kMetadataLevelsMax, ']') + "}"),
              "! nested deeper than 13 levels (want at most that)");
    EXPECT_EQ(compact(std::string(1'000'000, '[')), "! is no JSON object (want {\"name\": value, ...})");
    const auto of_size = [](size_t size) { return "{\"a\":\"" + std::string(size - 8, 'x') + "\"}"; };
    EXPECT_EQ(compact(of_size(kMetadataBytesMax)), of_size(kMetadataBytesMax));
    EXPECT_EQ(compact(of_size(kMetadataBytesMax + 1)), "! more than 4096 bytes as JSON (want at most that)");
}

TEST(source_JsonText, MembersAsTheyStandThere) {
    const auto members = json_members(R"( { "a" : [1, {"b": "}"}] , "c\"" :"x,\"" ,"d":{},"e" : 1.50 } )");
    ASSERT_EQ(members.size(), 4u);
    EXPECT_EQ(members[0].name, "a");
    EXPECT_EQ(members[0].value, R"([1, {"b": "}"}])");
    EXPECT_EQ(members[1].name, R"(c\")");
    EXPECT_EQ(members[1].value, R"("x,\"")");
    EXPECT_EQ(members[2].value, "{}");
    EXPECT_EQ(members[3].value, "1.50");
    EXPECT_TRUE(json_members("{}").empty());
}

TEST(source_JsonText, ListsOfWords) {
    EXPECT_EQ(parse_word_list(" [ \"a\" , \"\\u00e4\" ] ").value(), (std::vector<std::string>{"a", "ä"}));
    EXPECT_EQ(parse_word_list("[]").value(), std::vector<std::string>());
    for (const std::string text : {"", "[\"a\"", "[\"a\",]", "[1]", "[\"a\"] x", "{}"}) {
        EXPECT_FALSE(parse_word_list(text)) << text;
    }
}

}  // namespace
