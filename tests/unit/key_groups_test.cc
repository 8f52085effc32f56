// Promise: each key's counts are in the sum of its own owner or plan, and in no other.

#include "tools/key_groups.h"

#include <gtest/gtest.h>

namespace apikeyd {
namespace {

KeyRow row(const std::string& id, const std::string& owner, const std::string& plan) {
    KeyRow row;
    row.id = id;
    row.owner = owner;
    if (!plan.empty()) {
        row.terms = std::make_shared<const KeyTerms>(KeyTerms{.plan = plan});
    }
    return row;
}

KeyGroups groups(const KeyFilter& filter, GroupBy by) {
    KeyGroups groups(filter, by);
    groups.add(row("cccccccccccc", "zeta", "free"));
    groups.add(row("aaaaaaaaaaaa", "acme", "free"));
    groups.add(row("dddddddddddd", "acme", ""));
    groups.add(row("bbbbbbbbbbbb", "", "team"));
    groups.seal();
    return groups;
}

/// The group's name; `unwanted` where there is none.
std::string name_of(const KeyGroups& groups, std::string_view id) {
    const std::optional<uint32_t> number = groups.find(id);
    for (const auto& [name, one] : groups.by_name()) {
        if (number == one) {
            return name;
        }
    }
    return "unwanted";
}

TEST(KeyGroups, AKeyIsInItsOwnersOrItsPlansGroup) {
    const KeyGroups owners = groups({}, GroupBy::kOwner);
    EXPECT_EQ(name_of(owners, "aaaaaaaaaaaa"), "acme");
    EXPECT_EQ(name_of(owners, "bbbbbbbbbbbb"), "");
    EXPECT_EQ(name_of(owners, "cccccccccccc"), "zeta");
    EXPECT_EQ(name_of(owners, "dddddddddddd"), "acme");
    const KeyGroups plans = groups({}, GroupBy::kPlan);
    EXPECT_EQ(name_of(plans, "aaaaaaaaaaaa"), "free");
    EXPECT_EQ(name_of(plans, "bbbbbbbbbbbb"), "team");
    EXPECT_EQ(name_of(plans, "dddddddddddd"), "");
}

TEST(KeyGroups, WhatTheSetHasNotIsWithThoseThatHaveNone) {
    const KeyGroups owners = groups({}, GroupBy::kOwner);
    for (const std::string_view id : {"eeeeeeeeeeee", "a", "", "aaaaaaaaaaaab"}) {
        EXPECT_EQ(name_of(owners, id), "") << id;
    }
    EXPECT_EQ(name_of(owners, std::string_view("aaaaaaaaaaa\0", 12)), "");
}

TEST(KeyGroups, AFilterLeavesTheOthersOut) {
    const KeyGroups acme = groups({.owner = "acme"}, GroupBy::kPlan);
    EXPECT_EQ(name_of(acme, "aaaaaaaaaaaa"), "free");
    EXPECT_EQ(name_of(acme, "dddddddddddd"), "");
    for (const std::string_view id : {"bbbbbbbbbbbb", "cccccccccccc", "eeeeeeeeeeee", ""}) {
        EXPECT_FALSE(acme.find(id)) << id;
    }
    const KeyGroups both = groups({.owner = "acme", .plan = "free"}, GroupBy::kKey);
    EXPECT_TRUE(both.find("aaaaaaaaaaaa"));
    EXPECT_FALSE(both.find("dddddddddddd"));
    const KeyGroups unowned = groups({.owner = ""}, GroupBy::kKey);
    EXPECT_TRUE(unowned.find("bbbbbbbbbbbb"));
    EXPECT_FALSE(unowned.find("eeeeeeeeeeee"));
    EXPECT_TRUE(groups({.owner = "nobody"}, GroupBy::kKey).empty());
}

}  // namespace
}  // namespace apikeyd
