// Promise: a key store says to the daemon what stands in it, whoever wrote it; a change is whole or was not;
// a row that breaks a rule is left out and told.

#include "source/sqlite_file.h"

#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <random>
#include <thread>

#include "base/hex.h"
#include "usage_fixture.h"

namespace apikeyd {
namespace {

/// A foreign program's connection.
class Raw {
  public:
    explicit Raw(const std::string& path) { EXPECT_EQ(sqlite3_open(path.c_str(), &db_), SQLITE_OK); }
    ~Raw() { sqlite3_close(db_); }
    Raw(const Raw&) = delete;
    Raw& operator=(const Raw&) = delete;

    /// What SQLite says, or empty.
    std::string tried(const std::string& sql) {
        return sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK ? ""
                                                                                      : sqlite3_errmsg(db_);
    }
    void run(const std::string& sql) { EXPECT_EQ(tried(sql), "") << sql; }
    int64_t number(const std::string& sql) {
        sqlite3_stmt* statement = nullptr;
        EXPECT_EQ(sqlite3_prepare_v2(db_, sql.c_str(), -1, &statement, nullptr), SQLITE_OK) << sql;
        EXPECT_EQ(sqlite3_step(statement), SQLITE_ROW);
        const int64_t value = sqlite3_column_int64(statement, 0);
        sqlite3_finalize(statement);
        return value;
    }

  private:
    sqlite3* db_ = nullptr;
};

std::string id_of(unsigned number) {
    char text[16];
    std::snprintf(text, sizeof text, "key%09u", number);
    return text;
}

KeyRow plain_row(unsigned number) {
    KeyRow row;
    row.id = id_of(number);
    for (size_t i = 0; i < row.digest.size(); ++i) {
        row.digest[i] = static_cast<uint8_t>(number * 31 + i * (number % 7 + 1));
    }
    row.digest[0] = static_cast<uint8_t>(number);
    row.digest[1] = static_cast<uint8_t>(number >> 8);
    row.environment = "live";
    return row;
}

std::string blob_of(const KeyRow& row) {
    return "x'" + to_hex(row.digest) + "'";
}

using Keys = std::map<std::string, KeyRow>;

struct Loaded {
    SourceContent content;
    Keys keys;
};

class source_SqliteFile : public ::testing::Test {
  protected:
    void SetUp() override {
        const bool memory = access("/dev/shm", W_OK) == 0;
        std::string name = memory ? "/dev/shm/apikeyd-sqlite-test.XXXXXX" : "/tmp/apikeyd-sqlite-test.XXXXXX";
        ASSERT_NE(mkdtemp(name.data()), nullptr);
        directory_ = name;
        path_ = directory_ + "/keys.db";
    }
    void TearDown() override { std::filesystem::remove_all(directory_); }

    Result<Rewrite> change(SqliteFile& file, const Store::Edit& edit) {
        ChangeOptions options;
        options.create = true;
        return file.change(edit, options);
    }
    Rewrite changed(SqliteFile& file, const Store::Edit& edit) {
        const auto done = change(file, edit);
        EXPECT_TRUE(done) << done.error().message;
        return done.value_or(Rewrite{});
    }
    std::string refused(SqliteFile& file, const Store::Edit& edit) {
        const auto done = change(file, edit);
        EXPECT_FALSE(done);
        return done ? "" : done.error().message;
    }
    Rewrite put(SqliteFile& file, const std::vector<KeyRow>& rows) {
        return changed(file, [&](KeySet& set) -> Result<void> {
            for (const KeyRow& row : rows) {
                if (auto done = set.upsert(row); !done) {
                    return done;
                }
            }
            return {};
        });
    }
    /// One plan, three scopes, one owner.
    void put_policies(SqliteFile& file) {
        changed(file, [](KeySet& set) -> Result<void> {
            LimitRow burst{"burst", LimitForm::kRate, 10, 1, 20, true};
            LimitRow monthly{"monthly", LimitForm::kQuotaPerMonth, 1000, 0, 0, false};
            for (const char* scope : {"reports.read", "reports.write", "admin"}) {
                if (auto done = set.add_scope(scope); !done) {
                    return done;
                }
            }
            if (auto done = set.upsert_plan({"free", {burst, monthly}}); !done) {
                return done;
            }
            return set.upsert_owner({"acme", "free"});
        });
    }

    static Loaded load(SqliteFile& file) {
        Loaded loaded;
        auto content = file.load(std::nullopt, [&](KeyRow row) { loaded.keys.emplace(row.id, row); });
        EXPECT_TRUE(content) << (content ? "" : content.error().message);
        if (content && *content) {
            loaded.content = **content;
        }
        EXPECT_EQ(loaded.content.keys, loaded.keys.size());
        return loaded;
    }
    /// What the daemon does with changes.
    static void apply(const SourceChanges& changes, Loaded& to) {
        for (const KeyRow& gone : changes.gone) {
            const auto found = to.keys.find(gone.id);
            if (found != to.keys.end() && found->second.digest == gone.digest &&
                found->second.foreign == gone.foreign) {
                to.keys.erase(found);
            }
        }
        for (const KeyRow& row : changes.rows) {
            to.keys[row.id] = row;
        }
        if (changes.policies) {
            to.content.policies = *changes.policies;
        }
        to.content.fingerprint = changes.fingerprint;
        to.content.keys = to.keys.size();
    }
    static bool follow(SqliteFile& file, Loaded& to) {
        const auto changes = file.changes_since(to.content.fingerprint);
        EXPECT_TRUE(changes) << changes.error().message;
        if (changes && *changes) {
            apply(**changes, to);
        }
        return changes && *changes;
    }
    static void expect_same(const Loaded& a, const Loaded& b, const std::string& what = "") {
        EXPECT_EQ(a.content.fingerprint, b.content.fingerprint) << what;
        EXPECT_TRUE(a.content.policies == b.content.policies) << what;
        ASSERT_EQ(a.keys.size(), b.keys.size()) << what;
        for (const auto& [id, row] : a.keys) {
            ASSERT_TRUE(b.keys.contains(id)) << what << " " << id;
            ASSERT_TRUE(b.keys.at(id) == row) << what << " " << id;
        }
    }

    std::string directory_;
    std::string path_;
};

const Store::Edit kNothing = [](KeySet&) -> Result<void> { return {}; };

KeyRow full_row() {
    KeyRow row = plain_row(1);
    row.id = "zZ9aA0bB1cC2";
    row.digest.fill(0xFF);
    row.foreign = true;
    row.state = KeyState::kDisabled;
    row.environment = "0123456789abcde";
    row.owner = std::string(253, 'o') + "'\"";
    row.name = "\"'); DROP TABLE keys; -- % _ ? \\ \xE2\x82\xAC";
    row.name.resize(kNameBytesMax, 'n');
    row.metadata = R"({"a":"'\"\\\u0000\n;--","b":[1,-2.5e3,true,null,{}]})";
    row.created_s = kCreatedMax_s;
    row.expires_s = kExpiresMax_s;
    auto terms = std::make_shared<KeyTerms>();
    terms->scopes = {"admin", "reports.*"};
    terms->plan = "free";
    for (unsigned i = 0; i < kAddressesMax; ++i) {
        AddressRangeRow range;
        range.address = {0x20, 0x01, 0x0d, 0xb8, 0, static_cast<uint8_t>(i)};
        range.prefix_bits = 48;
        terms->addresses.push_back(range);
    }
    terms->overrides = {{"burst", LimitForm::kRate, 7, 60, 1, true},
                        {"monthly", LimitForm::kQuotaPerMonth, 10'000'000'000, 0, 0, false}};
    row.terms = terms;
    return row;
}

TEST_F(source_SqliteFile, EveryFieldComesBackAtItsBounds) {
    SqliteFile file(path_);
    put_policies(file);
    KeyRow least = plain_row(2);
    least.created_s = 1;
    least.expires_s = 1;
    KeyRow bare = plain_row(3);
    bare.foreign = true;
    bare.environment.clear();
    KeyRow large = plain_row(4);
    large.metadata = "{\"x\":\"" + std::string(kMetadataBytesMax - 8, 'm') + "\"}";
    ASSERT_EQ(large.metadata.size(), kMetadataBytesMax);
    const Rewrite done = put(file, {full_row(), least, bare, large});
    EXPECT_TRUE(done.written);
    EXPECT_NE(done.before, done.after);
    const Loaded loaded = load(file);
    EXPECT_EQ(loaded.content.fingerprint, done.after);
    EXPECT_TRUE(loaded.content.warnings.empty()) << loaded.content.warnings.front();
    ASSERT_EQ(loaded.keys.size(), 4U);
    for (const KeyRow& row : {full_row(), least, bare, large}) {
        EXPECT_TRUE(loaded.keys.at(row.id) == row) << row.id;
        EXPECT_TRUE(file.find(row.id).value().value() == row) << row.id;
    }
    EXPECT_EQ(loaded.content.policies.scopes,
              (std::vector<std::string>{"reports.read", "reports.write", "admin"}));
    EXPECT_EQ(loaded.content.policies.owners, (std::vector<OwnerRow>{{"acme", "free"}}));
    EXPECT_EQ(loaded.content.policies.plans.at(0).limits.at(0).burst, 20U);
    EXPECT_EQ(file.find("nonexistent0").value(), std::nullopt);
    struct stat status {};
    ASSERT_EQ(stat(path_.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode, S_IFREG | 0600U);
}

TEST_F(source_SqliteFile, WhatIsThereIsNotWrittenAgain) {
    SqliteFile file(path_);
    put_policies(file);
    const Rewrite first = put(file, {full_row(), plain_row(2)});
    const Rewrite again = changed(file, [](KeySet& set) -> Result<void> {
        if (auto done = set.upsert(full_row()); !done) {
            return done;
        }
        if (auto done = set.upsert_plan(set.policies().plans.at(0)); !done) {
            return done;
        }
        return set.upsert_owner({"acme", "free"});
    });
    EXPECT_FALSE(again.written);
    EXPECT_EQ(again.before, first.after);
    EXPECT_EQ(again.after, first.after);
    EXPECT_EQ(file.load(first.after, [](KeyRow) { FAIL() << "streamed"; }).value(), std::nullopt);
    const auto none = file.changes_since(first.after);
    ASSERT_TRUE(none && *none);
    EXPECT_TRUE((*none)->rows.empty() && (*none)->gone.empty() && !(*none)->policies);
}

TEST_F(source_SqliteFile, WhatBreaksARuleIsRefusedAndNothingOfTheChangeStays) {
    SqliteFile file(path_);
    put_policies(file);
    put(file, {plain_row(1)});
    const Loaded before = load(file);
    struct Case {
        std::function<void(KeyRow&)> spoil;
        std::string said;
    };
    const auto with_terms = [](KeyTerms terms) {
        return [terms](KeyRow& row) { row.terms = std::make_shared<const KeyTerms>(terms); };
    };
    const Case cases[] = {
        {[](KeyRow& row) { row.id = "short"; },
         "key short: id: no key id (want 12 characters 0-9A-Za-z; these are 5 bytes)"},
        {[](KeyRow& row) { row.digest = plain_row(1).digest; },
         "key key000000002: sha256: the same digest as key key000000001 (want each key once)"},
        {[](KeyRow& row) { row.environment = "Live"; },
         "key key000000002: environment: 'Live' is no environment (want 1 to 15 characters a-z0-9)"},
        {[](KeyRow& row) { row.environment = ""; },
         "key key000000002: environment: missing (required unless foreign: true)"},
        {[](KeyRow& row) { row.name = std::string(256, 'n'); },
         "key key000000002: name: 256 bytes (want at most 255)"},
        {[](KeyRow& row) { row.owner = "a\nb"; }, "has control characters (want one line of plain text)"},
        {[](KeyRow& row) { row.owner = std::string("a\0b", 3); }, "has control characters"},
        {[](KeyRow& row) { row.name = "\xFF"; }, "has control characters"},
        {[](KeyRow& row) { row.expires_s = kExpiresMax_s + 1; }, "expires: 8589934591 is out of range"},
        {[](KeyRow& row) { row.expires_s = 0; }, "expires: 0 is out of range"},
        {[](KeyRow& row) { row.created_s = -1; }, "created: -1 is out of range"},
        {[](KeyRow& row) { row.metadata = "[1]"; }, "no JSON object"},
        {[](KeyRow& row) { row.metadata = R"({"a":1,"a":2})"; }, "stands twice"},
        {[](KeyRow& row) { row.metadata = "{\"x\":\"" + std::string(5 * 1024, 'm') + "\"}"; },
         "more than 4096 bytes as JSON"},
        {with_terms({.plan = "gold"}), "plan: 'gold' is defined nowhere"},
        {with_terms({.plan = "x'; DROP TABLE keys; --"}), "is no plan's name"},
        {with_terms({.scopes = {"reports.delete"}}), "scopes: 'reports.delete' is defined nowhere"},
        {with_terms({.scopes = {"re\"ports"}}), "is no scope"},
        {with_terms({.plan = "free", .overrides = {{"other", LimitForm::kRate, 1, 1, 1, false}}}),
         "limits: other is no limit of the key's plan"},
    };
    for (const Case& one : cases) {
        KeyRow row = plain_row(2);
        one.spoil(row);
        const std::string said = refused(file, [&](KeySet& set) -> Result<void> {
            if (auto done = set.upsert(plain_row(9)); !done) {
                return done;
            }
            return set.upsert(row);
        });
        EXPECT_NE(said.find(one.said), std::string::npos) << said << "\n  want " << one.said;
        expect_same(load(file), before, one.said);
    }
    EXPECT_EQ(refused(file, [](KeySet& set) { return set.erase_plan("free"); }),
              "plan free: used by 1 owners, the first 'acme' (give them another plan first)");
    KeyRow row = plain_row(3);
    row.owner = "acme";
    row.terms = std::make_shared<const KeyTerms>(KeyTerms{.scopes = {"reports.*"}, .plan = "free"});
    put(file, {row});
    EXPECT_EQ(refused(file, [](KeySet& set) { return set.erase_owner("acme"); }),
              "owner 'acme': used by 1 keys, the first key000000003 (revoke them or give them another owner "
              "first)");
    changed(file, [](KeySet& set) { return set.erase_scope("reports.read"); });
    EXPECT_EQ(refused(file, [](KeySet& set) { return set.erase_scope("reports.write"); }),
              "scope reports.write: used by 1 keys, the first key000000003 (grant them others first)");
    row.state = KeyState::kRevoked;
    put(file, {row});
    row.state = KeyState::kActive;
    EXPECT_EQ(refused(file, [&](KeySet& set) { return set.upsert(row); }),
              "key key000000003: state: a revoked key stays revoked (issue a new key in its place)");
    changed(file, [](KeySet& set) { return set.erase_owner("acme"); });
    EXPECT_EQ(refused(file,
                      [](KeySet& set) -> Result<void> {
                          if (auto done = set.erase("key000000001"); !done || !*done) {
                              return fail("not there");
                          }
                          return fail("no");
                      }),
              "no");
    EXPECT_TRUE(load(file).keys.contains("key000000001"));
}

TEST_F(source_SqliteFile, ScopesAndBranchesHaveOneBoundTogether) {
    SqliteFile file(path_);
    changed(file, [](KeySet& set) -> Result<void> {
        for (unsigned i = 0; i + 1 < kScopesMax; ++i) {
            if (auto done = set.add_scope("a.s" + std::to_string(i)); !done) {
                return done;
            }
        }
        return {};
    });
    const auto granted = [](unsigned number, const char* scope) {
        KeyRow row = plain_row(number);
        row.terms = std::make_shared<const KeyTerms>(KeyTerms{.scopes = {scope}});
        return row;
    };
    put(file, {granted(1, "a.*"), granted(2, "a.*")});
    const char* bound = "385 names and branches in the key set (want at most 384)";
    EXPECT_EQ(refused(file, [&](KeySet& set) { return set.upsert(granted(3, "*")); }),
              std::string("key key000000003: scopes: ") + bound);
    EXPECT_EQ(refused(file, [&](KeySet& set) { return set.add_scope("b"); }),
              std::string("scope b: ") + bound);
    EXPECT_NE(
        refused(file, [&](KeySet& set) { return set.add_scope("a.*"); }).find("is granted, not defined"),
        std::string::npos);
    // A foreign shell can pass it: what has no room is left out and told, until there is room.
    Raw raw(path_);
    raw.run("UPDATE keys SET scopes = '[\"*\"]' WHERE id = 'key000000002'");
    Loaded known = load(file);
    EXPECT_EQ(known.keys.size(), 1U);
    ASSERT_EQ(known.content.warnings.size(), 1U);
    EXPECT_NE(known.content.warnings[0].find("scopes: '*' is one too many"), std::string::npos);
    raw.run("UPDATE keys SET scopes = '[\"*\"]'");
    EXPECT_FALSE(follow(file, known)) << "which have room is told by all of them";
    EXPECT_EQ(load(file).keys.size(), 2U);
}

TEST_F(source_SqliteFile, AForeignRowThatBreaksARuleIsLeftOutAndTold) {
    SqliteFile file(path_);
    put_policies(file);
    const std::string p = "key store " + path_ + ": ";
    struct Case {
        std::string set;
        std::string said;
    };
    const Case cases[] = {
        {"id = 'short'", "keys, rowid 1: id: no key id (want 12 characters 0-9A-Za-z; these are 5 bytes)"},
        {"sha256 = x'00'", "keys, id key000000001: sha256: 1 bytes (want the 32 of a SHA-256)"},
        {"state = 'gone'", "state: 'gone' is no state (want active, disabled or revoked)"},
        {"expires = 0", "expires: 0 is out of range"},
        {"created = 4294967296", "created: 4294967296 is out of range"},
        {"\"foreign\" = 2", "foreign: 2 is no truth value (want 0 or 1)"},
        {"environment = 'LIVE'", "environment: 'LIVE' is no environment"},
        {"environment = ''", "environment: missing"},
        {"owner = char(10)", "owner: '\\u000A' has control characters"},
        {"owner = 'a' || char(0) || 'b'", "owner: "},
        {"name = CAST(x'ff' AS TEXT)", "name: "},
        {"metadata = '[1]'", "metadata: "},
        {"metadata = '{\"a\":1'", "metadata: "},
        {"limits = '[\"burst=5/fortnight\"]', plan = 'free'", "limits: burst: '5/fortnight' is no rate"},
        {"limits = '[\"burst=5/s\"]'", "limits: burst is no limit of the key's plan"},
        {"limits = 'x'", "limits: 'x' is no list of words"},
        {"addresses = '[\"192.0.2.1/24\"]'", "addresses: '192.0.2.1/24' has bits behind its first 24"},
        {"addresses = '[1]'", "addresses: '[1]' is no list of words"},
        {"scopes = '[\"nowhere\"]'", "scopes: 'nowhere' is defined nowhere"},
    };
    Loaded known = load(file);
    for (const Case& one : cases) {
        Raw raw(path_);
        raw.run("PRAGMA ignore_check_constraints = ON; DELETE FROM keys;");
        put(file, {plain_row(1), plain_row(2)});
        known = load(file);
        ASSERT_EQ(known.keys.size(), 2U);
        raw.run("UPDATE keys SET " + one.set + " WHERE id = 'key000000001'");
        const Loaded loaded = load(file);
        EXPECT_EQ(loaded.keys.size(), 1U) << one.set;
        EXPECT_TRUE(loaded.keys.contains("key000000002")) << one.set;
        ASSERT_EQ(loaded.content.warnings.size(), 1U) << one.set;
        EXPECT_TRUE(loaded.content.warnings[0].starts_with(p)) << loaded.content.warnings[0];
        EXPECT_NE(loaded.content.warnings[0].find(one.said), std::string::npos)
            << loaded.content.warnings[0] << "\n  want " << one.said;
        // The key was accepted: whoever follows the changes takes it from its set.
        ASSERT_TRUE(follow(file, known)) << one.set;
        expect_same(known, loaded, one.set);
    }
}

TEST_F(source_SqliteFile, SaysWhatIsWrongOfTwentyRowsAndCountsTheRest) {
    SqliteFile file(path_);
    std::vector<KeyRow> rows;
    for (unsigned i = 0; i < 30; ++i) {
        rows.push_back(plain_row(i));
    }
    put(file, rows);
    Raw(path_).run("PRAGMA ignore_check_constraints = ON; UPDATE keys SET created = 0 WHERE rowid > 5;");
    const Loaded loaded = load(file);
    EXPECT_EQ(loaded.keys.size(), 5U);
    ASSERT_EQ(loaded.content.warnings.size(), 21U);
    EXPECT_EQ(loaded.content.warnings.back(), "key store " + path_ + ": 5 more rows break a rule");
    EXPECT_FALSE(file.find(id_of(20)));
}

TEST_F(source_SqliteFile, APlanThatCannotBeReadTakesItsKeysAlong) {
    SqliteFile file(path_);
    put_policies(file);
    KeyRow planned = plain_row(1);
    planned.terms = std::make_shared<const KeyTerms>(KeyTerms{.plan = "free"});
    KeyRow owned = plain_row(2);
    owned.owner = "acme";
    put(file, {planned, owned, plain_row(3)});
    Loaded known = load(file);
    Raw raw(path_);
    raw.run("UPDATE plans SET limits = '[\"burst=5/fortnight\"]'");
    ASSERT_TRUE(follow(file, known));
    EXPECT_EQ(known.keys.size(), 1U);
    expect_same(known, load(file));
    const std::vector<std::string> told = load(file).content.warnings;
    ASSERT_EQ(told.size(), 4U);
    EXPECT_NE(told[0].find("plans, name 'free': limits: burst: '5/fortnight' is no rate"), std::string::npos);
    EXPECT_NE(told[1].find("owners, name 'acme': plan: 'free' is defined nowhere"), std::string::npos);
    raw.run("UPDATE plans SET limits = '[\"burst=5/s\"]'");
    ASSERT_TRUE(follow(file, known));
    EXPECT_EQ(known.keys.size(), 3U);
    expect_same(known, load(file));
}

TEST_F(source_SqliteFile, AForeignShellMeetsTheRulesAtOnce) {
    SqliteFile file(path_);
    put_policies(file);
    KeyRow row = plain_row(1);
    row.state = KeyState::kRevoked;
    put(file, {row, plain_row(2)});
    Raw raw(path_);
    const char* kept = "a revoked key stays revoked: issue a new key in its place";
    EXPECT_EQ(raw.tried("UPDATE keys SET state = 'active'"), kept);
    EXPECT_EQ(raw.tried("INSERT OR REPLACE INTO keys(id, sha256, environment) VALUES('key000000001', "
                        "randomblob(32), 'live')"),
              kept);
    EXPECT_EQ(raw.tried("INSERT OR REPLACE INTO keys(id, sha256, environment) VALUES('key000000009', " +
                        blob_of(row) + ", 'live')"),
              kept);
    EXPECT_EQ(raw.tried("UPDATE OR REPLACE keys SET sha256 = " + blob_of(row) + " WHERE id = 'key000000002'"),
              kept);
    EXPECT_EQ(raw.tried("UPDATE keys SET plan = 'gold' WHERE id = 'key000000002'"),
              "plan: defined nowhere: insert it into plans first");
    EXPECT_EQ(raw.tried("UPDATE owners SET plan = 'gold'"),
              "plan: defined nowhere: insert it into plans first");
    EXPECT_EQ(raw.tried("DELETE FROM plans"),
              "the plan is in use: give its keys and owners another plan first");
    for (const char* set :
         {"sha256 = x'00'", "state = 'x'", "expires = 0", "created = 0", "environment = 'X'",
          "environment = ''", "metadata = 'x'", "metadata = '[]'", "limits = '{}'", "scopes = '1'",
          "id = 'short'", "\"foreign\" = 2", "name = char(7)"}) {
        EXPECT_NE(raw.tried(std::string("UPDATE keys SET ") + set + " WHERE id = 'key000000002'"), "") << set;
    }
    for (int i = 0; i < 14; ++i) {
        raw.run("INSERT INTO keys(id, sha256, environment) VALUES('env0000000" + std::to_string(10 + i) +
                "', randomblob(32), 'e" + std::to_string(i) + "')");
    }
    EXPECT_EQ(raw.tried("UPDATE keys SET environment = 'onemore' WHERE id = 'key000000002'"),
              "environment: one too many: at most 15 different ones");
    KeyRow more = plain_row(3);
    more.environment = "onemore";
    EXPECT_NE(refused(file, [&](KeySet& set) { return set.upsert(more); }).find("'onemore' is one too many"),
              std::string::npos);
    EXPECT_EQ(load(file).keys.size(), 16U);
}

/// Any operation on few keys, by a foreign shell's SQL or the tool's way; what it says is refused is no
/// matter.
class Operations {
  public:
    Operations(SqliteFile& file, Raw& raw, unsigned seed) : file_(file), raw_(raw), random_(seed) {}

    std::string step() {
        const std::string id = id_of(draw(8));
        const std::string sql = draw(4) == 0 ? "" : some_sql(id);
        if (sql.empty()) {
            (void)file_.change([&](KeySet& set) { return edit(set, id); }, {});
            return "edit";
        }
        return raw_.tried(sql) + " " + sql;
    }

  private:
    unsigned draw(unsigned below) { return static_cast<unsigned>(random_() % below); }
    std::string digest() { return blob_of(plain_row(draw(8))); }
    std::string pick(std::initializer_list<const char*> words) {
        return *(words.begin() + draw(static_cast<unsigned>(words.size())));
    }

    std::string values(const std::string& id) {
        return "(id, sha256, environment, state, plan, scopes, limits, owner, \"foreign\") VALUES('" + id +
               "', " + digest() + ", 'live', " + pick({"'active'", "'active'", "'active'", "'disabled'"}) +
               ", " + pick({"NULL", "NULL", "'p1'", "'p2'"}) + ", " +
               pick({"NULL", "NULL", "'[\"a.*\"]'", "'[\"b\", \"a.x\"]'"}) + ", " +
               pick({"NULL", "NULL", "NULL", "'[\"l=5/s\"]'"}) + ", " + pick({"''", "''", "'o1'"}) + ", " +
               pick({"0", "0", "1"}) + ")";
    }
    std::string conflict() { return pick({"", "", "OR REPLACE ", "OR IGNORE "}); }

    std::string some_sql(const std::string& id) {
        const std::string where = " WHERE id = '" + id + "'";
        switch (draw(16)) {
            case 0:
            case 1:
                return "INSERT " + conflict() + "INTO keys" + values(id);
            case 2:
                return "INSERT OR REPLACE INTO keys" + values(id);
            case 3:
                return "UPDATE " + conflict() + "keys SET id = '" + id_of(draw(8)) + "'" + where;
            case 4:
                return "UPDATE " + conflict() + "keys SET sha256 = " + digest() + where;
            case 5:
                return "UPDATE keys SET name = 'n" + std::to_string(draw(3)) + "', state = 'disabled'" +
                       where;
            case 6:
                return "DELETE FROM keys" + where;
            case 7:
                return "UPDATE OR REPLACE keys SET rowid = " + std::to_string(1 + draw(6)) + where;
            case 8:
                return "INSERT " + conflict() + "INTO plans(name, limits) VALUES('" + pick({"p1", "p2"}) +
                       "', " + pick({"NULL", "'[\"l=9/s\"]'", "'[\"l=9/day\"]'", "'[\"l=9/never\"]'"}) + ")";
            case 9:
                return "UPDATE plans SET limits = " +
                       pick({"NULL", "'[\"l=9/s\"]'", "'[\"l=9/day\"]'", "'[\"l=9/never\"]'"}) +
                       " WHERE name = '" + pick({"p1", "p2"}) + "'";
            case 10:
                return "DELETE FROM plans WHERE name = '" + pick({"p1", "p2"}) + "'";
            case 11:
                return "INSERT " + conflict() + "INTO scopes(name) VALUES('" + pick({"a.x", "a.y", "b"}) +
                       "')";
            case 12:
                return "DELETE FROM scopes WHERE name = '" + pick({"a.x", "a.y", "b"}) + "'";
            case 13:
                return "INSERT OR REPLACE INTO owners(name, plan) VALUES('" + pick({"o1", "o2"}) + "', " +
                       pick({"NULL", "'p1'", "'p2'"}) + ")";
            case 14:
                return "UPDATE " + conflict() + "scopes SET name = '" + pick({"a.x", "b"}) +
                       "' WHERE name = 'a.y'";
            default:
                return "BEGIN; UPDATE keys SET created = 5" + where + "; UPDATE keys SET created = NULL" +
                       where + "; DELETE FROM keys WHERE id = '" + id_of(draw(8)) + "'; " +
                       pick({"COMMIT", "ROLLBACK"});
        }
    }
    Result<void> edit(KeySet& set, const std::string& id) {
        const auto present = set.key(id);
        if (present && *present && draw(2) == 0) {
            const auto erased = set.erase(id);
            return erased ? Result<void>() : tl::unexpected(erased.error());
        }
        KeyRow row = plain_row(draw(8));
        row.id = id;
        row.name = "tool";
        return set.upsert(row);
    }

    SqliteFile& file_;
    Raw& raw_;
    std::mt19937 random_;
};

TEST_F(source_SqliteFile, WhatChangedIsTheDifferenceOfTwoLoads) {
    SqliteFile file(path_);
    put_policies(file);
    Raw raw(path_);
    size_t warned = 0;
    for (unsigned seed = 1; seed <= 6; ++seed) {
        Operations operations(file, raw, seed);
        Loaded known = load(file);
        for (int round = 0; round < 120; ++round) {
            std::string done;
            for (unsigned i = 0; i <= seed % 4 * 2; ++i) {
                done += operations.step() + "\n";
            }
            ASSERT_TRUE(follow(file, known)) << done;
            const Loaded fresh = load(file);
            warned += fresh.content.warnings.size();
            expect_same(known, fresh,
                        "seed " + std::to_string(seed) + " round " + std::to_string(round) + ":\n" + done);
            if (HasFatalFailure()) {
                return;
            }
        }
    }
    EXPECT_GT(warned, 100U) << "broken rows were part of it";
}

// Whoever told the daemon of a key may have been faster than its reading of the log.
TEST_F(source_SqliteFile, WhoIsAheadOfItsFingerprintIsToldOfAllThatWent) {
    SqliteFile file(path_);
    put_policies(file);
    const Fingerprint since = load(file).content.fingerprint;
    const KeyRow row = plain_row(1);
    Raw raw(path_);
    raw.run("PRAGMA ignore_check_constraints = ON");
    raw.run("INSERT INTO keys(id, sha256, environment) VALUES('" + row.id + "', " + blob_of(row) +
            ", 'live')");
    raw.run("UPDATE keys SET environment = 'LIVE'");
    auto changes = file.changes_since(since).value();
    ASSERT_TRUE(changes);
    ASSERT_EQ(changes->gone.size(), 1U);
    EXPECT_EQ(changes->gone[0].digest, row.digest);
    EXPECT_EQ(changes->rows.size(), 0U);
    ASSERT_EQ(changes->warnings.size(), 1U);
    EXPECT_NE(changes->warnings[0].find("environment: 'LIVE'"), std::string::npos);
    // Another digest under the id, twice: both are gone.
    raw.run("UPDATE keys SET environment = 'live', sha256 = zeroblob(32)");
    raw.run("UPDATE keys SET sha256 = randomblob(32)");
    changes = file.changes_since(since).value();
    ASSERT_TRUE(changes);
    EXPECT_EQ(changes->gone.size(), 2U);
    EXPECT_EQ(changes->rows.size(), 1U);
}

TEST_F(source_SqliteFile, ABackupThatWasPutBackIsAnotherHistory) {
    SqliteFile file(path_);
    put(file, {plain_row(1)});
    Raw(path_).run("VACUUM INTO '" + directory_ + "/backup.db'");
    put(file, {plain_row(2)});
    const Loaded known = load(file);
    std::filesystem::rename(directory_ + "/backup.db", path_);
    for (const char* tail : {"-wal", "-shm"}) {
        std::filesystem::remove(path_ + tail);
    }
    EXPECT_EQ(file.changes_since(known.content.fingerprint).value(), std::nullopt) << "fewer changes";
    EXPECT_EQ(load(file).keys.size(), 1U);
    put(file, {plain_row(3)});
    EXPECT_EQ(file.changes_since(known.content.fingerprint).value(), std::nullopt) << "as many, but others";
    put(file, {plain_row(4)});
    EXPECT_EQ(file.changes_since(known.content.fingerprint).value(), std::nullopt) << "more, but others";
    EXPECT_EQ(load(file).keys.size(), 3U);
    // A database of its own under the name.
    SqliteFile other(directory_ + "/other.db");
    put(other, {plain_row(1), plain_row(2), plain_row(3), plain_row(4), plain_row(5)});
    Raw(directory_ + "/other.db").run("PRAGMA wal_checkpoint(TRUNCATE)");
    const Loaded before = load(file);
    std::filesystem::rename(directory_ + "/other.db", path_);
    EXPECT_EQ(file.changes_since(before.content.fingerprint).value(), std::nullopt);
    EXPECT_EQ(load(file).keys.size(), 5U);
    put(file, {plain_row(6)});
    EXPECT_EQ(load(file).keys.size(), 6U);
}

TEST_F(source_SqliteFile, AHistoryThatWasCutIsToldFromNone) {
    SqliteFile file(path_);
    put(file, {plain_row(1)});
    const Loaded known = load(file);
    put(file, {plain_row(2)});
    const Loaded later = load(file);
    Raw raw(path_);
    raw.run("DELETE FROM changes WHERE seq <= 1");
    EXPECT_EQ(file.changes_since(known.content.fingerprint).value(), std::nullopt);
    EXPECT_TRUE(file.changes_since(later.content.fingerprint).value());
    raw.run("DELETE FROM changes");
    EXPECT_EQ(file.changes_since(later.content.fingerprint).value(), std::nullopt);
    put(file, {plain_row(3)});
    EXPECT_EQ(file.changes_since(later.content.fingerprint).value(), std::nullopt);
    Loaded now = load(file);
    raw.run(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 102000) "
        "INSERT INTO scopes(name) SELECT 's' || i FROM n; DELETE FROM scopes;");
    const int64_t kept = raw.number("SELECT count(*) FROM changes");
    EXPECT_GE(kept, 100'000);
    EXPECT_LE(kept, 101'000);
    EXPECT_EQ(file.changes_since(now.content.fingerprint).value(), std::nullopt);
}

TEST_F(source_SqliteFile, TwoWhoChangeItAtOnceBothSucceed) {
    SqliteFile file(path_);
    put(file, {plain_row(0)});
    constexpr unsigned kEach = 25;
    const auto add = [&](unsigned from) {
        SqliteFile own(path_);
        for (unsigned i = 0; i < kEach; ++i) {
            const auto done = own.change([&](KeySet& set) { return set.upsert(plain_row(from + i)); }, {});
            if (!done) {
                return done.error().message;
            }
        }
        return std::string();
    };
    std::string threads_said;
    const pid_t child = fork();
    if (child == 0) {
        _exit(add(1000).empty() ? 0 : 1);
    }
    std::thread beside([&] { threads_said = add(2000); });
    const std::string said = add(3000);
    beside.join();
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    EXPECT_EQ(said + threads_said, "");
    EXPECT_EQ(load(file).keys.size(), 1 + 3 * kEach);
}

TEST_F(source_SqliteFile, AKilledWriterLeavesTheOldOrTheNew) {
    SqliteFile file(path_);
    std::vector<KeyRow> rows;
    for (unsigned i = 0; i < 200; ++i) {
        rows.push_back(plain_row(i));
    }
    put(file, rows);
    std::mt19937 random(5);
    for (int round = 0; round < 30; ++round) {
        const pid_t child = fork();
        if (child == 0) {
            SqliteFile own(path_);
            for (int name = 0;; ++name) {
                for (KeyRow& row : rows) {
                    row.name = std::to_string(round) + "." + std::to_string(name);
                }
                (void)own.change(
                    [&](KeySet& set) -> Result<void> {
                        for (const KeyRow& row : rows) {
                            if (auto done = set.upsert(row); !done) {
                                return done;
                            }
                        }
                        return {};
                    },
                    {});
            }
        }
        usleep(1000 + static_cast<unsigned>(random() % 40'000));
        kill(child, SIGKILL);
        waitpid(child, nullptr, 0);
        SqliteFile fresh(path_);
        const Loaded loaded = load(fresh);
        ASSERT_EQ(loaded.keys.size(), rows.size());
        for (const auto& [id, row] : loaded.keys) {
            ASSERT_EQ(row.name, loaded.keys.begin()->second.name) << "half of a change";
        }
        put(fresh, {plain_row(500)});
        changed(fresh, [](KeySet& set) -> Result<void> {
            const auto erased = set.erase(plain_row(500).id);
            return erased && *erased ? Result<void>() : fail("not there");
        });
    }
}

TEST_F(source_SqliteFile, WhatIsNoKeyStoreIsLeftAloneAndNamed) {
    const std::string p = "key store " + path_ + ": ";
    SqliteFile file(path_);
    const auto said = [&](const ChangeOptions& options) {
        SqliteFile fresh(path_);
        const auto done = fresh.change(kNothing, options);
        return done ? "" : done.error().message;
    };
    const auto load_said = [&] {
        SqliteFile fresh(path_);
        const auto done = fresh.load(std::nullopt, [](KeyRow) {});
        return done ? "" : done.error().message;
    };
    EXPECT_EQ(said({}), p + "there is none yet; apikeyctl makes it with the first change");
    EXPECT_EQ(load_said(), p + "there is none yet; apikeyctl makes it with the first change");
    EXPECT_FALSE(std::filesystem::exists(path_ + ".lock"));
    Raw(path_).run("CREATE TABLE mine(a)");
    EXPECT_EQ(said({}), p + "is another program's SQLite database; name another file");
    EXPECT_EQ(load_said(), p + "is another program's SQLite database; name another file");
    std::filesystem::remove(path_);
    put(file, {plain_row(1)});
    Raw(path_).run("PRAGMA user_version = 2");
    const std::string newer =
        p + "has version 2, this apikeyd knows up to 1; run the newer apikeyd, or name another file";
    EXPECT_EQ(said({}), newer);
    EXPECT_EQ(load_said(), newer);
    Raw(path_).run("PRAGMA user_version = 1");
    std::filesystem::resize_file(path_, 0);
    for (const char* tail : {"-wal", "-shm"}) {
        std::filesystem::remove(path_ + tail);
    }
    EXPECT_EQ(load_said(), p + "is empty; apikeyctl fills it with the first change");
}

TEST_F(source_SqliteFile, ALockedStoreIsWaitedForThenNamed) {
    SqliteFile file(path_);
    put(file, {plain_row(1)});
    Raw raw(path_);
    raw.run("BEGIN IMMEDIATE; UPDATE keys SET name = 'half'");
    ChangeOptions impatient;
    impatient.lock_wait_ms_max = 20;
    const auto edit = [](KeySet& set) { return set.upsert(plain_row(2)); };
    const auto done = file.change(edit, impatient);
    ASSERT_FALSE(done);
    EXPECT_NE(done.error().message.find("changing it: another program holds it locked"), std::string::npos)
        << done.error().message;
    EXPECT_EQ(load(file).keys.at(id_of(1)).name, "") << "who reads waits for nobody";
    raw.run("COMMIT");
    EXPECT_TRUE(file.change(edit, impatient));
    EXPECT_EQ(load(file).keys.at(id_of(1)).name, "half");
    // One of ours waits at the lock file.
    ChangeOptions holding;
    std::string inner;
    holding.then_locked = [&](const Rewrite& rewrite) {
        EXPECT_TRUE(rewrite.written);
        SqliteFile other(path_);
        const auto second = other.change(edit, impatient);
        inner = second ? "" : second.error().message;
    };
    EXPECT_TRUE(file.change([](KeySet& set) { return set.upsert(plain_row(3)); }, holding));
    EXPECT_NE(inner.find("keys.db.lock: still locked by process"), std::string::npos) << inner;
}

TEST_F(source_SqliteFile, AFullDiskChangesNothing) {
    SqliteFile file(path_);
    put(file, {plain_row(1)});
    const Loaded before = load(file);
    const auto edit = [](KeySet& set) -> Result<void> {
        if (auto done = set.upsert(plain_row(2)); !done) {
            return done;
        }
        const auto erased = set.erase(id_of(1));
        return erased ? Result<void>() : tl::unexpected(erased.error());
    };
    {
        const test::FailingWrites full(ENOSPC);
        EXPECT_NE(refused(file, edit).find("no space left; free space on its file system"),
                  std::string::npos);
    }
    expect_same(load(file), before);
    changed(file, edit);
    EXPECT_TRUE(load(file).keys.contains(id_of(2)));
}

TEST_F(source_SqliteFile, WhoMayOnlyReadIsTold) {
    if (geteuid() != 0) {
        GTEST_SKIP() << "needs root to become somebody else";
    }
    SqliteFile file(path_);
    put(file, {plain_row(1)});
    ASSERT_EQ(chmod(directory_.c_str(), 0755), 0);
    for (const char* tail : {"", "-wal", "-shm"}) {
        ASSERT_EQ(chmod((path_ + tail).c_str(), 0644), 0);
    }
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        if (setuid(65534) != 0) {
            _exit(1);
        }
        SqliteFile own(path_);
        const bool reads = own.find(id_of(1)).value_or(std::nullopt).has_value();
        const auto done = own.change(kNothing, {});
        const std::string text = (reads ? "reads; " : "") + (done ? "changed" : done.error().message);
        _exit(write(ends[1], text.data(), text.size()) > 0 ? 0 : 1);
    }
    close(ends[1]);
    char text[1000];
    const ssize_t got = read(ends[0], text, sizeof text);
    close(ends[0]);
    waitpid(child, nullptr, 0);
    const std::string said(text, static_cast<size_t>(std::max<ssize_t>(got, 0)));
    EXPECT_TRUE(said.starts_with("reads; key store " + path_ + ": not writable for user 65534")) << said;
}

}  // namespace
}  // namespace apikeyd
