// Promise: the audit log says what became of each key, with the fields that differ, in lines that nobody can
// forge, of which one load brings a bounded number; and when it cannot be written, that is told and stops
// nothing.

#include "core/audit_log.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "loop_fixture.h"

namespace apikeyd {
namespace {

namespace fs = std::filesystem;
using Fields = std::vector<std::pair<std::string, std::string>>;

KeyRow key(const std::string& id = "AAAAAAAAAAAA") {
    KeyRow row;
    row.id = id;
    row.digest.fill(0xAB);
    row.environment = "live";
    row.owner = "acme";
    return row;
}

std::vector<std::string> lines_of(const fs::path& path) {
    std::ifstream file(path);
    std::vector<std::string> lines;
    for (std::string line; std::getline(file, line);) {
        lines.push_back(line);
    }
    return lines;
}

TEST(AuditEntry, NamesWhatBecameOfAKey) {
    const KeyRow active = key();
    KeyRow disabled = active;
    disabled.state = KeyState::kDisabled;
    KeyRow revoked = active;
    revoked.state = KeyState::kRevoked;
    KeyRow named = active;
    named.name = "CI";
    EXPECT_EQ(key_entry(nullptr, &active).action, "key.create");
    EXPECT_EQ(key_entry(&active, nullptr).action, "key.delete");
    EXPECT_EQ(key_entry(&active, &named).action, "key.update");
    EXPECT_EQ(key_entry(&active, &active).action, "key.update");
    EXPECT_EQ(key_entry(&active, &disabled).action, "key.disable");
    EXPECT_EQ(key_entry(&disabled, &active).action, "key.enable");
    EXPECT_EQ(key_entry(&active, &revoked).action, "key.revoke");
    EXPECT_EQ(key_entry(&revoked, &revoked).action, "key.revoke");
    EXPECT_EQ(key_entry(&revoked, &revoked).fields, Fields());
}

TEST(AuditEntry, HasEachFieldThatDiffersAndNoDigest) {
    const KeyRow before = key();
    KeyRow after = before;
    after.state = KeyState::kRevoked;
    after.environment = "test";
    after.owner = "";
    after.name = "CI";
    after.expires_s = 1767225600;
    after.created_s = 1735689600;
    after.metadata = R"({"team":1})";
    after.foreign = true;
    KeyTerms terms;
    terms.plan = "team";
    terms.scopes = {"a.read", "b.*"};
    AddressRangeRow range;
    range.address[15] = 1;
    range.prefix_bits = 128;
    terms.addresses = {range};
    terms.overrides = {{"day", LimitForm::kQuotaPerDay, 7, 0, 0, true}};
    after.terms = std::make_shared<const KeyTerms>(terms);
    const Fields wanted = {{"before.state", "active"},
                           {"after.state", "revoked"},
                           {"before.environment", "live"},
                           {"after.environment", "test"},
                           {"before.owner", "acme"},
                           {"after.name", "CI"},
                           {"after.expires", "2026-01-01T00:00:00Z"},
                           {"after.plan", "team"},
                           {"after.limits", "{name: day, quota: 7/day, shadow: true}"},
                           {"after.scopes", "a.read,b.*"},
                           {"after.addresses", "::1"},
                           {"after.metadata", R"({"team":1})"},
                           {"after.created", "2025-01-01T00:00:00Z"},
                           {"after.foreign", "true"}};
    EXPECT_EQ(key_entry(&before, &after).fields, wanted);
    for (const auto& [name, value] : key_entry(nullptr, &after).fields) {
        EXPECT_EQ(value.find("abab"), std::string::npos) << name;
    }
}

TEST(AuditEntry, PlansOwnersAndScopes) {
    PolicySet before;
    before.scopes = {"a.read"};
    before.plans = {{"team", {{"burst", LimitForm::kRate, 10, 1, 10, false}}}};
    before.owners = {{"acme", "team"}};
    const std::vector<AuditEntry> entries =
        entries_of({{Change::Kind::kUpsert, PlanRow{"team", {{"burst", LimitForm::kRate, 20, 1, 40, false}}}},
                    {Change::Kind::kUpsert, PlanRow{"new", {}}},
                    {Change::Kind::kUpsert, OwnerRow{"acme", ""}},
                    {Change::Kind::kRemove, OwnerRow{"acme", ""}},
                    {Change::Kind::kRemove, std::string("a.read")},
                    {Change::Kind::kRemove, std::string("never.was")}},
                   before);
    ASSERT_EQ(entries.size(), 6U);
    EXPECT_EQ(entries[0].action, "plan.update");
    EXPECT_EQ(entries[0].fields, (Fields{{"before.limits", "{name: burst, rate: 10/s}"},
                                         {"after.limits", "{name: burst, rate: 20/s, burst: 40}"}}));
    EXPECT_EQ(entries[1].action, "plan.create");
    EXPECT_EQ(entries[2].action, "owner.update");
    EXPECT_EQ(entries[2].fields, (Fields{{"before.plan", "team"}}));
    EXPECT_EQ(entries[3].action, "owner.delete");
    EXPECT_EQ(entries[4].action + " " + entries[4].id, "scope.delete a.read");
    EXPECT_EQ(entries[5].action + " " + entries[5].id, "scope.delete never.was");
}

TEST(LoadAudit, KeepsTheFirstOfEachKindAndCountsTheRest) {
    LoadAudit audit;
    audit.begin(std::make_shared<const PolicySet>(), true);
    const KeyRow one = key();
    KeyRow other = one;
    other.name = "other";
    PolicySet many;
    for (size_t i = 0; i < kAuditedOfKindMax + 1; ++i) {
        audit.add_key(nullptr, &one);
        audit.add_key(&one, &other);
        many.owners.push_back({"owner " + std::to_string(i), ""});
    }
    audit.add_key(&one, nullptr);
    audit.add_policies(many);
    EXPECT_EQ(audit.entries().size(), 3 * kAuditedOfKindMax + 1);
    EXPECT_EQ(audit.left_out(), 3U);
}

TEST(LoadAudit, TellsOnlyWhatATableKnowsOfTheDaemonBefore) {
    PolicySet table;
    table.scopes = {"gone.scope"};
    table.plans = {{"gone", {}}, {"team", {}}};
    table.owners = {{"acme", "team"}};
    PolicySet source;
    source.scopes = {"new.scope"};
    source.plans = {{"team", {{"burst", LimitForm::kRate, 10, 1, 10, false}}}};
    source.owners = {{"idle", ""}};
    LoadAudit audit;
    audit.begin(std::make_shared<const PolicySet>(table), false);
    audit.add_policies(source);
    std::string told;
    for (const AuditEntry& entry : audit.entries()) {
        told += entry.action + " " + entry.id + "\n";
    }
    EXPECT_EQ(told, "plan.update team\nowner.delete acme\nscope.create new.scope\n");
}

class AuditLogFile : public testing::Test {
  protected:
    void SetUp() override {
        auto log = Log::open({.path = directory_ / "log"});
        ASSERT_TRUE(log) << log.error().message;
        log_ = std::move(*log);
        // Nobody of this name is in /etc/passwd.
        peer_.pid = 77;
        peer_.uid = 3999999999;
        peer_.gid = 5;
    }
    std::string told() const {
        return lines_of(path_).back().substr(std::string("time=YYYY-MM-DDTHH:MM:SS.mmmZ ").size());
    }

    TemporaryDirectory directory_;
    fs::path path_ = directory_ / "audit";
    std::unique_ptr<Log> log_;
    Peer peer_;
};

TEST_F(AuditLogFile, TellsWhoWhatAndHowItWent) {
    AuditLog audit({.file = path_}, *log_);
    audit.changed(
        &peer_, {"key.revoke", "AAAAAAAAAAAA", {{"before.state", "active"}, {"after.state", "revoked"}}}, {});
    EXPECT_EQ(told(),
              "level=info event=key.revoke actor=operator uid=3999999999 gid=5 pid=77 id=AAAAAAAAAAAA "
              "result=ok before.state=active after.state=revoked");
    audit.changed(&peer_, {"key.delete", "AAAAAAAAAAAA", {}}, {}, "key BBBBBBBBBBBB\nresult=no");
    EXPECT_EQ(told(),
              "level=info event=key.delete actor=operator uid=3999999999 gid=5 pid=77 "
              "on_behalf_of=\"key BBBBBBBBBBBB\\nresult=no\" id=AAAAAAAAAAAA result=ok");
    peer_.uid = 0;
    audit.changed(&peer_, {"plan.delete", "team", {}}, fail("no room\nresult=ok"));
    EXPECT_EQ(told(),
              "level=warn event=plan.delete actor=operator uid=0 gid=5 pid=77 user=root id=team "
              "result=\"no room\\nresult=ok\"");
    audit.changed(nullptr, {"key.delete", "AAAAAAAAAAAA", {}}, {});
    EXPECT_EQ(told(), "level=info event=key.delete actor=source id=AAAAAAAAAAAA result=ok");
    audit.refused(peer_, "apply", "AAAAAAAAAAAA", 3);
    EXPECT_EQ(told(),
              "level=warn event=admin.refused actor=other uid=0 gid=5 pid=77 user=root request=apply "
              "id=AAAAAAAAAAAA result=\"not permitted\" left_out=3");
    audit.reloaded(peer_, true, ReloadReport{false, 9, 3, 2, 1});
    EXPECT_EQ(told(),
              "level=info event=reload actor=operator uid=0 gid=5 pid=77 user=root force=true result=ok "
              "unchanged=false keys=9 added=3 updated=2 removed=1");
}

TEST_F(AuditLogFile, NoValueCanForgeALine) {
    using namespace std::string_literals;
    const std::string evil = "x\"\nevent=key.create result=ok\r\t\0\x1b[2J\x7f\xE2\x80\xA8"s;
    for (const LogFormat format : {LogFormat::logfmt, LogFormat::json}) {
        fs::remove(path_);
        AuditLog audit({format, path_}, *log_);
        audit.changed(nullptr, {"owner.create", evil, {{"after.plan", evil}}}, fail(evil));
        ASSERT_EQ(lines_of(path_).size(), 1U);
        const std::string line = lines_of(path_)[0];
        const std::string quoted = R"("x\"\nevent=key.create result=ok\r\t\u0000\u001b[2J\u007f\u2028")";
        for (const std::string name : {"id", "result", "after.plan"}) {
            const std::string wanted =
                format == LogFormat::json ? '"' + name + "\":" + quoted : ' ' + name + '=' + quoted;
            EXPECT_NE(line.find(wanted), std::string::npos) << line;
        }
        for (const char c : line) {
            EXPECT_GE(static_cast<unsigned char>(c), 0x20) << line;
        }
    }
}

TEST_F(AuditLogFile, WhatCannotBeWrittenIsToldOnceAndAgainWhenItCan) {
    AuditLog audit({.file = directory_.path() / "d" / "audit"}, *log_);
    EXPECT_NE(audit.problem().find("d/audit: No such file or directory"), std::string::npos);
    for (int i = 0; i < 3; ++i) {
        audit.changed(nullptr, {"key.delete", "AAAAAAAAAAAA", {}}, {});
    }
    ASSERT_EQ(lines_of(directory_ / "log").size(), 1U);
    EXPECT_NE(lines_of(directory_ / "log")[0].find("level=error event=audit.not_written reason="),
              std::string::npos);
    fs::create_directory(directory_ / "d");
    audit.changed(nullptr, {"key.delete", "BBBBBBBBBBBB", {}}, {});
    EXPECT_EQ(audit.problem(), "");
    ASSERT_EQ(lines_of(directory_ / "log").size(), 2U);
    EXPECT_NE(lines_of(directory_ / "log")[1].find("event=audit.written_again"), std::string::npos);
    const auto lines = lines_of(directory_.path() / "d" / "audit");
    ASSERT_EQ(lines.size(), 2U);
    EXPECT_NE(lines[0].find("event=log.dropped lines=3"), std::string::npos) << lines[0];
    EXPECT_NE(lines[1].find("id=BBBBBBBBBBBB"), std::string::npos) << lines[1];
}

TEST_F(AuditLogFile, WithoutAFileNothingIsKept) {
    AuditLog audit({}, *log_);
    EXPECT_FALSE(audit.on());
    audit.changed(&peer_, {"key.delete", "AAAAAAAAAAAA", {}}, {});
    audit.refused(peer_, "apply", "", 0);
    audit.reopen();
    EXPECT_EQ(audit.problem(), "");
    EXPECT_TRUE(lines_of(directory_ / "log").empty());
}

}  // namespace
}  // namespace apikeyd
