// Scopes, plans, owners and terms in a key set: what they come to, and one error for each fault, with its
// place.

#include <gtest/gtest.h>

#include "source/limit_text.h"
#include "source/yaml_editor.h"
#include "source/yaml_source.h"

namespace apikeyd {
namespace {

std::string row(const std::string& more = "") {
    return "  - id: 2RkT9pQwX4Za\n    sha256: " + std::string(64, 'a') + "\n    environment: live\n" + more;
}

struct Parsed {
    YamlSummary summary;
    std::vector<KeyRow> rows;
    std::string errors;
};

Parsed parse(const std::string& text) {
    Parsed parsed;
    auto summary =
        parse_key_set(text, "keys.yaml", [&](KeyRow key) { parsed.rows.push_back(std::move(key)); });
    if (summary) {
        parsed.summary = std::move(*summary);
    } else {
        parsed.errors = summary.error().joined();
    }
    return parsed;
}

std::string error_of(const std::string& text) {
    return parse(text).errors;
}

TEST(source_PolicyYaml, EverythingAtOnce) {
    const Parsed parsed = parse(
        "scopes: [reports.read, reports.write, billing.read]\n"
        "plans:\n"
        "  - name: free\n"
        "    limits:\n"
        "      - {name: burst, rate: 100/s, burst: 200}\n"
        "      - {name: monthly, quota: 1000000/month, shadow: true}\n"
        "  - name: team\n"
        "    limits: [{name: daily, quota: 5/day}]\n"
        "owners:\n"
        "  - {name: acme, plan: team}\n"
        "  - name: other\n"
        "keys:\n" +
        row("    plan: free\n    scopes: [reports.*, billing.read, reports.*]\n"
            "    addresses: [192.0.2.0/24, \"2001:db8::/32\", 10.1.2.3]\n"
            "    limits: [{name: burst, rate: 50/min}]\n"));
    ASSERT_EQ(parsed.errors, "");
    EXPECT_TRUE(parsed.summary.warnings.empty());
    const PolicySet& set = parsed.summary.policies;
    ASSERT_EQ(set.plans.size(), 2u);
    EXPECT_EQ(set.plans[0].limits[0], (LimitRow{"burst", LimitForm::kRate, 100, 1, 200, false}));
    EXPECT_EQ(set.plans[0].limits[1], (LimitRow{"monthly", LimitForm::kQuotaPerMonth, 1000000, 0, 0, true}));
    EXPECT_EQ(set.owners, (std::vector<OwnerRow>{{"acme", "team"}, {"other", ""}}));
    ASSERT_EQ(parsed.rows.size(), 1u);
    const KeyTerms& terms = terms_of(parsed.rows[0]);
    EXPECT_EQ(terms.plan, "free");
    EXPECT_EQ(terms.scopes, (std::vector<std::string>{"billing.read", "reports.*"}));
    ASSERT_EQ(terms.addresses.size(), 3u);
    EXPECT_EQ(format_address_range(terms.addresses[0]), "192.0.2.0/24");
    EXPECT_EQ(format_address_range(terms.addresses[1]), "2001:db8::/32");
    EXPECT_EQ(format_address_range(terms.addresses[2]), "10.1.2.3");
    EXPECT_EQ(terms.overrides, (std::vector<LimitRow>{{"burst", LimitForm::kRate, 50, 60, 50, false}}));
}

TEST(source_PolicyYaml, WhatNobodyDefined) {
    EXPECT_EQ(error_of("keys:\n" + row("    plan: gold\n")),
              "keys.yaml:2:5: key 2RkT9pQwX4Za: plan: 'gold' is defined nowhere (want it under plans:)");
    EXPECT_EQ(error_of("owners: [{name: acme, plan: gold}]\nkeys: []\n"),
              "keys.yaml:1:29: owner 'acme': plan: 'gold' is defined nowhere (want it under plans:)");
    EXPECT_EQ(error_of("scopes: [a.b]\nkeys:\n" + row("    scopes: [a.c]\n")),
              "keys.yaml:3:5: key 2RkT9pQwX4Za: scopes: 'a.c' is defined nowhere (want it under scopes:)");
    EXPECT_EQ(
        error_of("plans: [{name: p, limits: [{name: a, quota: 1/day}]}]\nkeys:\n" +
                 row("    plan: p\n    limits: [{name: b, quota: 1/day}]\n")),
        "keys.yaml:3:5: key 2RkT9pQwX4Za: limits: b is no limit of the key's plan (it takes the place of "
        "one)");
    EXPECT_EQ(error_of("plans: [{name: p, limits: [{name: a, rate: 9/s}]}]\nkeys:\n" +
                       row("    plan: p\n    limits: [{name: a, quota: 1/day}]\n")),
              "keys.yaml:3:5: key 2RkT9pQwX4Za: limits: a is 9/s in the key's plan (want another figure of "
              "the same "
              "kind and period)");
    EXPECT_EQ(
        error_of("keys:\n" + row("    limits: [{name: b, quota: 1/day}]\n")),
        "keys.yaml:2:5: key 2RkT9pQwX4Za: limits: b is no limit of the key's plan (it takes the place of "
        "one)");
}

TEST(source_PolicyYaml, AScopeThatIsNeverGrantedIsTold) {
    const Parsed parsed = parse("scopes: [a.b, c.d]\nkeys:\n" + row("    scopes: [c.*]\n"));
    EXPECT_EQ(parsed.errors, "");
    EXPECT_EQ(parsed.summary.warnings,
              (std::vector<std::string>{"keys.yaml:1:10: scopes: 'a.b' is granted to no key"}));
}

TEST(source_PolicyYaml, ImpossibleLimits) {
    const auto limit = [](const std::string& text) {
        return error_of("plans: [{name: p, limits: [" + text + "]}]\nkeys: []\n");
    };
    const std::string place = "keys.yaml:1:";
    EXPECT_EQ(
        limit("{name: a, rate: 0/s}"),
        place + "44: plan p: limits: a: rate: '0/s' is an impossible rate (want 1 to 1000000000 requests)");
    EXPECT_EQ(limit("{name: a, rate: 10/s, burst: 0}"),
              place +
                  "57: plan p: limits: a: burst: '0' is no burst (want 1 to 1000000000 requests that may "
                  "come at once)");
    EXPECT_EQ(limit("{name: a, rate: 10/fortnight}"),
              place +
                  "44: plan p: limits: a: rate: '10/fortnight' is no rate (want requests/unit with s, min, h "
                  "or d, e.g. 100/s)");
    EXPECT_EQ(limit("{name: a, quota: -5/day}"),
              place +
                  "45: plan p: limits: a: quota: '-5/day' is no quota (want requests/period with hour, day "
                  "or month, e.g. 1000/day)");
    EXPECT_EQ(limit("{name: a, quota: 99999999999/day}"),
              place +
                  "45: plan p: limits: a: quota: '99999999999/day' is out of range (want at most "
                  "10000000000 requests a period)");
    EXPECT_EQ(limit("{name: a, rate: 2000000/s}"),
              place +
                  "44: plan p: limits: a: rate: '2000000/s' is too fast (want at most 1250000 requests a "
                  "second)");
    EXPECT_EQ(limit("{name: a, rate: 1/d, burst: 100000}"),
              place +
                  "44: plan p: limits: a: rate: '1/d' takes more than two years to let its burst through "
                  "(want a smaller burst)");
    EXPECT_EQ(limit("{name: a, rate: 1/s, quota: 5/day}"),
              place + "28: plan p: limits: a: want either rate, e.g. 100/s, or quota, e.g. 1000000/month");
    EXPECT_EQ(limit("{name: a, quota: 5/day, burst: 1}"),
              place + "59: plan p: limits: a: burst: a quota has none (want it with rate)");
    EXPECT_EQ(limit("{name: A, quota: 5/day}"),
              place + "35: plan p: limits: name: 'A' (want 1 to 15 characters a-z, 0-9, _ and -)");
    EXPECT_EQ(limit("{name: a, quota: 5/day}, {name: a, quota: 5/day}"),
              place + "53: plan p: limits: a: stands twice (want each limit once)");
}

TEST(source_PolicyYaml, Addresses) {
    const auto address = [](const std::string& text) {
        return error_of("keys:\n" + row("    addresses: ['" + text + "']\n"));
    };
    const std::string place = "keys.yaml:5:17: key 2RkT9pQwX4Za: addresses: ";
    EXPECT_EQ(address("10.0.0.0/8"), "");
    EXPECT_EQ(address("::/0"), "");
    EXPECT_EQ(address("10.0.0.1/8"),
              place + "'10.0.0.1/8' has bits behind its first 8 (want the network's address)");
    EXPECT_EQ(address("10.0.0.0/33"), place + "'10.0.0.0/33' has no length of 0 to 32 behind the slash");
    EXPECT_EQ(address("10.0.0"),
              place + "'10.0.0' is no address (want e.g. 192.0.2.0/24, 2001:db8::/32 or one address)");
    const std::string cut = error_of("keys:\n" + row("    addresses: [\"10.0.0.1\\0junk\"]\n"));
    EXPECT_NE(cut.find(" is no address "), std::string::npos) << cut;
}

TEST(source_PolicyYaml, TheEditorKeepsTermsAndKnowsWhatIsDefined) {
    const std::string text =
        "scopes: [a.b]\nplans: [{name: free, limits: [{name: x, quota: 5/day}]}]\nkeys:\n" + row();
    auto set = KeySetText::parse(text, "keys.yaml");
    ASSERT_TRUE(set) << set.error().message;
    KeyRow wanted = *set->find("2RkT9pQwX4Za");
    auto terms = std::make_shared<KeyTerms>();
    terms->plan = "free";
    terms->scopes = {"a.*"};
    terms->addresses = {*parse_address_range("2001:db8::/32")};
    terms->overrides = {{"x", LimitForm::kQuotaPerDay, 7, 0, 0, false}};
    wanted.terms = terms;
    const auto done = set->upsert(wanted);
    ASSERT_TRUE(done) << done.error().message;
    const Parsed parsed = parse(set->text());
    ASSERT_EQ(parsed.errors, "") << set->text();
    EXPECT_EQ(parsed.rows.at(0), wanted) << set->text();

    auto gold = std::make_shared<KeyTerms>();
    gold->plan = "gold";
    wanted.terms = gold;
    const auto refused = set->upsert(wanted);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().message,
              "key 2RkT9pQwX4Za: plan: 'gold' is defined nowhere (want it under plans:)");
}

}  // namespace
}  // namespace apikeyd
