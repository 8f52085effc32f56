#include "source/yaml_editor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <random>

#include "source/limit_text.h"
#include "source/rfc3339.h"
#include "source/row_text.h"
#include "source/yaml_source.h"

namespace apikeyd {
namespace {

std::string hex64(unsigned n) {
    char digits[65];
    std::snprintf(digits, sizeof digits, "%064x", n);
    return digits;
}

KeyRow make_row(unsigned n) {
    KeyRow row;
    char id[13];
    std::snprintf(id, sizeof id, "key%09u", n);
    row.id = id;
    for (size_t i = 0; i < 4; ++i) {
        row.digest[31 - i] = static_cast<uint8_t>(n >> (8 * i));
    }
    row.digest[0] = 0xAB;
    row.environment = "live";
    return row;
}

KeySetText parsed(const std::string& text) {
    auto set = KeySetText::parse(text, "keys.yaml");
    EXPECT_TRUE(set) << set.error().message << "\n" << text;
    return set ? *std::move(set) : KeySetText{};
}

/// The text of `set`, which must parse to exactly the rows it says it has.
std::string checked(const KeySetText& set) {
    std::string text = set.text();
    const auto rows = parse_key_rows(text, "keys.yaml");
    EXPECT_TRUE(rows) << rows.error().message << "\n" << text;
    EXPECT_TRUE(rows && *rows == set.rows()) << text;
    return text;
}

const std::string kTwo =
    "# my keys\n"
    "version: 1   # of the format\n"
    "\n"
    "keys:   # all of them\n"
    "  # the build server\n"
    "  - id: key000000001   # public\n"
    "    sha256: '" +
    hex64(1) +
    "'\n"
    "    environment:   live # not test\n"
    "    # about the name\n"
    "    name: \"CI \\\n"
    "      deploy\"\n"
    "\n"
    "  # the other\n"
    "  -\n"
    "    sha256: \"" +
    hex64(2) +
    "\"\n"
    "    id: key000000002\n"
    "    environment: test\n"
    "    expires:\n"
    "    metadata:\n"
    "      team: x # inside\n"
    "      tags: [a,\n"
    "             b]\n"
    "    owner: acme\n"
    "# the end\n";

TEST(source_YamlEditor, UntouchedTextStaysByteForByte) {
    for (const std::string& text :
         {kTwo, std::string("keys:   [ ]  # none\n"), std::string("\xEF\xBB\xBFkeys:\n  []\nversion: 1\n"),
          std::string("{keys: [], version: 1}\n"), std::string("---\r\nkeys: []\r\n...\r\n")}) {
        EXPECT_EQ(checked(parsed(text)), text);
    }
}

TEST(source_YamlEditor, ChangesOneValueInPlace) {
    KeySetText set = parsed(kTwo);
    KeyRow row = *set.find("key000000001");
    EXPECT_EQ(row.name, "CI deploy");
    row.environment = "test";
    row.name = "a: b";
    ASSERT_TRUE(set.upsert(row));
    std::string wanted = kTwo;
    wanted.replace(wanted.find("live # not"), 4, "test");
    const std::string name = "\"CI \\\n      deploy\"";
    wanted.replace(wanted.find(name), name.size(), "\"a: b\"");
    EXPECT_EQ(checked(set), wanted);
}

TEST(source_YamlEditor, RevokesByOneNewLineAndFillsEmptyValues) {
    KeySetText set = parsed(kTwo);
    KeyRow row = *set.find("key000000002");
    row.state = KeyState::kRevoked;
    row.expires_s = parse_rfc3339("2027-12-01T00:00:00Z");
    row.metadata = R"({"team": "y"})";
    ASSERT_TRUE(set.upsert(row));
    std::string wanted = kTwo;
    const std::string sha = "    sha256: \"" + hex64(2) + "\"\n";
    wanted.insert(wanted.find(sha) + sha.size(), "    state: revoked\n");
    wanted.replace(wanted.find("expires:\n"), 9, "expires: 2027-12-01T00:00:00Z\n");
    const std::string metadata = "team: x # inside\n      tags: [a,\n             b]";
    wanted.replace(wanted.find(metadata), metadata.size(), "{\"team\":\"y\"}");
    EXPECT_EQ(checked(set), wanted);
}

TEST(source_YamlEditor, DropsWhatARowNoLongerHas) {
    KeySetText set = parsed(kTwo);
    KeyRow row = *set.find("key000000002");
    row.metadata.clear();
    row.owner.clear();
    ASSERT_TRUE(set.upsert(row));
    const std::string text = checked(set);
    EXPECT_NE(text.find("      {}\n    owner: \"\"\n# the end\n"), std::string::npos) << text;
}

TEST(source_YamlEditor, AppendsInTheStyleOfTheFile) {
    KeySetText set = parsed(kTwo);
    KeyRow row = make_row(3);
    row.name = "third";
    row.state = KeyState::kDisabled;
    ASSERT_TRUE(set.upsert(row));
    const std::string added = "  - id: key000000003\n    sha256: ab" + hex64(3).substr(2) +
                              "\n    state: disabled\n    environment: live\n    name: third\n";
    std::string wanted = kTwo;
    wanted.insert(wanted.find("# the end"), added);
    EXPECT_EQ(checked(set), wanted);
    set = parsed("keys:\r\n- id: key000000001\r\n  sha256: " + hex64(0xa1) +
                 "\r\n  environment: live\r\nversion: 1\r\n");
    ASSERT_TRUE(set.upsert(make_row(3)));
    EXPECT_NE(checked(set).find("live\r\n- id: key000000003\r\n  sha256: ab"), std::string::npos);
    EXPECT_TRUE(set.text().ends_with("  environment: live\r\nversion: 1\r\n")) << set.text();
}

TEST(source_YamlEditor, FirstKeyAndLastKey) {
    for (const char* const text : {"version: 1\nkeys: []  # none yet\n# end\n",
                                   "  keys:\n    []\n  version: 1\n", "keys: []\n", "keys: []# touching\n"}) {
        KeySetText set = parsed(text);
        ASSERT_TRUE(set.upsert(make_row(1)));
        EXPECT_EQ(checked(set).find('['), std::string::npos) << set.text();
        set = parsed(set.text());
        EXPECT_EQ(set.erase("key000000001").value(), true);
        EXPECT_EQ(set.erase("key000000001").value(), false);
        EXPECT_EQ(set.size(), 0u);
        EXPECT_NE(checked(set).find("keys: []"), std::string::npos) << set.text();
    }
    KeySetText set = parsed(KeySetText::empty_text());
    ASSERT_TRUE(set.upsert(make_row(1)));
    ASSERT_TRUE(set.erase("key000000001").value());
    EXPECT_EQ(checked(set), KeySetText::empty_text());
}

TEST(source_YamlEditor, ErasesTheLinesOfOneKey) {
    KeySetText set = parsed(kTwo);
    ASSERT_TRUE(set.erase("key000000001").value());
    const size_t begin = kTwo.find("  - id: key000000001");
    const std::string last = "      deploy\"\n";
    const size_t end = kTwo.find(last) + last.size();
    EXPECT_EQ(checked(set), kTwo.substr(0, begin) + kTwo.substr(end));
}

const std::string kTerms =
    "scopes: [a.b, a.c, d.e]\n"
    "plans:\n"
    "  - {name: free, limits: [{name: burst, rate: 9/s}, {name: daily, quota: 5/day}]}\n"
    "keys:\n"
    "  - id: key000000001\n"
    "    sha256: '" +
    hex64(1) +
    "'\n"
    "    environment: live\n"
    "    plan: free # for all\n"
    "    scopes:   # as asked for\n"
    "      # to read\n"
    "      - a.b   # reports\n"
    "      - 'd.e'\n"
    "    addresses: [ 192.0.2.0/24 , '2001:DB8::/32' ]   # the office\n"
    "    limits:\n"
    "    - name: burst   # slower\n"
    "      rate: 2/min\n"
    "    # until May\n"
    "    - {name: daily, quota: 7/day}   # more\n"
    "# the end\n";

TEST(source_YamlEditor, ChangesTermsInPlaceElementByElement) {
    KeySetText set = parsed(kTerms);
    KeyRow row = *set.find("key000000001");
    KeyTerms terms = terms_of(row);
    terms.scopes = {"a.b", "a.c"};
    terms.addresses.push_back(*parse_address_range("10.1.2.3"));
    terms.overrides[0].burst = 5;
    row.terms = std::make_shared<const KeyTerms>(terms);
    ASSERT_TRUE(set.upsert(row));
    std::string wanted = kTerms;
    const auto change = [&wanted](const std::string& from, const std::string& to) {
        wanted.replace(wanted.find(from), from.size(), to);
    };
    change("      - 'd.e'\n", "      - a.c\n");
    change("'2001:DB8::/32' ]", "'2001:DB8::/32', \"10.1.2.3\" ]");
    change("name: burst   # slower\n      rate: 2/min\n", "{name: burst, rate: 2/min, burst: 5}\n");
    EXPECT_EQ(checked(set), wanted);

    terms.scopes.clear();
    terms.addresses.erase(terms.addresses.begin());
    terms.overrides.erase(terms.overrides.begin());
    row.terms = std::make_shared<const KeyTerms>(terms);
    ASSERT_TRUE(set.upsert(row));
    change("      - a.b   # reports\n      - a.c\n", "");
    change("192.0.2.0/24 , ", "");
    change("    - {name: burst, rate: 2/min, burst: 5}\n", "");
    EXPECT_EQ(checked(set), wanted);

    terms.scopes = {"*"};
    terms.addresses.clear();
    row.terms = std::make_shared<const KeyTerms>(terms);
    ASSERT_TRUE(set.upsert(row));
    change("scopes:   #", "scopes: [\"*\"]   #");
    change("[ '2001:DB8::/32', \"10.1.2.3\" ]", "[]");
    EXPECT_EQ(checked(set), wanted);

    row.terms = nullptr;
    ASSERT_TRUE(set.upsert(row));
    change("plan: free #", "plan: null #");
    change("[\"*\"]   #", "[]   #");
    change("    - {name: daily, quota: 7/day}   # more\n", "");
    EXPECT_EQ(checked(set), wanted);
}

TEST(source_YamlEditor, AddsTermsToAKeyThatHasNone) {
    KeySetText set = parsed(kTerms);
    KeyRow row = make_row(2);
    ASSERT_TRUE(set.upsert(row));
    row.terms = std::make_shared<const KeyTerms>(terms_of(*set.find("key000000001")));
    ASSERT_TRUE(set.upsert(row));
    EXPECT_NE(checked(set).find("    state: active\n    plan: free\n"
                                "    limits: [{name: burst, rate: 2/min}, {name: daily, quota: 7/day}]\n"
                                "    addresses: [\"192.0.2.0/24\", \"2001:db8::/32\"]\n"
                                "    environment: live\n    scopes: [a.b, d.e]\n# the end\n"),
              std::string::npos)
        << set.text();
    // What is to stand elsewhere goes and comes again.
    KeyTerms turned = terms_of(row);
    std::reverse(turned.addresses.begin(), turned.addresses.end());
    row = *set.find("key000000001");
    row.terms = std::make_shared<const KeyTerms>(turned);
    ASSERT_TRUE(set.upsert(row));
    EXPECT_NE(checked(set).find("addresses: [ '2001:DB8::/32', \"192.0.2.0/24\" ]   # the office\n"),
              std::string::npos)
        << set.text();
    EXPECT_NE(set.text().find("# until May"), std::string::npos);
}

PolicySet policies_of(const std::string& text) {
    const auto parsed_set = parse_key_set(text, "keys.yaml", [](const KeyRow&) {});
    EXPECT_TRUE(parsed_set) << parsed_set.error().joined() << "\n" << text;
    return parsed_set ? parsed_set->policies : PolicySet{};
}

/// The text of `set`, which must parse to the keys and policies it says it has.
std::string all_checked(const KeySetText& set) {
    std::string text = checked(set);
    EXPECT_EQ(policies_of(text), set.policies()) << text;
    return text;
}

const std::string kPolicies =
    "# ours\n"
    "version: 1\n"
    "scopes: [a.b,  'a.c' ] # two\n"
    "# who pays\n"
    "plans: # three\n"
    "\n"
    "  # for all\n"
    "  - name: free   # of charge\n"
    "    limits:\n"
    "      - {name: burst, rate: 9/s}   # short\n"
    "      # long\n"
    "      - name: daily\n"
    "        quota: 5/day # a day\n"
    "  # paid\n"
    "  - {name: team, limits: [{name: burst, rate: 99/s}]}   # more\n"
    "  - name: none\n"
    "keys:   # all of them\n"
    "  # the build server\n"
    "  - id: key000000001   # public\n"
    "    sha256: '" +
    hex64(1) +
    "'\n"
    "    environment: live\n"
    "    owner: acme\n"
    "    plan: free\n"
    "    scopes: [a.*]\n"
    "    limits: [{name: daily, quota: 7/day}]\n"
    "# behind\n"
    "owners:\n"
    "- name: acme # first\n"
    "  plan: team\n"
    "- {name: other}\n"
    "# the end\n";

TEST(source_YamlEditor, PlansAreChangedInPlace) {
    KeySetText set = parsed(kPolicies);
    std::string wanted = kPolicies;
    const auto change = [&wanted](const std::string& from, const std::string& to) {
        ASSERT_NE(wanted.find(from), std::string::npos) << from;
        wanted.replace(wanted.find(from), from.size(), to);
    };
    const LimitRow hourly{"hourly", LimitForm::kQuotaPerHour, 3, 0, 0, true};
    PlanRow plan = set.policies().plans[0];
    plan.limits[0].burst = 20;
    plan.limits.push_back(hourly);
    ASSERT_TRUE(set.upsert_plan(plan));
    change("{name: burst, rate: 9/s}   # short", "{name: burst, rate: 9/s, burst: 20}   # short");
    change("        quota: 5/day # a day\n",
           "        quota: 5/day # a day\n      - {name: hourly, quota: 3/hour, shadow: true}\n");
    EXPECT_EQ(all_checked(set), wanted);
    plan.limits.erase(plan.limits.begin());
    ASSERT_TRUE(set.upsert_plan(plan));
    change("      - {name: burst, rate: 9/s, burst: 20}   # short\n", "");
    EXPECT_EQ(all_checked(set), wanted);
    plan = set.policies().plans[1];
    plan.limits = {hourly};
    ASSERT_TRUE(set.upsert_plan(plan));
    change("[{name: burst, rate: 99/s}]", "[{name: hourly, quota: 3/hour, shadow: true}]");
    EXPECT_EQ(all_checked(set), wanted);
    ASSERT_TRUE(set.upsert_plan({"none", {hourly}}));
    change("  - name: none\n", "  - name: none\n    limits: [{name: hourly, quota: 3/hour, shadow: true}]\n");
    EXPECT_EQ(all_checked(set), wanted);
    ASSERT_TRUE(set.erase_plan("none"));
    change("  - name: none\n    limits: [{name: hourly, quota: 3/hour, shadow: true}]\n", "");
    EXPECT_EQ(all_checked(set), wanted);
    ASSERT_TRUE(set.upsert_plan({"v1.2", {hourly, {"daily", LimitForm::kQuotaPerDay, 1, 0, 0, false}}}));
    change("keys:   #",
           "  - name: v1.2\n    limits:\n      - {name: hourly, quota: 3/hour, shadow: true}\n"
           "      - {name: daily, quota: 1/day}\nkeys:   #");
    EXPECT_EQ(all_checked(set), wanted);
    KeyRow row = *set.find("key000000001");
    row.name = "x";
    ASSERT_TRUE(set.upsert(row));
    change("    owner: acme\n", "    owner: acme\n    name: x\n");
    EXPECT_EQ(all_checked(set), wanted);
}

TEST(source_YamlEditor, OwnersAndScopesAreChangedInPlace) {
    KeySetText set = parsed(kPolicies);
    std::string wanted = kPolicies;
    const auto change = [&wanted](const std::string& from, const std::string& to) {
        ASSERT_NE(wanted.find(from), std::string::npos) << from;
        wanted.replace(wanted.find(from), from.size(), to);
    };
    ASSERT_TRUE(set.upsert_owner({"acme", ""}));
    change("  plan: team\n", "  plan: null\n");
    ASSERT_TRUE(set.upsert_owner({"other", "free"}));
    change("- {name: other}\n", "- {name: other, plan: free}\n");
    ASSERT_TRUE(set.upsert_owner({"Zürich: AG", "team"}));
    change("# the end\n", "- {name: \"Zürich: AG\", plan: team}\n# the end\n");
    ASSERT_TRUE(set.erase_owner("other"));
    change("- {name: other, plan: free}\n", "");
    ASSERT_TRUE(set.add_scope("d"));
    change("'a.c' ]", "'a.c', d ]");
    ASSERT_TRUE(set.erase_scope("a.b"));
    change("[a.b,  'a.c'", "['a.c'");
    EXPECT_EQ(all_checked(set), wanted);
}

TEST(source_YamlEditor, PartsThatAreMissingAreMade) {
    const LimitRow daily{"daily", LimitForm::kQuotaPerDay, 1, 0, 0, false};
    for (const auto& [before, after] : std::vector<std::pair<std::string, std::string>>{
             {"# head\nversion: 1   # one\nkeys: []\n",
              "# head\nversion: 1   # one\nscopes:\n  - a.b\nplans:\n  - name: p\n    limits:\n"
              "      - {name: daily, quota: 1/day}\nowners:\n  - {name: o, plan: p}\nkeys: []\n"},
             {"keys: []# none\nversion: 1\n# end\n",
              "keys: []# none\nversion: 1\nscopes:\n  - a.b\nplans:\n  - name: p\n    limits:\n"
              "      - {name: daily, quota: 1/day}\nowners:\n  - {name: o, plan: p}\n# end\n"},
             {"# head\nkeys:\n  []\n",
              "# head\nscopes:\n  - a.b\nplans:\n  - name: p\n    limits:\n"
              "      - {name: daily, quota: 1/day}\nowners:\n  - {name: o, plan: p}\nkeys:\n  []\n"},
             {"scopes: []# none\nplans:   # none yet\nowners: ~ # nor here\nkeys: []\n",
              "scopes: # none\n  - a.b\nplans:   # none yet\n  - name: p\n    limits:\n"
              "      - {name: daily, quota: 1/day}\nowners: # nor here\n  - {name: o, plan: p}\nkeys: []\n"},
             {"scopes: [ # none\n]\nplans: []\nowners: []\nkeys: []\n",
              "scopes: [a.b # none\n]\nplans:\n  - name: p\n    limits:\n      - {name: daily, quota: "
              "1/day}\n"
              "owners:\n  - {name: o, plan: p}\nkeys: []\n"},
             {"{keys: []}\n",
              "{owners: [{name: o, plan: p}], plans: [{name: p, limits: [{name: daily, quota: 1/day}]}], "
              "scopes: [a.b], keys: []}\n"},
             {"{plans: [], scopes: , owners: null, keys: []}\n",
              "{plans: [{name: p, limits: [{name: daily, quota: 1/day}]}], scopes: [a.b] , "
              "owners: [{name: o, plan: p}], keys: []}\n"}}) {
        SCOPED_TRACE(before);
        KeySetText set = parsed(before);
        ASSERT_TRUE(set.add_scope("a.b"));
        const auto made = set.upsert_plan({"p", {daily}});
        ASSERT_TRUE(made) << made.error().message;
        ASSERT_TRUE(set.upsert_owner({"o", "p"}));
        EXPECT_EQ(all_checked(set), after);
        KeyRow row = make_row(1);
        row.terms = std::make_shared<const KeyTerms>(KeyTerms{.scopes = {"a.b"}, .plan = "p"});
        ASSERT_TRUE(set.upsert(row));
        ASSERT_TRUE(set.upsert_plan({"q", {}}));
        all_checked(set);
        row.terms = nullptr;
        ASSERT_TRUE(set.upsert(row));
        for (const auto& done :
             {set.erase_owner("o"), set.erase_plan("q"), set.erase_plan("p"), set.erase_scope("a.b")}) {
            EXPECT_TRUE(done) << done.error().message;
        }
        EXPECT_EQ(set.policies(), PolicySet{});
        all_checked(set);
        ASSERT_TRUE(set.upsert_plan({"p", {daily}}));
        all_checked(set);
    }
    KeySetText windows = parsed("version: 1\r\nkeys:\r\n- id: key000000001\r\n  sha256: " + hex64(0xa1) +
                                "\r\n  environment: live\r\n");
    ASSERT_TRUE(windows.upsert_plan({"p", {daily}}));
    EXPECT_TRUE(all_checked(windows).starts_with(
        "version: 1\r\nplans:\r\n  - name: p\r\n    limits:\r\n      - {name: daily, quota: 1/day}\r\nkeys:"))
        << windows.text();
}

TEST(source_YamlEditor, WhatIsInUseStays) {
    KeySetText set = parsed(kPolicies);
    const auto said = [](const Result<void>& result) { return result ? "done" : result.error().message; };
    KeyRow row = make_row(2);
    row.owner = "other";
    row.state = KeyState::kRevoked;
    row.terms = std::make_shared<const KeyTerms>(KeyTerms{.scopes = {"a.c"}, .plan = "free"});
    ASSERT_TRUE(set.upsert(row));
    const std::string before = set.text();
    EXPECT_EQ(said(set.erase_plan("free")),
              "plan free: used by 2 keys, the first key000000001 (give them another plan first)");
    EXPECT_EQ(said(set.erase_plan("team")),
              "plan team: used by 1 owners, the first 'acme' (give them another plan first)");
    EXPECT_EQ(said(set.erase_owner("acme")),
              "owner 'acme': used by 1 keys, the first key000000001 (revoke them or give them another owner "
              "first)");
    EXPECT_EQ(said(set.erase_scope("a.c")),
              "scope a.c: used by 1 keys, the first key000000002 (grant them others first)");
    EXPECT_EQ(said(set.upsert_owner({"acme", "gold"})),
              "owner 'acme': plan: 'gold' is defined nowhere (want it under plans:)");
    EXPECT_EQ(
        said(set.upsert_plan({"free", {{"burst", LimitForm::kRate, 1, 1, 1, false}}})),
        "plan free: key key000000001: limits: daily is no limit of the key's plan (it takes the place of "
        "one)");
    EXPECT_EQ(
        said(set.upsert_plan({"free", {{"daily", LimitForm::kQuotaPerHour, 1, 0, 0, false}}})),
        "plan free: key key000000001: limits: daily is 1/hour in the key's plan (want another figure of "
        "the same kind and period)");
    EXPECT_EQ(said(set.upsert_owner({"new\nline", ""})),
              "owner 'new\\u000Aline': owner number 3: name: want 1 to 255 bytes of plain text");
    EXPECT_EQ(set.text(), before);
    EXPECT_EQ(said(set.erase_scope("a.b")), "done") << "a.* still covers a.c";
    EXPECT_EQ(said(set.erase_owner("other")), "done") << "its only key is revoked";
    all_checked(set);
}

TEST(source_YamlEditor, FlowForms) {
    const auto flow = [](unsigned n) {
        return "{id: key00000000" + std::to_string(n) + ", sha256: '" + hex64(n) + "', environment: live}";
    };
    KeySetText set = parsed("keys:\n  - " + flow(1) + "  # one\n  - {\"id\":\"key000000002\",\"sha256\":\"" +
                            hex64(2) + "\",\"environment\":\"live\",\n     }\n");
    KeyRow row = *set.find("key000000001");
    row.state = KeyState::kRevoked;
    ASSERT_TRUE(set.upsert(row));
    row = *set.find("key000000002");
    row.environment = "test";
    row.owner = "a, b";
    ASSERT_TRUE(set.upsert(row));
    EXPECT_EQ(checked(set), "keys:\n  - {id: key000000001, sha256: '" + hex64(1) +
                                "', state: revoked, environment: live}  # one\n"
                                "  - {\"id\":\"key000000002\",\"sha256\":\"" +
                                hex64(2) + "\",\"environment\":test, owner: \"a, b\",\n     }\n");
    for (const std::string& text :
         {"keys: [" + flow(1) + ", " + flow(2) + "]\n",
          "keys: [\n  " + flow(1) + ",\n  " + flow(2) + " # two\n]\n",
          "{keys: [\n  " + flow(1) + ",\n  " + flow(2) + ", # two\n], version: 1}\n"}) {
        set = parsed(text);
        ASSERT_TRUE(set.upsert(make_row(3)));
        EXPECT_EQ(set.size(), 3u);
        checked(set);
        ASSERT_TRUE(set.erase("key000000003").value());
        EXPECT_EQ(set.size(), 2u);
        ASSERT_TRUE(set.erase("key000000001").value());
        row = *set.find("key000000002");
        row.state = KeyState::kRevoked;
        ASSERT_TRUE(set.upsert(row));
        EXPECT_EQ(checked(set).find("# two") == std::string::npos, text.find("# two") == std::string::npos)
            << set.text();
        ASSERT_TRUE(set.erase("key000000002").value());
        checked(set);
    }
    set = parsed("{keys: [ # none\n]}\n");
    ASSERT_TRUE(set.upsert(make_row(3)));
    EXPECT_NE(checked(set).find("# none"), std::string::npos);
}

TEST(source_YamlEditor, WhatTheFormatRefusesChangesNothing) {
    KeySetText set = parsed(kTwo);
    KeyRow row = make_row(3);
    row.digest = set.find("key000000002")->digest;
    EXPECT_EQ(set.upsert(row).error().message,
              "key key000000003: sha256: the same digest as key key000000002 (want each key once)");
    row = make_row(3);
    row.name = "two\nlines";
    EXPECT_EQ(
        set.upsert(row).error().message,
        "key key000000003: name: 'two\\u000Alines' has control characters (want one line of plain text)");
    row = *set.find("key000000001");
    row.environment = "Live!";
    EXPECT_EQ(set.upsert(row).error().message,
              "key key000000001: environment: 'Live!' is no environment (want 1 to 15 characters a-z0-9)");
    row = make_row(3);
    row.id = "short";
    EXPECT_FALSE(set.upsert(row));
    row = make_row(3);
    row.metadata = "[1]";
    EXPECT_FALSE(set.upsert(row));
    row = make_row(3);
    row.name = "\xFF";
    EXPECT_FALSE(set.upsert(row));
    row = make_row(3);
    row.expires_s = kExpiresMax_s + 1;
    EXPECT_FALSE(set.upsert(row));
    EXPECT_EQ(checked(set), kTwo);
    EXPECT_EQ(KeySetText::parse("keys: 1\n", "k.yaml").error().message,
              "k.yaml:1:7: keys: a single value (want a list of keys)");
}

TEST(source_YamlEditor, StringsThatNeedQuotes) {
    for (const char* plain : {"acme", "CI deploy", "a.b@c", "2RkT9pQwX4Za", "deadbeef1", "/x", "v1.2-rc"}) {
        EXPECT_EQ(yaml_string(plain), plain);
    }
    for (const char* quoted :
         {"",   " a", "a ",   "123",  "1e5", "12345678e901", "0x1F",       "null",  "Yes", "off",
          "~",  "-a", "a: b", "a #b", "{",   "1.5",          "2027-12-01", "12:30", "ä",   "@a",
          "%a", "!x", "&x",   "*x",   "-",   "a,b"}) {
        EXPECT_EQ(yaml_string(quoted), std::string("\"").append(quoted).append("\""));
    }
    EXPECT_EQ(yaml_string("a\"\\\n\x01"), R"("a\"\\\n\u0001")");
}

/// Draws rows, the ways to write them, and edits.
class Dice {
  public:
    explicit Dice(unsigned seed) : random_(seed) {}

    unsigned below(unsigned n) { return static_cast<unsigned>(random_() % n); }
    bool one_in(unsigned n) { return below(n) == 0; }
    template <typename T>
    const T& of(const std::vector<T>& choices) {
        return choices[below(static_cast<unsigned>(choices.size()))];
    }

    std::string name() {
        return of<std::string>({"",       "CI deploy",   "a: b",        "# x",
                                "Zürich", "it's",        "say \"x\"",   "null",
                                "0123",   "- a",         "{a}",         "[b",
                                "x,y",    "back\\slash", "two  blanks", "trailing ",
                                "|",      ">",           "&a",          "*b",
                                "!c",     "%d",          "@e",          "`f",
                                "? g",    "a:b",         "a #b",        "key: value, other",
                                "~",      "true"});
    }
    KeyRow row(unsigned n) {
        KeyRow row = make_row(n);
        change(row, 8);
        return row;
    }
    void change(KeyRow& row, unsigned times) {
        for (unsigned i = 0; i < times; ++i) {
            switch (below(10)) {
                case 8:
                case 9:
                    row.terms = terms(row.terms);
                    break;
                case 0:
                    row.state = static_cast<KeyState>(below(3));
                    break;
                case 1:
                    row.name = name();
                    break;
                case 2:
                    row.owner = name();
                    break;
                case 3:
                    row.environment = of<std::string>({"live", "test", "007", "e1"});
                    break;
                case 4:
                    row.expires_s =
                        one_in(3) ? std::nullopt : std::optional<int64_t>(1 + below(2'000'000'000));
                    break;
                case 5:
                    row.created_s = below(2'000'000'000);
                    break;
                case 6:
                    row.foreign = one_in(2);
                    break;
                default:
                    row.metadata =
                        of<std::string>({"", R"({"team":"x"})", R"({"a":[1,{"b":null}],"c":"#:,}]"})",
                                         R"({"n":-1.5,"t":true,"u":"Zürich"})"});
                    break;
            }
        }
    }

    /// Other terms than these, in one thing or more.
    std::shared_ptr<const KeyTerms> terms(const std::shared_ptr<const KeyTerms>& before) {
        KeyTerms made = before != nullptr ? *before : KeyTerms{};
        if (one_in(2)) {
            made.plan = of<std::string>({"", "free", "team"});
            std::erase_if(made.overrides, [&](const LimitRow&) { return true; });
        }
        if (one_in(2)) {
            made.scopes.clear();
            for (const char* scope : {"*", "a.*", "a.b", "a.c", "d"}) {
                if (one_in(2)) {
                    made.scopes.emplace_back(scope);
                }
            }
        }
        if (one_in(2)) {
            std::erase_if(made.addresses, [&](const AddressRangeRow&) { return one_in(2); });
            for (const char* text : {"10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1"}) {
                const AddressRangeRow range = *parse_address_range(text);
                if (one_in(3) &&
                    std::find(made.addresses.begin(), made.addresses.end(), range) == made.addresses.end()) {
                    made.addresses.push_back(range);
                }
            }
            if (one_in(4)) {
                std::shuffle(made.addresses.begin(), made.addresses.end(), random_);
            }
        }
        if (made.plan == "free" && one_in(2)) {
            std::erase_if(made.overrides, [&](const LimitRow&) { return one_in(2); });
            if (limit_named(made.overrides, "burst") == nullptr && one_in(2)) {
                made.overrides.push_back(
                    {"burst", LimitForm::kRate, 1 + below(3), 60, 1 + below(3), one_in(2)});
            }
            if (limit_named(made.overrides, "daily") == nullptr && one_in(2)) {
                made.overrides.push_back({"daily", LimitForm::kQuotaPerDay, below(3), 0, 0, one_in(2)});
            }
        }
        return made.empty() ? nullptr : std::make_shared<const KeyTerms>(std::move(made));
    }

    /// A list in block form, sometimes, with comments.
    std::string list(const std::vector<std::string>& elements, bool flow, const std::string& indent) {
        std::string out;
        if (flow || elements.empty() || one_in(2)) {
            for (const std::string& element : elements) {
                out +=
                    (out.empty() ? "" : of<std::string>({", ", " ,", ",\n        ", ", # c\n           "})) +
                    element;
            }
            return "[" + out + of<std::string>({"]", " ]", elements.empty() ? "]" : ",]"});
        }
        const std::string lead = indent + of<std::string>({"", "  ", "   "});
        for (const std::string& element : elements) {
            out += comment() + "\n" + (one_in(3) ? lead + "# above\n" : "") + lead +
                   of<std::string>({"- ", "-   ", "-\n" + lead + "   "}) + element;
        }
        return out;
    }
    std::string limit(const LimitRow& row, bool flow, const std::string& indent) {
        if (flow || one_in(2)) {
            return flow_limit(row);
        }
        const bool rate = row.form == LimitForm::kRate;
        return "{" + std::string(rate ? "rate" : "quota") + ": '" + format_limit(row) +
               "' , \"name\": " + row.name +
               (rate ? ",\n" + indent + "        burst: " + std::to_string(row.burst) : "") +
               (row.shadow ? ", shadow: True" : "") + "}";
    }
    void add_terms(std::vector<std::string>& out, const KeyRow& row, bool flow, const std::string& indent) {
        const KeyTerms& has = terms_of(row);
        const auto add = [&](bool needed, const std::string& name, const std::string& value) {
            if (needed || one_in(6)) {
                out.push_back(name + ": " + value);
            }
        };
        add(!has.plan.empty(), "plan", has.plan.empty() ? of<std::string>({"~", "null"}) : has.plan);
        std::vector<std::string> scopes;
        for (const std::string& scope : has.scopes) {
            scopes.push_back(scope == "*" ? "'*'" : scalar(scope, true, indent));
        }
        std::shuffle(scopes.begin(), scopes.end(), random_);
        add(!scopes.empty(), "scopes", list(scopes, flow, indent));
        std::vector<std::string> addresses;
        for (const AddressRangeRow& range : has.addresses) {
            addresses.push_back(scalar(format_address_range(range), true, indent));
        }
        add(!addresses.empty(), "addresses", list(addresses, flow, indent));
        std::vector<std::string> limits;
        for (const LimitRow& one : has.overrides) {
            limits.push_back(limit(one, flow, indent));
        }
        add(!limits.empty(), "limits", list(limits, flow, indent));
    }

    /// A string in one of the styles that can hold it.
    std::string scalar(const std::string& text, bool flow, const std::string& indent) {
        switch (below(flow ? 3 : 5)) {
            case 0: {
                std::string out = "'";
                for (const char c : text) {
                    out += c == '\'' ? "''" : std::string(1, c);
                }
                return out + "'";
            }
            case 1: {
                std::string out;
                append_json_string(out, text);
                return out;
            }
            case 3:
                return text.empty() || text.front() == ' ' || text.back() == ' '
                           ? yaml_string(text)
                           : "|-  # block\n" + indent + "   " + text;
            case 4:
                return text.empty() || text.front() == ' ' || text.back() == ' '
                           ? yaml_string(text)
                           : ">-\n" + indent + " " + text + "\n";
            default:
                return yaml_string(text);
        }
    }
    std::string comment() { return of<std::string>({"", "", "  # c", " #: '\"[{"}); }
    std::string gap(const std::string& indent) {
        return of<std::string>({"", "", "", "\n", indent + "# between\n", "# at the margin\n\n",
                                last_block_ ? "" : "        # deep\n"});
    }  // below a block scalar that would be its content

    std::vector<std::string> pairs(const KeyRow& row, bool flow, const std::string& indent) {
        std::string plain = flow_key_row(row);
        std::vector<std::string> out = {
            "id: " + scalar(row.id, flow, indent),
            "sha256: " +
                plain.substr(plain.find("sha256: ") + 8, plain.find(", state") - plain.find("sha256: ") - 8)};
        const auto add = [&](bool needed, const std::string& pair) {
            if (needed || one_in(3)) {
                out.push_back(pair);
            }
        };
        add(row.state != KeyState::kActive,
            "state: " + scalar(std::string(key_state_name(row.state)), flow, indent));
        add(!row.environment.empty(), "environment: " + scalar(row.environment, flow, indent));
        add(!row.owner.empty(), "owner: " + scalar(row.owner, flow, indent));
        add(!row.name.empty(), "\"name\": " + scalar(row.name, flow, indent));
        add(row.foreign, std::string("foreign: ") + (row.foreign ? "TRUE" : "false"));
        add(row.expires_s.has_value(), row.expires_s
                                           ? "expires: '" + format_rfc3339(*row.expires_s) + "'"
                                           : of<std::string>({"expires: ", "expires: null", "expires: ~"}));
        add(row.created_s != 0, "created: " + (row.created_s != 0 ? format_rfc3339(row.created_s) : "null"));
        if (row.metadata == R"({"team":"x"})" && !flow && one_in(2)) {
            out.push_back("metadata: # open\n" + indent + "  team:\n" + indent + "    x");
        } else {
            add(!row.metadata.empty(),
                "metadata: " + (row.metadata.empty() ? std::string("{}") : row.metadata));
        }
        add_terms(out, row, flow, indent);
        std::shuffle(out.begin(), out.end(), random_);
        return out;
    }

    std::string entry(const KeyRow& row, size_t indent, bool flow) {
        const std::string lead(indent, ' ');
        std::string out;
        last_block_ = false;
        if (flow || one_in(4)) {
            out = flow ? "" : lead + "- ";
            out += "{";
            for (const std::string& pair : pairs(row, true, "")) {
                out += (out.ends_with('{') ? ""
                                           : of<std::string>({", ", " ,", ",\n      ", ", # c\n         "})) +
                       pair;
            }
            out += of<std::string>({"}", " }", ",}", "\n     }"});
            return flow ? out : out + comment() + "\n";
        }
        const std::string gap_after_dash = of<std::string>({" ", "   ", "\n", " # dash\n"});
        const std::string inner =
            gap_after_dash.ends_with('\n') ? lead + "  " : lead + std::string(1 + gap_after_dash.size(), ' ');
        out = lead + "-" + gap_after_dash + (gap_after_dash.ends_with('\n') ? inner : "");
        bool first = true;
        for (const std::string& pair : pairs(row, false, inner)) {
            out += first ? "" : gap(inner) + inner;
            first = false;
            out += pair;
            const bool block = pair.find("|-") != std::string::npos || pair.find(">-") != std::string::npos;
            last_block_ = block;
            out += (block ? "" : comment()) + std::string("\n");
        }
        return out;
    }

    std::string file(const std::map<std::string, KeyRow>& rows) {
        const size_t indent = of<size_t>({0, 2, 4});
        std::string out = of<std::string>({"", "# head\n\n", "---\n", "version: 1\n"});
        if (rows.empty() || one_in(5)) {
            out += "keys: [";
            bool first = true;
            for (const auto& [id, row] : rows) {
                out +=
                    (first ? of<std::string>({"", "\n  "}) : of<std::string>({", ", ",\n  ", ", # k\n  "})) +
                    entry(row, 0, true);
                first = false;
            }
            out += of<std::string>({"]", "\n  ]"}) + comment() + "\n";
        } else {
            out += "keys:" + comment() + "\n";
            for (const auto& [id, row] : rows) {
                out += gap(std::string(indent, ' '));
                out += entry(row, indent, false);
            }
        }
        out += of<std::string>({"", "# end\n", "\n\n"});
        const std::string policies =
            "scopes: [a.b, a.c, d]\nplans:\n  # all\n  - name: free\n    limits:\n"
            "    - {name: burst, rate: 9/s}\n    - {name: daily, quota: 5/day}\n  - {name: team}\n";
        if (out.starts_with("---")) {
            out += policies;
        } else {
            out = one_in(2) ? policies + out : out + policies;
        }
        return out.find("version") == std::string::npos && one_in(2) ? out + "version: 1\n" : out;
    }

    std::mt19937& random() { return random_; }

  private:
    std::mt19937 random_;
    bool last_block_ = false;
};

std::map<std::string, KeyRow> by_id(const std::vector<KeyRow>& rows) {
    std::map<std::string, KeyRow> out;
    for (const KeyRow& row : rows) {
        out.emplace(row.id, row);
    }
    return out;
}

/// Every line of `text` that is only a comment.
size_t comment_lines(const std::string& text) {
    size_t count = 0;
    for (size_t at = 0; at < text.size(); at = line_end(text, at)) {
        const size_t first = text.find_first_not_of(' ', at);
        count += first < text.size() && text[first] == '#' ? 1 : 0;
    }
    return count;
}

TEST(source_YamlEditor, RandomFilesAndEditsMatchAModel) {
    size_t edits = 0;
    for (unsigned seed = 1; seed <= 400; ++seed) {
        Dice dice(seed);
        std::map<std::string, KeyRow> model;
        for (unsigned n = dice.below(5); n > 0; --n) {
            const KeyRow row = dice.row(n);
            model[row.id] = row;
        }
        const std::string text = dice.file(model);
        auto set = KeySetText::parse(text, "keys.yaml");
        ASSERT_TRUE(set) << "seed " << seed << ": " << set.error().message << "\n" << text;
        ASSERT_EQ(by_id(set->rows()), model) << "seed " << seed << "\n" << text;
        ASSERT_EQ(set->text(), text);
        for (int i = 0; i < 8; ++i, ++edits) {
            const std::string before = set->text();
            KeyRow row = dice.row(dice.below(8));
            if (const KeyRow* present = set->find(row.id); present != nullptr && dice.one_in(2)) {
                row = *present;
                dice.change(row, 1);
            }
            if (dice.one_in(4)) {
                const auto erased = set->erase(row.id);
                ASSERT_TRUE(erased) << "seed " << seed << ": " << erased.error().message << "\n" << before;
                ASSERT_EQ(*erased, model.erase(row.id) == 1);
            } else {
                const auto done = set->upsert(row);
                ASSERT_TRUE(done) << "seed " << seed << ": " << done.error().message << "\n" << before;
                model[row.id] = row;
                ASSERT_GE(comment_lines(set->text()) + 3, comment_lines(before)) << before << "\n-----\n"
                                                                                 << set->text();
            }
            const auto rows = parse_key_rows(set->text(), "keys.yaml");
            ASSERT_TRUE(rows) << "seed " << seed << ": " << rows.error().message << "\n"
                              << before << "\n-----\n"
                              << set->text();
            ASSERT_EQ(by_id(*rows), model) << "seed " << seed << "\n" << before << "\n-----\n" << set->text();
            ASSERT_EQ(*rows, set->rows());
        }
    }
    EXPECT_EQ(edits, 3200u);
}

/// Sections of a key set in many forms.
class PolicyDice : public Dice {
  public:
    using Dice::Dice;

    PlanRow plan(const std::string& name) {
        PlanRow row{name, {}};
        for (const char* limit : {"burst", "daily", "x-1"}) {
            if (one_in(2)) {
                row.limits.push_back(
                    one_in(2) ? LimitRow{limit, LimitForm::kRate, 1 + below(9), 60, 1 + below(9), one_in(3)}
                              : LimitRow{limit, LimitForm::kQuotaPerMonth, below(9), 0, 0, one_in(3)});
            }
        }
        return row;
    }
    std::string plan_text(const PlanRow& row, bool flow, size_t indent) {
        std::vector<std::string> limits;
        for (const LimitRow& one : row.limits) {
            limits.push_back(limit(one, flow, std::string(indent, ' ')));
        }
        const std::string lead(indent, ' ');
        if (flow || one_in(3)) {
            return "{" +
                   std::string(one_in(2) ? "limits: " + list(limits, true, "") + ", name: " + row.name
                                         : "name: '" + row.name + "' , limits: " + list(limits, true, "")) +
                   "}";
        }
        const std::string name = "name: " + row.name + comment() + "\n";
        if (limits.empty() && one_in(2)) {
            return name + (one_in(2) ? "" : lead + "limits:" + comment() + "\n");
        }
        const std::string all = "limits: " + list(limits, false, lead) + comment() + "\n";
        return one_in(2) ? name + gap(lead) + lead + all : all + gap(lead) + lead + name;
    }
    std::string owner_text(const OwnerRow& row, bool flow, size_t indent) {
        if (flow || one_in(2)) {
            return "{name: " + scalar(row.name, true, "") +
                   (row.plan.empty() ? of<std::string>({"", ", plan: ~"}) : ", plan: " + row.plan) + "}";
        }
        return "name: " + scalar(row.name, true, "") + comment() + "\n" +
               (row.plan.empty() && one_in(2) ? ""
                                              : std::string(indent, ' ') + "plan: " +
                                                    (row.plan.empty() ? "" : row.plan) + comment() + "\n");
    }
    /// A part of the root whose elements `text` gives, in flow form or with a column for block form.
    template <typename Rows, typename Text>
    std::string section(const std::string& name, const Rows& rows, Text text) {
        if (rows.empty()) {
            return of<std::string>({"", name + ":\n", name + ": []  # none\n", name + ": ~\n"});
        }
        std::string out = name + ":";
        if (one_in(4)) {
            std::vector<std::string> elements;
            for (const auto& row : rows) {
                elements.push_back(text(row, true, 0));
            }
            return out + " " + list(elements, true, "") + comment() + "\n";
        }
        const size_t indent = of<size_t>({0, 2, 4});
        out += comment() + "\n";
        for (const auto& row : rows) {
            out += gap(std::string(indent, ' ')) + std::string(indent, ' ') + "- ";
            std::string element = text(row, false, indent + 2);
            out += element.ends_with('\n') ? element : element + comment() + "\n";
        }
        return out;
    }
    std::string set_text(const PolicySet& set) {
        std::vector<std::string> parts = {
            section("scopes", set.scopes,
                    [&](const std::string& name, bool, size_t) { return scalar(name, true, ""); }),
            section(
                "plans", set.plans,
                [&](const PlanRow& row, bool flow, size_t indent) { return plan_text(row, flow, indent); }),
            section(
                "owners", set.owners,
                [&](const OwnerRow& row, bool flow, size_t indent) { return owner_text(row, flow, indent); }),
            of<std::string>({"", "version: 1\n"}), file_of_keys()};
        std::shuffle(parts.begin(), parts.end(), random());
        std::string out = of<std::string>({"", "# head\n\n"});
        for (const std::string& part : parts) {
            out += part + of<std::string>({"", "", "# between\n"});
        }
        return out;
    }

  private:
    std::string file_of_keys() {
        const KeyRow row = make_row(1);
        return one_in(3) ? "keys: [" + entry(row, 0, true) + "]\n"
                         : "keys:" + comment() + "\n" + entry(row, 2, false);
    }
};

TEST(source_YamlEditor, RandomPoliciesAndEditsMatchAModel) {
    for (unsigned seed = 1; seed <= 400; ++seed) {
        PolicyDice dice(seed);
        PolicySet model;
        for (const char* name : {"p", "q", "r.s"}) {
            if (dice.one_in(2)) {
                model.plans.push_back(dice.plan(name));
            }
        }
        for (const char* name : {"acme", "a: b", "Zürich"}) {
            if (dice.one_in(2)) {
                model.owners.push_back(
                    {name, model.plans.empty() || dice.one_in(3) ? "" : model.plans[0].name});
            }
        }
        for (const char* name : {"a.b", "c"}) {
            if (dice.one_in(2)) {
                model.scopes.emplace_back(name);
            }
        }
        const std::string text = dice.set_text(model);
        auto set = KeySetText::parse(text, "keys.yaml");
        ASSERT_TRUE(set) << "seed " << seed << ": " << set.error().message << "\n" << text;
        ASSERT_EQ(set->policies(), model) << "seed " << seed << "\n" << text;
        const std::vector<KeyRow> rows = set->rows();
        for (int i = 0; i < 8; ++i) {
            const std::string before = set->text();
            Result<void> done = fail("");
            const auto index = [&](const auto& list) {
                return dice.below(static_cast<unsigned>(list.size()));
            };
            switch (dice.below(6)) {
                case 0: {
                    const PlanRow plan = dice.plan(dice.of<std::string>({"p", "q", "new"}));
                    done = set->upsert_plan(plan);
                    const auto there =
                        std::find_if(model.plans.begin(), model.plans.end(),
                                     [&](const PlanRow& one) { return one.name == plan.name; });
                    *(there == model.plans.end() ? model.plans.insert(there, plan) : there) = plan;
                    break;
                }
                case 1: {
                    const OwnerRow owner{dice.of<std::string>({"acme", "null", "x y"}),
                                         model.plans.empty() ? "" : model.plans[index(model.plans)].name};
                    done = set->upsert_owner(owner);
                    const auto there =
                        std::find_if(model.owners.begin(), model.owners.end(),
                                     [&](const OwnerRow& one) { return one.name == owner.name; });
                    *(there == model.owners.end() ? model.owners.insert(there, owner) : there) = owner;
                    break;
                }
                case 2:
                    if (!model.owners.empty()) {
                        const auto gone = model.owners.begin() + index(model.owners);
                        done = set->erase_owner(std::string(gone->name));
                        model.owners.erase(gone);
                        break;
                    }
                    continue;
                case 3:
                    if (!model.plans.empty()) {
                        const auto gone = model.plans.begin() + index(model.plans);
                        const bool used =
                            std::any_of(model.owners.begin(), model.owners.end(),
                                        [&](const OwnerRow& one) { return one.plan == gone->name; });
                        done = set->erase_plan(std::string(gone->name));
                        ASSERT_EQ(done.has_value(), !used) << before;
                        if (!used) {
                            model.plans.erase(gone);
                            break;
                        }
                    }
                    continue;
                case 4:
                    if (std::find(model.scopes.begin(), model.scopes.end(), "d.e") == model.scopes.end()) {
                        done = set->add_scope("d.e");
                        model.scopes.emplace_back("d.e");
                        break;
                    }
                    continue;
                default:
                    if (!model.scopes.empty()) {
                        const auto gone = model.scopes.begin() + index(model.scopes);
                        done = set->erase_scope(std::string(*gone));
                        model.scopes.erase(gone);
                        break;
                    }
                    continue;
            }
            ASSERT_TRUE(done) << "seed " << seed << ": " << done.error().message << "\n" << before;
            ASSERT_EQ(set->policies(), model) << "seed " << seed << "\n" << before;
            ASSERT_EQ(policies_of(set->text()), model) << "seed " << seed << "\n"
                                                       << before << "\n-----\n"
                                                       << set->text();
            ASSERT_EQ(set->rows(), rows);
            ASSERT_EQ(*parse_key_rows(set->text(), "keys.yaml"), rows);
            ASSERT_GE(comment_lines(set->text()) + 5, comment_lines(before)) << before << "\n-----\n"
                                                                             << set->text();
        }
    }
}

// A set that whoever reads it next refuses cannot be mended by the tool either.
TEST(source_YamlEditor, TheLimitsOfTheWholeSetAreKept) {
    for (const bool flow : {false, true}) {
        SCOPED_TRACE(flow);
        KeySetText set = parsed(flow ? "keys: [\n]\n" : "keys: []\n");
        for (unsigned i = 0; i < kEnvironmentsMax; ++i) {
            KeyRow row = make_row(i);
            row.environment = "e" + std::to_string(i);
            const auto done = set.upsert(row);
            ASSERT_TRUE(done) << done.error().message;
        }
        KeyRow one_more = make_row(99);
        one_more.environment = "e99";
        const auto refused = set.upsert(one_more);
        ASSERT_FALSE(refused);
        EXPECT_NE(refused.error().message.find("'e99' is one too many"), std::string::npos)
            << refused.error().message;
        EXPECT_EQ(set.size(), kEnvironmentsMax);
        KeyRow renamed = make_row(3);
        renamed.environment = "renamed";
        EXPECT_TRUE(set.upsert(renamed)) << "one that takes another's place";
        EXPECT_TRUE(parse_key_rows(set.text(), "keys.yaml"));
    }
    std::string scopes = "scopes: [a0";
    for (size_t i = 1; i + 1 < kScopesMax; ++i) {
        scopes += ", a" + std::to_string(i);
    }
    KeySetText named = parsed(scopes + "]\nkeys: []\n");
    KeyRow granted = make_row(1);
    granted.terms = std::make_shared<const KeyTerms>(KeyTerms{.scopes = {"*", "a1"}});
    EXPECT_TRUE(named.upsert(granted));
    granted = make_row(2);
    granted.terms = std::make_shared<const KeyTerms>(KeyTerms{.scopes = {"*"}});
    EXPECT_TRUE(named.upsert(granted)) << "a branch that is granted already";
    checked(named);
    named = parsed(scopes + ", b.c]\nkeys: []\n");
    const auto too_many = named.upsert(granted);
    ASSERT_FALSE(too_many);
    EXPECT_EQ(too_many.error().message,
              "key key000000002: scopes: 385 names and branches in the key set (want at most 384)");
    YamlLimits limits;
    limits.keys_max = 2;
    auto set = KeySetText::parse("keys: []\n", "keys.yaml", limits);
    ASSERT_TRUE(set);
    EXPECT_TRUE(set->upsert(make_row(1)));
    EXPECT_TRUE(set->upsert(make_row(2)));
    EXPECT_FALSE(set->upsert(make_row(3)));
    limits.keys_max = 100;
    limits.file_bytes_max = set->text().size() + 20;
    set = KeySetText::parse(set->text(), "keys.yaml", limits);
    ASSERT_TRUE(set);
    EXPECT_FALSE(set->upsert(make_row(3)));
    EXPECT_EQ(set->size(), 2u);
}

}  // namespace
}  // namespace apikeyd
