#include "source/yaml_source.h"

#include <gtest/gtest.h>

#include <string>

#include "source/rfc3339.h"
#include "source/text_check.h"

namespace apikeyd {
namespace {

const std::string kSha(64, 'a');

std::string hex64(unsigned n) {
    char digits[65];
    std::snprintf(digits, sizeof digits, "%064x", n);
    return digits;
}

std::string row(const std::string& extra = "", const std::string& id = "2RkT9pQwX4Za",
                const std::string& sha = kSha) {
    return "  - id: " + id + "\n    sha256: " + sha + "\n    environment: live\n" + extra;
}

std::string set(const std::string& rows) {
    return "version: 1\nkeys:\n" + rows;
}

std::vector<std::string> errors_of(const std::string& text, const YamlLimits& limits = {}) {
    const auto parsed = parse_key_set(
        text, "keys.yaml", [](const KeyRow&) {}, limits);
    return parsed ? std::vector<std::string>{} : parsed.error().messages;
}

/// The only error of `text`.
std::string error_of(const std::string& text, const YamlLimits& limits = {}) {
    const auto errors = errors_of(text, limits);
    EXPECT_EQ(errors.size(), 1u) << ::testing::PrintToString(errors);
    return errors.empty() ? "no error" : errors.front();
}

KeyRow only_row(const std::string& text) {
    const auto rows = parse_key_rows(text, "keys.yaml");
    EXPECT_TRUE(rows) << rows.error().message;
    EXPECT_EQ(rows ? rows->size() : 0, 1u);
    return rows && rows->size() == 1 ? rows->front() : KeyRow{};
}

TEST(source_YamlSource, ReadsEveryField) {
    const KeyRow got = only_row(
        "# comments\nversion: 1\nkeys:\n"
        "  - id: 2RkT9pQwX4Za   # public\n"
        "    sha256: 00FFab0000000000000000000000000000000000000000000000000000000001\n"
        "    environment: live\n    owner: acme\n    name: CI deploy\n    state: revoked\n"
        "    created: 2026-11-23T02:00:00Z\n    expires: 2027-12-01T01:00:00+01:00\n    foreign: true\n"
        "    metadata: {team: x, n: 007, h: 0x1F, f: 1.50, b: True, z: ~, s: '1', l: [1, {a: b}]}\n");
    EXPECT_EQ(got.id, "2RkT9pQwX4Za");
    EXPECT_EQ(got.digest[0], 0x00);
    EXPECT_EQ(got.digest[1], 0xFF);
    EXPECT_EQ(got.digest[2], 0xAB);
    EXPECT_EQ(got.digest[31], 0x01);
    EXPECT_EQ(got.environment, "live");
    EXPECT_EQ(got.owner, "acme");
    EXPECT_EQ(got.name, "CI deploy");
    EXPECT_EQ(got.state, KeyState::kRevoked);
    EXPECT_EQ(got.created_s, parse_rfc3339("2026-11-23T02:00:00Z"));
    EXPECT_EQ(got.expires_s, parse_rfc3339("2027-12-01T00:00:00Z"));
    EXPECT_TRUE(got.foreign);
    EXPECT_EQ(got.metadata,
              R"({"team":"x","n":7,"h":31,"f":1.50,"b":true,"z":null,"s":"1","l":[1,{"a":"b"}]})");
}

TEST(source_YamlSource, DefaultsAndNulls) {
    const KeyRow got = only_row(set(row("    expires: null\n    metadata: {}\n    owner:\n")));
    EXPECT_EQ(got.state, KeyState::kActive);
    EXPECT_FALSE(got.expires_s);
    EXPECT_EQ(got.created_s, 0);
    EXPECT_FALSE(got.foreign);
    EXPECT_EQ(got.metadata, "");
    EXPECT_EQ(got.owner, "");
}

TEST(source_YamlSource, AnIdIsTheTextAsWritten) {
    EXPECT_EQ(only_row(set(row("", "012345678901"))).id, "012345678901");
    EXPECT_EQ(only_row(set(row("", "'012345678901'"))).id, "012345678901");
    EXPECT_EQ(only_row(set(row("", "\"12345678e901\""))).id, "12345678e901");
}

TEST(source_YamlSource, FlowAndIndentationDoNotMatter) {
    const std::string flow = "{id: 2RkT9pQwX4Za, sha256: " + kSha + ", environment: live}";
    const KeyRow wanted = only_row(set(row()));
    EXPECT_EQ(only_row("keys: [" + flow + "]\n"), wanted);
    EXPECT_EQ(only_row("{keys: [" + flow + "]}\n"), wanted);
    EXPECT_EQ(only_row("keys:\n- " + flow + "\n"), wanted);
    EXPECT_EQ(only_row("\xEF\xBB\xBF---\r\nkeys:\r\n-   " + flow + "\r\n...\r\n"), wanted);
}

TEST(source_YamlSource, NoKeysIsNotTheSameAsEmpty) {
    const auto empty = parse_key_set("keys: []\n", "keys.yaml", [](const KeyRow&) {});
    ASSERT_TRUE(empty);
    EXPECT_EQ(empty->keys, 0u);
    const std::string want = "(want 'keys:' with a list; 'keys: []' for no keys)";
    EXPECT_EQ(error_of(""), "keys.yaml:1:1: the key set is empty " + want);
    EXPECT_EQ(error_of("# only a comment\n"), "keys.yaml:1:1: the key set is empty " + want);
    EXPECT_EQ(error_of("---\n"), "keys.yaml:2:1: the key set is empty " + want);
    EXPECT_EQ(error_of("version: 1\n"),
              "keys.yaml:1:1: keys: missing (want a list of keys; 'keys: []' for no keys)");
    EXPECT_EQ(error_of("version: 1\nkeys:\n"),
              "keys.yaml:2:1: keys: empty (want a list of keys; 'keys: []' for no keys)");
}

TEST(source_YamlSource, WrongShapes) {
    EXPECT_EQ(error_of("hello\n"), "keys.yaml:1:1: the key set is one value (want a mapping with 'keys:')");
    EXPECT_EQ(error_of("- a\n- {b: c}\n"),
              "keys.yaml:1:1: the key set is a list (want a mapping with 'keys:')");
    EXPECT_EQ(error_of("keys: {a: [b]}\n"), "keys.yaml:1:7: keys: a mapping (want a list of keys)");
    EXPECT_EQ(error_of("keys: 7\n"), "keys.yaml:1:7: keys: a single value (want a list of keys)");
    EXPECT_EQ(error_of("keys: []\nkeys: []\n"), "keys.yaml:2:1: keys: stands twice (want it once)");
    EXPECT_EQ(error_of("keys: []\nplan: {a: [1, 2]}\n"),
              "keys.yaml:2:1: unknown field 'plan' (want version, scopes, plans, owners or keys)");
    EXPECT_EQ(error_of("version: 2\nkeys: []\n"),
              "keys.yaml:1:10: version: '2' is no version known here (want 1)");
    EXPECT_EQ(error_of("version: '1'\nkeys: []\n"),
              "keys.yaml:1:10: version: '1' is no version known here (want 1)");
    EXPECT_EQ(error_of("keys:\n- x\n"),
              "keys.yaml:2:3: key number 1: no mapping (want '- id: ...' with its fields)");
    EXPECT_EQ(error_of("keys:\n- [id]\n"),
              "keys.yaml:2:3: key number 1: a list (want '- id: ...' with its fields)");
    EXPECT_EQ(error_of("keys: []\n? [a, b]\n: c\n"),
              "keys.yaml:2:3: a list as a field's name (want version, scopes, plans, owners or keys)");
}

TEST(source_YamlSource, WrongFields) {
    const std::string key = ": key 2RkT9pQwX4Za: ";
    EXPECT_EQ(
        error_of(set(row("    expires: '2027-13-01'\n"))),
        "keys.yaml:6:14" + key +
            "expires: '2027-13-01' is no date (want RFC 3339, e.g. 2027-12-01T00:00:00Z; null for never)");
    EXPECT_EQ(error_of(set(row("    expires: 0\n"))),
              "keys.yaml:6:14" + key +
                  "expires: '0' is no date (want RFC 3339, e.g. 2027-12-01T00:00:00Z; null for never)");
    EXPECT_EQ(error_of(set(row("    expires: 9999-01-01T00:00:00Z\n"))),
              "keys.yaml:6:14" + key +
                  "expires: '9999-01-01T00:00:00Z' is out of range (want a time from 1970-01-01T00:00:01Z to "
                  "2242-03-16T12:56:30Z)");
    EXPECT_EQ(error_of(set(row("    created: yesterday\n"))),
              "keys.yaml:6:14" + key +
                  "created: 'yesterday' is no date (want RFC 3339, e.g. 2027-12-01T00:00:00Z)");
    EXPECT_EQ(error_of(set(row("    state: on\n"))),
              "keys.yaml:6:12" + key + "state: 'on' is no state (want active, disabled or revoked)");
    EXPECT_EQ(error_of(set(row("    state:\n"))),
              "keys.yaml:6:5" + key + "state: '' is no state (want active, disabled or revoked)");
    EXPECT_EQ(
        error_of(set(row("    foreign: 'true'\n"))),
        "keys.yaml:6:14" + key + "foreign: 'true' is no truth value (want true or false, without quotes)");
    EXPECT_EQ(
        error_of(set(row("    foreign: yes\n"))),
        "keys.yaml:6:14" + key + "foreign: 'yes' is no truth value (want true or false, without quotes)");
    EXPECT_EQ(error_of(set(row("    owner: [a]\n"))),
              "keys.yaml:6:12" + key + "owner: a list (want a single value)");
    EXPECT_EQ(error_of(set(row("    name: {a: {b: c}}\n"))),
              "keys.yaml:6:11" + key + "name: a mapping (want a single value)");
    EXPECT_EQ(error_of(set(row("    metadata: [a]\n"))),
              "keys.yaml:6:15" + key + "metadata: a list (want a mapping)");
    EXPECT_EQ(error_of(set(row("    metadata: x\n"))),
              "keys.yaml:6:15" + key + "metadata: 'x' is no mapping (want {name: value, ...})");
    EXPECT_EQ(error_of(set(row("    owner: a\n    owner: b\n"))),
              "keys.yaml:7:5" + key + "owner: stands twice in one key (want it once)");
    EXPECT_EQ(error_of(set(row("    scope: [a, b]\n"))),
              "keys.yaml:6:5" + key +
                  "unknown field 'scope' (want id, sha256, state, expires, plan, limits, addresses, "
                  "environment, owner, name, created, foreign, scopes or metadata)");
    EXPECT_EQ(error_of(set(row("    ? [a]\n    : b\n"))),
              "keys.yaml:6:7" + key +
                  "a list as a field's name (want id, sha256, state, expires, plan, limits, addresses, "
                  "environment, owner, name, created, foreign, scopes or metadata)");
}

TEST(source_YamlSource, NamesAreOneLineOfText) {
    const std::string key = ": key 2RkT9pQwX4Za: ";
    const std::string want = " has control characters (want one line of plain text)";
    EXPECT_EQ(error_of(set(row("    name: \"a\\nb\"\n"))),
              "keys.yaml:6:11" + key + "name: 'a\\u000Ab'" + want);
    EXPECT_EQ(error_of(set(row("    owner: \"a\\u0085b\"\n"))),
              "keys.yaml:6:12" + key + "owner: 'a\\u0085b'" + want);
    EXPECT_EQ(error_of(set(row("    name: |\n      x\n"))),
              "keys.yaml:6:11" + key + "name: 'x\\u000A'" + want);
    EXPECT_EQ(error_of(set(row("    name: " + std::string(256, 'n') + "\n"))),
              "keys.yaml:6:11" + key + "name: 256 bytes (want at most 255)");
    EXPECT_EQ(only_row(set(row("    name: Zürich →\n"))).name, "Zürich →");
}

TEST(source_YamlSource, RequiredFields) {
    EXPECT_EQ(error_of("keys:\n- sha256: " + kSha + "\n  environment: live\n"),
              "keys.yaml:2:3: key number 1: id: missing (required)");
    EXPECT_EQ(error_of("keys:\n- id: 2RkT9pQwX4Za\n  environment: live\n"),
              "keys.yaml:2:3: key 2RkT9pQwX4Za: sha256: missing (required)");
    EXPECT_EQ(error_of("keys:\n- id: 2RkT9pQwX4Za\n  sha256: " + kSha + "\n"),
              "keys.yaml:2:3: key 2RkT9pQwX4Za: environment: missing (required unless foreign: true)");
    EXPECT_TRUE(only_row("keys:\n- id: 2RkT9pQwX4Za\n  sha256: " + kSha + "\n  foreign: true\n").foreign);
}

TEST(source_YamlSource, IdsAndDigestsInErrorsAreNotShown) {
    const std::string secret = "ak_live_2RkT9pQwX4Za_0123456789abcdefghijklmnopq000000";
    EXPECT_EQ(
        error_of(set(row("", secret))),
        "keys.yaml:3:9: key number 1: id: no key id (want 12 characters 0-9A-Za-z; these are 54 bytes)");
    EXPECT_EQ(error_of(set(row("", "2RkT9pQwX4Za", secret))),
              "keys.yaml:4:13: key 2RkT9pQwX4Za: sha256: no SHA-256 (want 64 hexadecimal digits; these are "
              "54 bytes)");
    const std::string elsewhere = error_of(set(row("    expires: " + secret + "\n")));
    EXPECT_EQ(elsewhere.find("0123456789"), std::string::npos) << elsewhere;
    EXPECT_NE(elsewhere.find("what looks like a key; not shown"), std::string::npos) << elsewhere;
    const std::string beside = error_of(set(row("    expires: \"" + secret + ";\"\n")));
    EXPECT_NE(beside.find("'ak_live_2RkT9pQwX4Za_...;'"), std::string::npos) << beside;
    EXPECT_EQ(
        error_of(set(row("", "2RkT9pQwX4Z-"))),
        "keys.yaml:3:9: key number 1: id: no key id (want 12 characters 0-9A-Za-z; these are 12 bytes)");
}

TEST(source_YamlSource, DuplicatesNameBothLines) {
    EXPECT_EQ(error_of(set(row("", "2RkT9pQwX4Za", hex64(1)) + row("", "2RkT9pQwX4Za", hex64(2)))),
              "keys.yaml:6:9: key 2RkT9pQwX4Za: id: stands already in line 3 (want each id once)");
    EXPECT_EQ(error_of(set(row("", "2RkT9pQwX4Za", hex64(10)) + row("", "2RkT9pQwX4Zb", hex64(10)))),
              "keys.yaml:7:13: key 2RkT9pQwX4Zb: sha256: the same digest as in line 4 (want each key once)");
}

TEST(source_YamlSource, AllErrorsUpToTheCap) {
    std::string rows;
    for (unsigned i = 0; i < 30; ++i) {
        rows += row("    state: x\n", "2RkT9pQwX4" + std::to_string(10 + i), hex64(i));
    }
    const auto parsed = parse_key_set(set(rows), "keys.yaml", [](const KeyRow&) {});
    ASSERT_FALSE(parsed);
    EXPECT_EQ(parsed.error().messages.size(), kYamlErrorsKept);
    EXPECT_EQ(parsed.error().total, 30u);
    EXPECT_NE(parsed.error().joined().find("\n(and 10 more errors)"), std::string::npos);
}

TEST(source_YamlSource, GoodRowsBesideBadOnesAreProvisional) {
    size_t sunk = 0;
    const auto parsed = parse_key_set(
        set(row("", "2RkT9pQwX4Z1", hex64(1)) + row("    state: x\n", "2RkT9pQwX4Z2", hex64(2)) +
            row("", "2RkT9pQwX4Z3", hex64(3))),
        "keys.yaml", [&](const KeyRow&) { ++sunk; });
    EXPECT_FALSE(parsed);
    EXPECT_EQ(sunk, 2u);
}

TEST(source_YamlSource, TruncatedText) {
    const std::string text = set(row("    metadata: {team: x, tags: [a, \"b\"]}\n"));
    EXPECT_EQ(error_of(text.substr(0, text.size() - 1)),
              "keys.yaml:6:40: the file ends within a line; it may be cut short (want a newline at the end)");
    EXPECT_EQ(error_of(text.substr(0, text.size() - 3) + "\n"),
              "keys.yaml:7:1: broken YAML: 'end of sequence flow not found' (want well-formed YAML)");
    EXPECT_EQ(error_of(set(row("    name: \"abc\n"))),
              "keys.yaml:6:11: a quote that is never closed (want one at the end of the value)");
    EXPECT_EQ(error_of(set("  - id: 2RkT9pQwX4Za\n    sha256:\n")),
              "keys.yaml:4:5: key 2RkT9pQwX4Za: sha256: no SHA-256 (want 64 hexadecimal digits; these are 0 "
              "bytes)");
    // What is cut within a line is never taken.
    for (size_t n = 0; n < text.size(); ++n) {
        const auto rows = parse_key_rows(text.substr(0, n), "keys.yaml");
        EXPECT_TRUE(!rows || text[n - 1] == '\n') << n;
    }
}

TEST(source_YamlSource, AliasesAnchorsTagsAndSecondDocuments) {
    EXPECT_EQ(
        errors_of(set(row("    owner: &a x\n    name: *a\n"))),
        (std::vector<std::string>{"keys.yaml:6:12: an anchor (&name) is not allowed (write each value out)",
                                  "keys.yaml:7:11: an alias (*name) is not allowed (write the value out)"}));
    EXPECT_EQ(error_of(set(row("    owner: !!str x\n"))),
              "keys.yaml:6:12: a tag (!name) is not allowed (want a plain value)");
    EXPECT_EQ(error_of(set(row("    metadata: ! {}\n"))),
              "keys.yaml:6:15: a tag (!name) is not allowed (want a plain value)");
    EXPECT_EQ(error_of("keys: []\n---\nkeys: []\n"),
              "keys.yaml:2:1: something follows the end of the first document (want one YAML document)");
    EXPECT_EQ(error_of("{keys: []}\nmore\n"),
              "keys.yaml:2:1: something follows the end of the first document (want one YAML document)");
}

TEST(source_YamlSource, AliasBombIsRefusedWhereItStarts) {
    std::string bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n";
    for (char c = 'b'; c <= 'i'; ++c) {
        const std::string before(1, static_cast<char>(c - 1));
        bomb += std::string(1, c) + ": &" + c + " [*" + before;
        for (int i = 0; i < 8; ++i) {
            bomb += ", *" + before;
        }
        bomb += "]\n";
    }
    const auto errors = errors_of(bomb + "keys: []\n");
    ASSERT_EQ(errors.size(), kYamlErrorsKept);
    EXPECT_EQ(errors[0], "keys.yaml:1:1: unknown field 'a' (want version, scopes, plans, owners or keys)");
    EXPECT_EQ(errors[1], "keys.yaml:1:4: an anchor (&name) is not allowed (write each value out)");
    EXPECT_EQ(errors[4], "keys.yaml:2:8: an alias (*name) is not allowed (write the value out)");
}

std::string repeated(const std::string& what, size_t times) {
    std::string out;
    for (size_t i = 0; i < times; ++i) {
        out += what;
    }
    return out;
}

TEST(source_YamlSource, DeepNestingIsRefused) {
    const std::string deep = "nested deeper than 16 levels (want a flat file)";
    const std::string ahead =
        "runs on for more than 65536 bytes (close the quote or bracket, or write the list in lines that "
        "start with '- ')";
    const auto ends_with = [](const std::string& text, const std::string& end) {
        return text.ends_with(end);
    };
    EXPECT_PRED2(ends_with, errors_of(repeated("[", 1000) + repeated("]", 1000) + "\n").back(), deep);
    EXPECT_PRED2(ends_with, errors_of(repeated("- ", 1000) + "x\n").back(), deep);
    EXPECT_PRED2(ends_with, errors_of(repeated("{a: ", 1000) + repeated("}", 1000) + "\n").back(), deep);
    EXPECT_PRED2(ends_with, errors_of(repeated("? ", 1000) + "x\n").back(), deep);
    std::string stairs;
    for (size_t i = 0; i < 1000; ++i) {
        stairs += std::string(i, ' ') + "a:\n";
    }
    EXPECT_PRED2(ends_with, errors_of(stairs).back(), deep);
    // Megabytes of them never reach the parser as a whole.
    EXPECT_PRED2(ends_with, errors_of(repeated("[\n", 5'000'000)).back(), ahead);
    EXPECT_PRED2(ends_with, errors_of(repeated("[", 1'000'000) + "\n").back(), ahead);
    EXPECT_PRED2(ends_with, errors_of(repeated("{a: \n", 2'000'000)).back(), ahead);
    EXPECT_PRED2(ends_with, errors_of(repeated("[a, ", 200'000) + "\n").back(), ahead);
}

// The parser streams a flow list that starts on the line of its name, and holds any other until it is closed.
TEST(source_YamlSource, LongFlowLists) {
    std::string text;
    for (unsigned i = 0; i < 2000; ++i) {
        text += "{id: 2RkT9pQw" + std::to_string(1000 + i) + ", sha256: " + hex64(i + 0xa0000) +
                ", environment: live},\n";
    }
    EXPECT_EQ(parse_key_rows("keys: [\n" + text + "]\n", "keys.yaml").value().size(), 2000u);
    EXPECT_EQ(error_of("keys:\n  [" + text + "]\n"),
              "keys.yaml:1:1: the value that follows here runs on for more than 65536 bytes (close the quote "
              "or bracket, "
              "or write the list in lines that start with '- ')");
}

TEST(source_YamlSource, LongCommentsAreNoMatter) {
    const std::string comments =
        repeated("   # nothing to see here, only a comment that somebody left\n\n", 5000);
    EXPECT_EQ(only_row(comments + set(row(comments))).id, "2RkT9pQwX4Za");
}

TEST(source_YamlSource, LimitsOfSize) {
    YamlLimits limits;
    limits.keys_max = 1;
    EXPECT_EQ(
        error_of(set(row("", "2RkT9pQwX4Z1", hex64(0xa1)) + row("", "2RkT9pQwX4Z2", hex64(0xa2))), limits),
        "keys.yaml:6:5: more than 1 keys (the limit)");
    limits = {};
    limits.file_bytes_max = 20;
    EXPECT_EQ(
        error_of(set(row()), limits),
        "keys.yaml:1:1: the file has " + std::to_string(set(row()).size()) + " bytes (want at most 20)");
    limits = {};
    EXPECT_EQ(error_of(set(row("    name: " + std::string(20'000, 'n') + "\n"))),
              "keys.yaml:6:11: a value of 20000 bytes (want at most 16384)");
    // NOLINTNEXTLINE(bugprone-string-constructor): as long as it looks
    const std::string hundred_mb = set(row("    name: " + std::string(100'000'000, 'n') + "\n"));
    EXPECT_EQ(error_of(hundred_mb),
              "keys.yaml:6:1: the line is longer than 1048576 bytes (want shorter lines)");
}

TEST(source_YamlSource, MetadataErrors) {
    const std::string at = "keys.yaml:6:";
    const std::string key = ": key 2RkT9pQwX4Za: metadata: ";
    EXPECT_EQ(error_of(set(row("    metadata: {a: 1, a: 2}\n"))),
              at + "22" + key + "'a' stands twice in one mapping (want each name once)");
    EXPECT_EQ(error_of(set(row("    metadata: {a: .inf}\n"))),
              at + "19" + key + "'.inf' is a number that JSON cannot express (quote it to keep it as text)");
    EXPECT_EQ(error_of(set(row("    metadata: {~: 1}\n"))),
              at + "16" + key + "a name is null or missing (want a string; quote it when it is one)");
    EXPECT_EQ(error_of(set(row("    metadata: {? [x] : 1}\n"))),
              at + "18" + key + "a name is a list or a mapping (want a string)");
    EXPECT_EQ(error_of(set(row("    metadata: {a: " + std::string(4096, 'x') + "}\n"))),
              at + "15" + key + "more than 4096 bytes as JSON (want at most that)");
    const std::string longest =
        only_row(set(row("    metadata: {a: " + std::string(4088, 'x') + "}\n"))).metadata;
    EXPECT_EQ(longest.size(), kMetadataBytesMax);
    EXPECT_EQ(
        only_row(
            set(row(
                "    metadata:\n      team: x\n      on: [1, -0.5, +3, 1e3, .5, 0o17, \"q\\\"\\u0001\"]\n")))
            .metadata,
        R"({"team":"x","on":[1,-0.5,3,1e3,0.5,15,"q\"\u0001"]})");
}

TEST(source_TextCheck, BytesThatAreNoText) {
    const auto with = [](const std::string& bytes) {
        return error_of(set(row("    name: ä" + bytes + "x\n")));
    };
    const std::string at = "keys.yaml:6:12: ";
    EXPECT_EQ(with("\xC3("), at + "invalid UTF-8 at byte 0xC3 (want the file saved as UTF-8)");
    EXPECT_EQ(with("\xC0\x80"), at + "invalid UTF-8 at byte 0xC0 (want the file saved as UTF-8)");
    EXPECT_EQ(with("\xED\xA0\x80"), at + "invalid UTF-8 at byte 0xED (want the file saved as UTF-8)");
    EXPECT_EQ(with("\xF4\x90\x80\x80"), at + "invalid UTF-8 at byte 0xF4 (want the file saved as UTF-8)");
    EXPECT_EQ(with("\xE2\x82"), at + "invalid UTF-8 at byte 0xE2 (want the file saved as UTF-8)");
    EXPECT_EQ(with(std::string(1, '\0')), at + "a NUL byte (want UTF-8 text)");
    EXPECT_EQ(with("\r"), at + "a carriage return without a newline (want lines that end in LF or CR LF)");
    EXPECT_EQ(with("\x7F"), at + "the control character 0x7F (want text without control characters)");
    EXPECT_EQ(with("\xC2\x80"),
              at + "a character that YAML does not allow (want text without control characters)");
    EXPECT_EQ(with("\xEF\xBB\xBF"), at + "a byte order mark amid the text (allowed at the start only)");
    EXPECT_EQ(error_of(std::string("\xFF\xFEk\0e\0y\0s\0", 10)),
              "keys.yaml:1:1: invalid UTF-8 at byte 0xFF (want the file saved as UTF-8)");
}

// yaml-cpp takes the byte 0x04 for the end of its input: all keys behind it would silently be gone.
TEST(source_TextCheck, TheByteThatEndsYamlCppsInput) {
    EXPECT_EQ(error_of(set(row("    # a\x04 comment\n", "2RkT9pQwX4Z1", hex64(0xa1)) +
                           row("", "2RkT9pQwX4Z2", hex64(0xa2)))),
              "keys.yaml:6:8: the control character 0x04 (want text without control characters)");
}

TEST(source_TextCheck, EveryPositionIsLookedAt) {
    const std::string text(40, 'a');
    for (size_t i = 0; i < text.size(); ++i) {
        for (const char bad : {'\0', '\x04', '\x1F', '\x7F', '\x80', '\xFF', '\r'}) {
            std::string broken = text + "\n";
            broken[i] = bad;
            const bool line_end = bad == '\r' && i + 1 == text.size();
            const TextFault fault = check_text(broken, 100);
            EXPECT_EQ(fault.what.empty(), line_end) << i << " " << int(bad);
            EXPECT_TRUE(line_end || fault.offset == i) << i << " " << int(bad);
        }
    }
    EXPECT_EQ(check_text(text + "\n", 40).what, "");
    EXPECT_NE(check_text(text + "\n", 39).what, "");
}

TEST(source_Rfc3339, Times) {
    EXPECT_EQ(parse_rfc3339("1970-01-01T00:00:00Z"), 0);
    EXPECT_EQ(parse_rfc3339("2000-02-29t12:00:00.999z"), 951825600);
    EXPECT_EQ(parse_rfc3339("2026-11-23T02:00:00-05:30"), parse_rfc3339("2026-11-23T07:30:00Z"));
    for (const char* bad :
         {"", "2027", "2027-12-01", "2027-13-01T00:00:00Z", "2027-02-29T00:00:00Z", "2027-12-01 00:00:00Z",
          "2027-12-01T00:00:00", "2027-12-01T24:00:00Z", "2027-12-01T00:60:00Z", "2027-12-01T00:00:60Z",
          "2027-12-01T00:00:00.Z", "2027-12-01T00:00:00+24:00", "2027-12-01T00:00:00Zx",
          "2027-12-01T00:00:00+0100", "+027-12-01T00:00:00Z", "1764547200"}) {
        EXPECT_FALSE(parse_rfc3339(bad)) << bad;
    }
    for (const int64_t t : {int64_t{1}, int64_t{951825599}, kExpiresMax_s}) {
        EXPECT_EQ(parse_rfc3339(format_rfc3339(t)), t);
    }
    EXPECT_EQ(format_rfc3339(kExpiresMax_s), "2242-03-16T12:56:30Z");
}

}  // namespace
}  // namespace apikeyd
