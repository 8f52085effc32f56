// Promise: a snapshot says what its source said when that was last in force, whole, whoever was killed; what
// was refused is not in it, a revocation that was told as done is; one that cannot be trusted is not used.

#include "source/snapshot.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <chrono>
#include <fstream>
#include <map>
#include <optional>
#include <random>

#include "base/clock.h"
#include "plain_row.h"
#include "source/snapshot_schema.h"
#include "source/sqlite_file.h"
#include "usage_fixture.h"

namespace apikeyd {
namespace {

using test::CrashPoint;
using test::execute;
using test::query_int;

constexpr int64_t kHour_s = 3600;

Fingerprint name_of(uint64_t version, uint8_t history = 1) {
    Fingerprint name{};
    name[0] = history;
    name[1] = static_cast<uint8_t>(version);
    name[2] = static_cast<uint8_t>(version >> 8);
    return name;
}
uint64_t version_of(const Fingerprint& name) {
    return name[1] | uint64_t{name[2]} << 8;
}

/// What a source says at one moment.
struct Said {
    std::map<std::string, KeyRow> keys;
    PolicySet policies;

    friend bool operator==(const Said&, const Said&) = default;
};

/// All versions of it are known, the last is what it says.
class FakeSource final : public Source {
  public:
    [[nodiscard]] const std::string& place() const override { return place_; }

    Result<std::optional<SourceContent>> load(const std::optional<Fingerprint>& unless,
                                              const RowSink& sink) override {
        if (is_away) {
            return fail("fake: is away");
        }
        if (unless == name()) {
            return std::nullopt;
        }
        ++loads;
        for (const auto& [id, row] : said().keys) {
            sink(row);
        }
        return SourceContent{.fingerprint = name(), .keys = said().keys.size(), .policies = said().policies};
    }
    [[nodiscard]] bool tells_changes() const override { return tells; }
    Result<std::optional<SourceChanges>> changes_since(const Fingerprint& since) override {
        if (is_away) {
            return fail("fake: is away");
        }
        const uint64_t then = version_of(since);
        if (!tells || then < told_from || then >= versions.size() || since[0] != history) {
            return std::nullopt;
        }
        SourceChanges changes{.fingerprint = name()};
        const Said& before = versions[then];
        for (const auto& [id, row] : said().keys) {
            const auto was = before.keys.find(id);
            if (was == before.keys.end() || was->second != row) {
                changes.rows.push_back(row);
                if (was != before.keys.end() && was->second.digest != row.digest) {
                    changes.gone.push_back(was->second);
                }
            }
        }
        for (const auto& [id, row] : before.keys) {
            if (!said().keys.contains(id)) {
                changes.gone.push_back(row);
            }
        }
        if (before.policies != said().policies) {
            changes.policies = said().policies;
        }
        return changes;
    }

    [[nodiscard]] const Said& said() const { return versions.back(); }
    [[nodiscard]] Fingerprint name() const { return name_of(versions.size() - 1, history); }
    /// What it says from now on.
    Said& change() {
        versions.push_back(versions.back());
        return versions.back();
    }

    std::vector<Said> versions = {{}};
    uint64_t told_from = 0;  ///< what changed before is not known any more
    uint64_t loads = 0;      ///< of all rows
    uint8_t history = 1;     ///< no name is of two contents
    bool is_away = false;
    bool tells = true;

  private:
    std::string place_ = "fake";
};

/// Nothing is left out of it.
KeyRow full_row(unsigned number) {
    KeyRow row = make_row(number).row;
    row.owner = number % 2 == 0 ? "acme" : "";
    row.name = "key " + std::to_string(number) + " 'quoted\" \xc3\xa9";
    row.created_s = 1'700'000'000 + number;
    if (number % 3 == 0) {
        row.expires_s = 4'000'000'000 + number;
    }
    if (number % 5 == 0) {
        row.metadata = R"({"number":)" + std::to_string(number) + "}";
    }
    if (number % 4 == 0) {
        KeyTerms terms;
        terms.scopes = {"reports.*", "reports.read"};
        terms.plan = "free";
        terms.addresses = {{{0x20, 0x01, 0x0d, 0xb8}, 32}};
        terms.overrides = {limit("burst", "7/s")};
        row.terms = std::make_shared<const KeyTerms>(terms);
    }
    if (number % 7 == 0) {
        row.foreign = true;
        row.environment.clear();
    }
    if (number % 6 == 0) {
        row.state = KeyState::kDisabled;
    }
    return row;
}

PolicySet full_policies() {
    return {{"reports.read", "reports.write"},
            {{"free", {limit("burst", "5/s"), limit("monthly", "1000/month", 0, true)}}, {"none", {}}},
            {{"acme", "free"}, {"other", ""}}};
}

class source_Snapshot : public test::UsageTest {
  protected:
    void SetUp() override {
        UsageTest::SetUp();
        path_ = directory_ / "keys.snapshot";
        Said& said = source_->change();
        said.policies = full_policies();
        for (unsigned number = 0; number < 50; ++number) {
            put(said, full_row(number));
        }
        open();
    }
    [[nodiscard]] std::string place() const override {
        return access("/dev/shm", W_OK) == 0 ? "/dev/shm/" : ::testing::TempDir();
    }

    static void put(Said& said, const KeyRow& row) { said.keys[row.id] = row; }
    /// As a daemon that starts.
    void open(const std::string& source = "fake:here", int64_t max_age_s = kHour_s) {
        snapshotted_.reset();
        snapshot_ = std::make_shared<Snapshot>(SnapshotOptions{path_, source, max_age_s});
        snapshotted_ = std::make_unique<SnapshottedSource>(source_, snapshot_);
    }
    /// All of it, as the daemon reads it at first, and again when it is told to; what it said.
    Said load(const std::optional<Fingerprint>& unless = std::nullopt) {
        Said said;
        const auto content = snapshotted_->load(unless, [&](const KeyRow& row) { put(said, row); });
        EXPECT_TRUE(content) << content.error().message;
        if (content && *content) {
            said.policies = (*content)->policies;
            EXPECT_EQ((*content)->fingerprint, source_->name());
        }
        return said;
    }
    void load_in_force() {
        load();
        snapshot_->in_force(source_->name());
    }
    /// What is known to have changed, and is in force then.
    void read_on(const Fingerprint& since) {
        const auto changes = snapshotted_->changes_since(since);
        ASSERT_TRUE(changes) << changes.error().message;
        ASSERT_TRUE(*changes);
        EXPECT_EQ((*changes)->fingerprint, source_->name());
        snapshot_->in_force((*changes)->fingerprint);
    }

    /// What a start without the source would find.
    struct Found {
        std::optional<Said> said = std::nullopt;
        std::string error = {};
        int64_t taken_s = 0;
        Fingerprint name{};
    };
    static Found found_in(const std::string& path, const std::string& source = "fake:here",
                          int64_t max_age_s = kHour_s) {
        Snapshot snapshot({path, source, max_age_s});
        Said said;
        const auto kept = snapshot.load([&](const KeyRow& row) { put(said, row); });
        if (!kept) {
            return {.error = kept.error().message};
        }
        EXPECT_EQ(kept->content.warnings, std::vector<std::string>());
        EXPECT_EQ(kept->content.keys, said.keys.size());
        said.policies = kept->content.policies;
        return {said, "", kept->taken_s, kept->content.fingerprint};
    }
    [[nodiscard]] Found found() const { return found_in(path_); }
    void expect_what_the_source_says() const {
        const Found there = found();
        ASSERT_TRUE(there.said) << there.error;
        EXPECT_TRUE(*there.said == source_->said());
        EXPECT_EQ(there.name, source_->name());
        EXPECT_EQ(snapshot_->problem(), "");
    }
    [[nodiscard]] KeyState state_of(unsigned number) const {
        const Found there = found();
        EXPECT_TRUE(there.said) << there.error;
        const std::string id = full_row(number).id;
        return there.said && there.said->keys.contains(id) ? there.said->keys.at(id).state
                                                           : KeyState::kActive;
    }
    void spoil(const std::string& text, std::streamoff at) const {
        std::fstream(path_, std::ios::in | std::ios::out | std::ios::binary).seekp(at) << text;
    }
    /// Beside the snapshot nothing of ours is left.
    [[nodiscard]] size_t files() const {
        return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(directory_), {}));
    }

    std::shared_ptr<FakeSource> source_ = std::make_shared<FakeSource>();
    std::shared_ptr<Snapshot> snapshot_;
    std::unique_ptr<SnapshottedSource> snapshotted_;
};

TEST_F(source_Snapshot, ALoadIsInItOnceItIsInForce) {
    EXPECT_TRUE(load() == source_->said());
    EXPECT_NE(found().error.find("there is none yet"), std::string::npos) << found().error;
    snapshot_->in_force(source_->name());
    expect_what_the_source_says();
    EXPECT_NEAR(static_cast<double>(found().taken_s), static_cast<double>(realtime_now_ns()) / 1e9, 60);
    struct stat status {};
    ASSERT_EQ(stat(path_.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777, 0600U);
}

TEST_F(source_Snapshot, ARefusedLoadIsNotInIt) {
    load_in_force();
    const Said before = source_->said();
    source_->change().keys.clear();
    source_->told_from = 2;
    load();
    EXPECT_TRUE(*found().said == before);
    // The daemon goes on with what it has, and asks again.
    load();
    snapshot_->in_force(name_of(1));
    EXPECT_TRUE(*found().said == before);
    EXPECT_EQ(found().name, name_of(1));
    load_in_force();
    expect_what_the_source_says();
}

TEST_F(source_Snapshot, ALoadThatFailsLeavesItAsItWas) {
    load_in_force();
    const Said before = source_->said();
    source_->change().keys.clear();
    source_->is_away = true;
    EXPECT_FALSE(snapshotted_->load(std::nullopt, [](const KeyRow&) {}));
    EXPECT_FALSE(snapshotted_->changes_since(name_of(1)));
    EXPECT_TRUE(*found().said == before);
    source_->is_away = false;
    struct Thrown {};
    source_->told_from = 2;
    put(source_->change(), full_row(1));
    EXPECT_THROW(static_cast<void>(snapshotted_->load(std::nullopt, [](const KeyRow&) { throw Thrown{}; })),
                 Thrown);
    snapshot_->in_force(source_->name());
    EXPECT_TRUE(*found().said == before);
}

TEST_F(source_Snapshot, WhatChangesIsWrittenAloneAndAllOfIt) {
    load_in_force();
    std::minstd_rand chance(1);
    const auto any = [&](unsigned below) { return static_cast<unsigned>(chance() % below); };
    for (int round = 0; round < 200; ++round) {
        const Fingerprint since = source_->name();
        Said& said = source_->change();
        for (unsigned changes = 1 + any(4); changes != 0; --changes) {
            KeyRow row = full_row(any(80));
            switch (any(5)) {
                case 0:
                    said.keys.erase(row.id);
                    break;
                case 1:
                    row.state = KeyState::kRevoked;
                    put(said, row);
                    break;
                case 2: {  // another key under the id
                    row.digest[0] = static_cast<uint8_t>(round);
                    row.digest[1] ^= 0x55;
                    put(said, row);
                    break;
                }
                case 3:
                    said.policies.owners.push_back(
                        {"owner " + std::to_string(round) + " " + std::to_string(changes), ""});
                    said.policies.plans.front().limits.front().requests = 1 + any(100);
                    said.policies.plans.front().limits.front().burst = 100;
                    break;
                default:
                    put(said, row);
            }
            if (said.policies.owners.size() > 5) {
                said.policies.owners.resize(2);
            }
        }
        read_on(since);
        expect_what_the_source_says();
    }
    EXPECT_EQ(source_->loads, 1U);
}

TEST_F(source_Snapshot, KeysThatChangeTheirDigestsAreKept) {
    load_in_force();
    Said& said = source_->change();
    KeyRow& one = said.keys.at(full_row(1).id);
    KeyRow& other = said.keys.at(full_row(2).id);
    std::swap(one.digest, other.digest);
    read_on(name_of(1));
    expect_what_the_source_says();
}

// The tool's changes are in force without the source being read; its word is the next that is heard.
TEST_F(source_Snapshot, ItCatchesUpWithWhatWasNotReadForIt) {
    load_in_force();
    put(source_->change(), full_row(60));
    read_on(source_->name());
    expect_what_the_source_says();
    // Also after reads that did not come into force.
    put(source_->change(), full_row(61));
    ASSERT_TRUE(snapshotted_->changes_since(name_of(2)));
    put(source_->change(), full_row(62));
    read_on(name_of(3));
    expect_what_the_source_says();
    EXPECT_EQ(source_->loads, 1U);
}

TEST_F(source_Snapshot, WhatNobodyTellsOfAnyMoreIsReadAgainWhenNothingElseIsToBeDone) {
    load_in_force();
    put(source_->change(), full_row(60));
    source_->told_from = 2;
    put(source_->change(), full_row(61));
    read_on(name_of(2));
    EXPECT_EQ(source_->loads, 1U);
    EXPECT_EQ(found().name, name_of(1));
    read_on(name_of(3));
    EXPECT_EQ(source_->loads, 2U);
    expect_what_the_source_says();
}

TEST_F(source_Snapshot, OfASourceThatTellsNoChangesAllIsReadAgain) {
    source_->tells = false;
    load_in_force();
    expect_what_the_source_says();
    put(source_->change(), full_row(60));
    // In force already, by the tool.
    EXPECT_TRUE(load(source_->name()).keys.empty());
    snapshot_->in_force(source_->name());
    expect_what_the_source_says();
    EXPECT_EQ(source_->loads, 2U);
    EXPECT_TRUE(load(source_->name()).keys.empty());
    EXPECT_EQ(source_->loads, 2U);
}

TEST_F(source_Snapshot, ADaemonThatStartsWritesOnlyWhatChangedSince) {
    load_in_force();
    snapshot_->close();
    struct stat before {};
    ASSERT_EQ(stat(path_.c_str(), &before), 0);
    put(source_->change(), full_row(60));
    open();
    EXPECT_TRUE(load() == source_->said());
    snapshot_->in_force(source_->name());
    expect_what_the_source_says();
    struct stat after {};
    ASSERT_EQ(stat(path_.c_str(), &after), 0);
    EXPECT_EQ(before.st_ino, after.st_ino);
}

TEST_F(source_Snapshot, ARevocationIsInItBeforeItIsTold) {
    load_in_force();
    KeyRow row = full_row(1);
    row.state = KeyState::kRevoked;
    // Of a source that others have changed as well: when is not known.
    EXPECT_TRUE(
        snapshot_->made({{name_of(7), name_of(8), {row}, {}}, {name_of(8), name_of(9), {}, {full_row(2)}}}));
    EXPECT_FALSE(snapshot_->made({{name_of(7), name_of(8), {full_row(3)}, {}}}));  // it may be older
    EXPECT_EQ(state_of(1), KeyState::kRevoked);
    EXPECT_FALSE(found().said->keys.contains(full_row(2).id));
    EXPECT_EQ(found().name, name_of(1));
}

TEST_F(source_Snapshot, ARevocationIsNotLostToALoadThatBeganBeforeIt) {
    load_in_force();
    for (const bool all : {false, true}) {
        KeyRow row = full_row(all ? 1 : 3);
        put(source_->change(), full_row(all ? 61 : 60));
        source_->told_from = all ? source_->versions.size() - 1 : 0;
        row.name = "renamed";  // what was read of it was true then
        put(source_->versions.back(), row);
        load();
        row.state = KeyState::kRevoked;
        snapshot_->made({{name_of(700), name_of(701), {row}, {}}});
        snapshot_->in_force(source_->name());
        EXPECT_EQ(found().name, source_->name());
        EXPECT_EQ(state_of(all ? 1 : 3), KeyState::kRevoked);
    }
}

TEST_F(source_Snapshot, ChangesFromWhereItStandsTakeItThere) {
    EXPECT_FALSE(snapshot_->made({{name_of(0), name_of(1), {full_row(60)}, {}}}));  // there is none
    load_in_force();
    KeyRow row = full_row(60);
    put(source_->change(), row);
    KeyRow disabled = full_row(1);
    disabled.state = KeyState::kDisabled;
    Said& said = source_->change();
    put(said, disabled);
    said.keys.erase(full_row(2).id);
    EXPECT_TRUE(snapshot_->made(
        {{name_of(1), name_of(2), {row}, {}}, {name_of(2), name_of(3), {disabled}, {full_row(2)}}}));
    expect_what_the_source_says();
    EXPECT_EQ(source_->loads, 1U);
}

TEST_F(source_Snapshot, TheTimeIsRefreshedOnceAMinuteAndAtTheEnd) {
    load_in_force();
    const auto age = [&] {
        return static_cast<int64_t>(realtime_now_ns() / 1'000'000'000) - found().taken_s;
    };
    const auto make_old = [&](int64_t s) {
        snapshot_->close();
        execute(path_, "UPDATE snapshot SET taken = taken - " + std::to_string(s));
        open();
    };
    make_old(1000);
    EXPECT_GE(age(), 1000);
    load_in_force();
    EXPECT_LT(age(), 60);
    make_old(30);
    load_in_force();
    EXPECT_GE(age(), 30);
    snapshot_->close();
    EXPECT_LT(age(), 30);
    // What is known to be the source's word is so since the read began, not since it was asked for again.
    make_old(500);
    source_->is_away = true;
    EXPECT_FALSE(snapshotted_->load(std::nullopt, [](const KeyRow&) {}));
    snapshot_->close();
    EXPECT_GE(age(), 500);
}

TEST_F(source_Snapshot, WhatCannotBeTrustedIsNotUsed) {
    load_in_force();
    EXPECT_EQ(found_in(path_, "fake:there").error,
              "snapshot " + path_ + ": is of another source, fake:here, and not used");
    snapshot_->close();
    execute(path_, "UPDATE snapshot SET taken = 1700000000");
    EXPECT_EQ(found().error, "snapshot " + path_ +
                                 ": is of 2023-11-14T22:13:20Z, which is longer ago than snapshot.max_age_h, "
                                 "and not used");
    execute(path_, "UPDATE snapshot SET taken = strftime('%s') - 3500");
    EXPECT_TRUE(found().said);
    execute(path_, "UPDATE snapshot SET taken = strftime('%s') + 100000");  // the clock was set back
    EXPECT_TRUE(found().said);
    execute(path_, "DELETE FROM snapshot");
    EXPECT_NE(found().error.find(": is not whole"), std::string::npos) << found().error;
    execute(path_, "PRAGMA user_version = 99");
    EXPECT_NE(found().error.find(": has version 99"), std::string::npos) << found().error;
}

TEST_F(source_Snapshot, OneOfOursThatIsOfNoUseIsReplaced) {
    const auto spoilt = [&](int way) {
        std::filesystem::remove(path_ + "-wal");
        switch (way) {
            case 0:
                execute(path_, "PRAGMA user_version = 99");
                break;
            case 1:
                std::filesystem::resize_file(path_, std::filesystem::file_size(path_) / 2);
                break;
            case 2:
                spoil(std::string(8192, 'x'), 4096);
                break;
            case 3:
                std::filesystem::resize_file(path_, 0);
                break;
            case 4:
                execute(path_, "UPDATE snapshot SET source = 'fake:there'");
                break;
            default:
                execute(path_, "DROP TABLE keys");
        }
    };
    for (int way = 0; way < 6; ++way) {
        SCOPED_TRACE(way);
        load_in_force();
        expect_what_the_source_says();
        snapshot_->close();
        spoilt(way);
        EXPECT_FALSE(found().said);
        EXPECT_NE(found().error.find(path_), std::string::npos) << found().error;
        open();
        EXPECT_TRUE(load() == source_->said());
        snapshot_->in_force(source_->name());
        expect_what_the_source_says();
    }
}

// SQLite would put into the new file what the old one's log says.
TEST_F(source_Snapshot, TheLogOfOneThatWasReplacedGoesWithIt) {
    load_in_force();
    execute(path_, "PRAGMA user_version = 99");  // into the log, since the daemon has it open
    const std::string files[] = {path_, path_ + "-wal"};
    for (const std::string& file : files) {
        std::filesystem::copy_file(file, file + ".kept");
    }
    ASSERT_GT(std::filesystem::file_size(files[1]), 0U);
    snapshot_->close();
    for (const std::string& file : files) {  // as a kill leaves it
        std::filesystem::rename(file + ".kept", file);
    }
    std::filesystem::remove(path_ + "-shm");
    EXPECT_NE(found().error.find(": has version 99"), std::string::npos) << found().error;
    open();
    load_in_force();
    expect_what_the_source_says();
}

TEST_F(source_Snapshot, AnotherProgramsFileIsLeftAlone) {
    const auto text = [&] {
        if (std::filesystem::is_directory(path_)) {
            return std::string("a directory");
        }
        std::ifstream file(path_, std::ios::binary);
        return std::string(std::istreambuf_iterator<char>(file), {});
    };
    const auto make = [&](int way) {
        std::filesystem::remove_all(path_);
        switch (way) {
            case 0:
                std::ofstream(path_) << "keys: []\n" << std::string(200, '#');
                break;
            case 1:
                std::ofstream(path_) << "x";
                break;
            case 2:
                std::ofstream(path_).flush();
                execute(path_, "CREATE TABLE notes(text)");
                break;
            case 3:
                EXPECT_TRUE(SqliteFile(path_).change([](KeySet& set) { return set.add_scope("a"); },
                                                     {.create = true, .then_locked = {}}));
                break;
            case 4:
                std::filesystem::create_directory(path_);
                break;
            default:
                std::ofstream(directory_ / "else") << "precious";
                std::filesystem::create_symlink(directory_ / "else", path_);
        }
    };
    for (int way = 0; way < 6; ++way) {
        SCOPED_TRACE(way);
        make(way);
        const std::string before = text();
        const auto refused = check_snapshot_place(path_);
        EXPECT_FALSE(refused);
        open();
        EXPECT_FALSE(found().said);
        EXPECT_TRUE(load() == source_->said());
        snapshot_->in_force(source_->name());
        EXPECT_NE(snapshot_->problem(), "");
        EXPECT_TRUE(text() == before);
        load_in_force();
        EXPECT_TRUE(text() == before);
    }
    std::filesystem::remove_all(path_);
    EXPECT_TRUE(check_snapshot_place(path_));
    load_in_force();
    expect_what_the_source_says();
    snapshot_->close();
    EXPECT_TRUE(check_snapshot_place(path_));
}

TEST_F(source_Snapshot, WhatCannotBeWrittenIsAProblemAndNoMore) {
    {
        const test::FailingWrites full(ENOSPC);
        EXPECT_TRUE(load() == source_->said());
        snapshot_->in_force(source_->name());
    }
    EXPECT_NE(snapshot_->problem().find("no space left"), std::string::npos) << snapshot_->problem();
    load_in_force();
    expect_what_the_source_says();
    const Said before = source_->said();
    put(source_->change(), full_row(60));
    {
        const test::FailingWrites full(ENOSPC);
        const auto changes = snapshotted_->changes_since(name_of(1));
        ASSERT_TRUE(changes && *changes);
        snapshot_->in_force(source_->name());
        EXPECT_NE(snapshot_->problem(), "");
    }
    EXPECT_TRUE(*found().said == before);
    read_on(source_->name());
    expect_what_the_source_says();
    snapshot_->close();
    std::filesystem::remove_all(directory_);
    EXPECT_TRUE(load() == source_->said());
    snapshot_->in_force(source_->name());
    EXPECT_NE(snapshot_->problem(), "");
    EXPECT_NE(found().error, "");
    std::filesystem::create_directory(directory_);
    load_in_force();
    expect_what_the_source_says();
}

// Of so many another thread writes.
TEST_F(source_Snapshot, ManyKeysAreAllInIt) {
    Said& said = source_->change();
    for (unsigned number = 0; number < 50'000; ++number) {
        KeyRow row;
        const std::string digits = std::to_string(number);
        row.id = std::string(kKeyIdLength - digits.size(), '0') + digits;
        std::copy(row.id.begin(), row.id.end(), row.digest.begin());
        row.environment = "live";
        put(said, row);
    }
    {
        const test::FailingWrites full(ENOSPC);
        load_in_force();
    }
    EXPECT_NE(snapshot_->problem(), "");
    EXPECT_FALSE(found().said);
    load();
    source_->is_away = true;
    EXPECT_FALSE(snapshotted_->load(std::nullopt, [](const KeyRow&) {}));
    source_->is_away = false;
    load_in_force();
    expect_what_the_source_says();
    EXPECT_LE(files(), 3U);
}

TEST_F(source_Snapshot, OneThatCannotBeGoneOnWithIsMadeAnew) {
    load_in_force();
    execute(path_, "CREATE TRIGGER no_more BEFORE INSERT ON keys BEGIN SELECT RAISE(ABORT, 'no'); END");
    for (unsigned number = 60; number < 64; ++number) {
        const Fingerprint since = source_->name();
        put(source_->change(), full_row(number));
        read_on(since);
        EXPECT_NE(snapshot_->problem(), "");
    }
    EXPECT_EQ(source_->loads, 1U);
    read_on(source_->name());
    expect_what_the_source_says();
    EXPECT_EQ(source_->loads, 2U);
}

TEST_F(source_Snapshot, OneThatWasRemovedIsMadeAgain) {
    load_in_force();
    std::filesystem::remove(path_);
    read_on(source_->name());
    expect_what_the_source_says();
}

// Whoever copies the files at any moment, in the order SQLite asks for, has a snapshot.
TEST_F(source_Snapshot, AKillAtAnyPointLeavesAStateBetween) {
    struct Done {
        int steps;
        int begun;
    };
    auto* const done = static_cast<Done*>(
        mmap(nullptr, sizeof(Done), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    ASSERT_NE(done, MAP_FAILED);
    // The states after each step, of which the child makes the same.
    std::vector<Said> states;
    const auto work = [&](bool real) {
        const auto source = std::make_shared<FakeSource>(*source_);
        const auto snapshot = std::make_shared<Snapshot>(SnapshotOptions{path_, "fake:here", kHour_s});
        SnapshottedSource snapshotted(source, snapshot);
        const auto step = [&](const auto& change) {
            const Fingerprint since = source->name();
            change(source->change());
            ++done->begun;
            if (real) {
                const auto found = snapshotted.changes_since(since);
                if (!found || !*found) {
                    static_cast<void>(snapshotted.load(std::nullopt, [](const KeyRow&) {}));
                }
                snapshot->in_force(source->name());
            }
            states.push_back(source->said());
            ++done->steps;
        };
        for (unsigned round = 0; round < 2; ++round) {
            source->told_from = source->versions.size();  // all is read
            step([&](Said& said) { put(said, full_row(100 + round)); });
            step([&](Said& said) { said.keys.erase(full_row(10 + round).id); });
            step([&](Said& said) { said.policies.plans.front().limits.front().requests = 10 + round; });
            const Fingerprint since = source->name();
            KeyRow row = full_row(20 + round);
            row.state = KeyState::kRevoked;
            put(source->change(), row);
            ++done->begun;
            if (real) {
                snapshot->made({{since, source->name(), {row}, {}}});
            }
            states.push_back(source->said());
            ++done->steps;
        }
    };
    work(false);
    const std::vector<Said> expected = states;
    int kills = 0;
    for (const CrashPoint point : {CrashPoint::kStatement, CrashPoint::kSystemCall, CrashPoint::kTornWrite}) {
        for (int n = 1;; n += point == CrashPoint::kStatement ? 3 : 1) {
            SCOPED_TRACE(std::to_string(static_cast<int>(point)) + " " + std::to_string(n));
            std::filesystem::remove_all(directory_);
            std::filesystem::create_directory(directory_);
            *done = {};
            const bool killed = test::crashes_at(point, n, [&] { work(true); });
            const Found there = found();
            const auto steps = static_cast<size_t>(done->steps);
            if (steps == 0 && !there.said) {
                EXPECT_NE(there.error, "");
            } else {
                ASSERT_TRUE(there.said) << there.error;
                const bool is_state = (steps != 0 && *there.said == expected[steps - 1]) ||
                                      (steps < expected.size() && *there.said == expected[steps]);
                EXPECT_TRUE(is_state) << steps;
            }
            // And the next daemon goes on.
            const auto source = std::make_shared<FakeSource>(*source_);
            const auto snapshot = std::make_shared<Snapshot>(SnapshotOptions{path_, "fake:here", kHour_s});
            SnapshottedSource snapshotted(source, snapshot);
            source->history = 2;
            put(source->change(), full_row(200));
            ASSERT_TRUE(snapshotted.load(std::nullopt, [](const KeyRow&) {}));
            snapshot->in_force(source->name());
            EXPECT_EQ(snapshot->problem(), "");
            EXPECT_TRUE(*found().said == source->said());
            snapshot->close();
            EXPECT_LE(files(), 3U);  // with -wal and -shm
            kills += killed ? 1 : 0;
            if (!killed) {
                EXPECT_EQ(steps, expected.size());
                break;
            }
        }
    }
    EXPECT_GT(kills, 50);
    munmap(done, sizeof(Done));
}

}  // namespace
}  // namespace apikeyd
