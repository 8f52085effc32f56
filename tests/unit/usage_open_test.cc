// Opening the store, for writing and for reading: what is refused, in which words, and with which file modes.

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <iterator>

#include "usage_fixture.h"

namespace apikeyd::test {
namespace {

using UsageOpenTest = UsageTest;
namespace fs = std::filesystem;

/// The message of a refused opening; it must name the path.
std::string refusal(const std::string& path) {
    const Result<UsageStore> store = UsageStore::open(path);
    return store ? "opened" : store.error().message;
}

std::string reader_refusal(const std::string& path) {
    const Result<UsageReader> reader = UsageReader::open(path);
    return reader ? "opened" : reader.error().message;
}

void expect_words(const std::string& message, const std::string& path, const std::string& words) {
    EXPECT_NE(message.find(words), std::string::npos) << message;
    EXPECT_NE(message.find(path), std::string::npos) << message;
}

std::string bytes_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

mode_t mode_of(const std::string& path) {
    struct stat status {};
    return lstat(path.c_str(), &status) == 0 ? status.st_mode & 07777U : 0;
}

void make_store(const std::string& path) {
    UsageStore store = open_store(path);
    flush_one(store, Generation{uid_of(1), {{digest_of(1), "one", 5, 1}}, {{0, 6}}});
}

TEST_F(UsageOpenTest, WhatIsNoStoreIsRefused) {
    const std::string missing = directory_ / "nowhere" / "usage.db";
    expect_words(refusal(missing), missing, "does not exist; create it");
    expect_words(reader_refusal(missing), missing, "does not exist");
    EXPECT_FALSE(fs::exists(directory_ / "nowhere"));
    const std::string directory = directory_ / "folder";
    fs::create_directory(directory);
    expect_words(refusal(directory), directory, "is a directory");
    expect_words(refusal(directory + "/"), directory, "not a file name");
    expect_words(refusal(""), "''", "not a file name");
    ASSERT_EQ(mkfifo((directory_ / "fifo").c_str(), 0600), 0);
    expect_words(refusal(directory_ / "fifo"), directory_ / "fifo", "is not a regular file");
    expect_words(reader_refusal(path_), path_, "there is none yet");
    std::ofstream(path_).close();
    expect_words(reader_refusal(path_), path_, "is empty");
}

TEST_F(UsageOpenTest, AFileThatIsNoDatabaseStaysAsItIs) {
    for (const std::string& text : {std::string("hello\n"), std::string(10'000, 'x')}) {
        std::ofstream(path_, std::ios::binary) << text;
        expect_words(refusal(path_), path_, "is not a usage store");
        expect_words(reader_refusal(path_), path_, "is not a usage store");
        EXPECT_EQ(bytes_of(path_), text);
    }
}

TEST_F(UsageOpenTest, AnotherProgramsDatabaseStaysAsItIs) {
    std::ofstream(path_).close();
    execute(path_, "CREATE TABLE theirs(a); INSERT INTO theirs VALUES(1)");
    const std::string before = bytes_of(path_);
    expect_words(refusal(path_), path_, "another program's");
    expect_words(reader_refusal(path_), path_, "another program's");
    EXPECT_EQ(bytes_of(path_), before);
}

// To each of two daemons the other's generations would be vanished ones, never to be added to again.
TEST_F(UsageOpenTest, AStoreIsOneDaemons) {
    auto first = UsageStore::open(path_);
    ASSERT_TRUE(first) << first.error().message;
    const auto second = UsageStore::open(path_);
    ASSERT_FALSE(second);
    EXPECT_NE(second.error().message.find("another daemon keeps its counts in this store"), std::string::npos)
        << second.error().message;
    EXPECT_TRUE(UsageReader::open(path_)) << "reading is for everyone";
    first = fail("closed");
    EXPECT_TRUE(UsageStore::open(path_));
}

TEST_F(UsageOpenTest, ANewerStoreStaysAsItIs) {
    make_store(path_);
    execute(path_, "PRAGMA user_version = 6; PRAGMA wal_checkpoint(TRUNCATE)");
    const std::string before = bytes_of(path_);
    expect_words(refusal(path_), path_, "has version 6");
    expect_words(reader_refusal(path_), path_, "has version 6");
    EXPECT_EQ(bytes_of(path_), before);
}

TEST_F(UsageOpenTest, AnOlderStoreIsReadAsItIsAndBroughtUpByWhoWrites) {
    const Generation more{uid_of(1), {{digest_of(1), "one", 7, 1}}, {{0, 8}}};
    const auto tables = [](const std::string& path) {
        return query_texts(path, "SELECT name || sql FROM sqlite_schema WHERE sql NOT NULL ORDER BY name");
    };
    make_store(path_);
    const std::vector<std::string> wanted = tables(path_);
    make_version(1, path_);
    const std::string before = bytes_of(path_);
    EXPECT_EQ(open_reader(path_).total("one").value(), (KeyTotal{"one", 5, 1, 1000}));
    EXPECT_EQ(bytes_of(path_), before);
    {
        UsageStore store = open_store(path_);
        EXPECT_EQ(flush_one(store, more).allowed_added, 2U) << "the baselines are there";
    }
    EXPECT_EQ(query_int(path_, "PRAGMA user_version"), 5);
    EXPECT_EQ(tables(path_), wanted);
    EXPECT_EQ(open_reader(path_).total("one").value(), (KeyTotal{"one", 7, 1, 1000}));
}

TEST_F(UsageOpenTest, ALinkIsNotFollowedButALinkedDirectoryIs) {
    make_store(path_);
    const std::string link = directory_ / "link.db";
    fs::create_symlink(path_, link);
    expect_words(refusal(link), link, "symbolic link");
    expect_words(reader_refusal(link), link, "symbolic link");
    fs::create_symlink(directory_ / "absent.db", directory_ / "dangling.db");
    expect_words(refusal(directory_ / "dangling.db"), directory_ / "dangling.db", "symbolic link");
    EXPECT_FALSE(fs::exists(directory_ / "absent.db"));

    fs::create_directory(directory_ / "real");
    fs::create_directory_symlink(directory_ / "real", directory_ / "linked");
    make_store(directory_ / "linked" / "usage.db");
    EXPECT_TRUE(fs::exists(directory_ / "real" / "usage.db"));
}

TEST_F(UsageOpenTest, ModesAreExplicitWhateverTheUmask) {
    for (const mode_t mask : {0U, 022U, 077U}) {
        const std::string path = directory_ / std::to_string(mask);
        const std::string modes = in_child([&] {
            umask(mask);
            UsageStore store = open_store(path);
            flush_one(store, Generation{uid_of(1), {{digest_of(1), "one", 1, 0}}, {}});
            std::string found;
            for (const char* suffix : {"", "-wal", "-shm"}) {
                found.append(std::to_string(mode_of(path + suffix))).append(" ");
            }
            return found;
        });
        const std::string wanted = std::to_string(0640) + " ";
        EXPECT_EQ(modes, wanted + wanted + wanted);
    }
}

TEST_F(UsageOpenTest, WhoMayOnlyReadCanReadAndIsToldWhenWriting) {
    make_store(path_);
    for (const fs::directory_entry& entry : fs::directory_iterator(directory_)) {
        fs::permissions(entry.path(), fs::perms(0444));
    }
    fs::permissions(directory_, fs::perms(0555));
    const std::string report = in_child([&] {
        drop_privileges();
        return refusal(path_) + "|" + refusal(directory_ / "new.db") + "|" +
               std::to_string(recorded(path_).keys.at(0).allowed);
    });
    expect_words(report, path_, "not writable for user");
    expect_words(report, directory_ / "new.db", "cannot be created: Permission denied");
    EXPECT_EQ(report.substr(report.rfind('|')), "|5");

    fs::permissions(path_, fs::perms(0000));
    const std::string denied = in_child([&] {
        drop_privileges();
        return reader_refusal(path_);
    });
    expect_words(denied, path_, "check owner and mode");
}

TEST_F(UsageOpenTest, AReaderWithoutWritePermissionSeesARunningWriter) {
    const std::string seen = in_child([&]() -> std::string {
        int ready[2];
        int stop[2];
        if (pipe(ready) != 0 || pipe(stop) != 0) {
            return "pipe";
        }
        // The writer is another process, forked before any connection exists: SQLite's must not cross a fork.
        const pid_t writer = fork();
        if (writer == 0) {
            close(stop[1]);
            close(ready[0]);
            UsageStore store = open_store(path_);
            flush_one(store, Generation{uid_of(1), {{digest_of(1), "one", 5, 1}}, {}});
            for (const fs::directory_entry& entry : fs::directory_iterator(directory_)) {
                fs::permissions(entry.path(), fs::perms(0444));
            }
            fs::permissions(directory_, fs::perms(0555));
            char byte = 0;
            _exit(write(ready[1], "r", 1) == 1 && read(stop[0], &byte, 1) == 0 ? 0 : 1);
        }
        close(ready[1]);
        close(stop[0]);
        char byte = 0;
        std::string text = "the writer is not ready";
        if (read(ready[0], &byte, 1) == 1) {
            drop_privileges();
            text = std::to_string(recorded(path_).keys.at(0).allowed);
        }
        close(stop[1]);
        int status = 0;
        return waitpid(writer, &status, 0) == writer && status == 0 ? text : text + ", and the writer failed";
    });
    EXPECT_EQ(seen, "5");
}

TEST_F(UsageOpenTest, AWalkSeesOneStateWhileTheWriterGoesOn) {
    UsageStore store = open_store(path_);
    Generation generation{uid_of(1), {{digest_of(1), "a", 1, 0}, {digest_of(2), "b", 1, 0}}, {}};
    flush_one(store, generation);
    UsageReader reader = open_reader(path_);
    std::vector<KeyTotal> seen;
    ASSERT_TRUE(reader.for_each_total([&](const KeyTotal& total) {
        seen.push_back(total);
        generation.keys[0].allowed += 10;
        generation.keys[1].allowed += 10;
        flush_one(store, generation);
    }));
    EXPECT_EQ(seen, (std::vector<KeyTotal>{{"a", 1, 0, 1000}, {"b", 1, 0, 1000}}));
    EXPECT_EQ(reader.total("b").value(), (KeyTotal{"b", 21, 0, 1000}));
    EXPECT_EQ(reader.total("c").value(), std::nullopt);
}

TEST_F(UsageOpenTest, AStoreLockedForGoodIsReported) {
    make_store(path_);
    sqlite3* other = nullptr;
    ASSERT_EQ(sqlite3_open(path_.c_str(), &other), SQLITE_OK);
    ASSERT_EQ(
        sqlite3_exec(other, "PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE; DELETE FROM codes; COMMIT",
                     nullptr, nullptr, nullptr),
        SQLITE_OK);
    expect_words(refusal(path_), path_, "locked");
    ASSERT_EQ(sqlite3_close(other), SQLITE_OK);
    EXPECT_EQ(refusal(path_), "opened");
}

// A connection that could not open the log for writing when it was made never looks again.
TEST_F(UsageOpenTest, ALogThatBecomesWritableIsWrittenByTheNextFlush) {
    make_store(path_);
    const std::string said = in_child([&]() -> std::string {
        const std::string log = path_ + "-wal";
        for (const std::string& name : {directory_.string(), path_, log, path_ + "-shm", path_ + ".lock"}) {
            if (geteuid() == 0 && chown(name.c_str(), kNobody, kNobody) != 0) {
                return "cannot give it away";
            }
        }
        drop_privileges();
        fs::permissions(log, fs::perms(0444));
        UsageStore store = open_store(path_);
        Generation generation{uid_of(2), {{digest_of(1), "one", 5, 1}}, {{0, 6}}};
        const Result<FlushSummary> refused = store.flush(std::vector{generation.counts()});
        fs::permissions(log, fs::perms(0644));
        const Result<FlushSummary> flushed = store.flush(std::vector{generation.counts()});
        return (refused ? "written" : refused.error().message) + "|" +
               (flushed ? "written" : flushed.error().message) + "|" +
               (store.take_reopened() ? "of another store" : "of the same store");
    });
    expect_words(said, path_, "not writable for user");
    EXPECT_EQ(said.substr(said.find('|')), "|written|of the same store");
}

TEST_F(UsageOpenTest, ARemovedStoreIsMadeAnew) {
    UsageStore store = open_store(path_);
    Generation generation{uid_of(1), {{digest_of(1), "one", 5, 1}}, {{0, 6}}};
    flush_one(store, generation);
    EXPECT_FALSE(store.take_reopened());
    fs::remove_all(directory_);
    generation.keys[0].allowed = 8;
    const Result<FlushSummary> refused = store.flush(std::vector{generation.counts()});
    ASSERT_FALSE(refused);
    expect_words(refused.error().message, path_, "does not exist; create it");
    EXPECT_FALSE(store.is_closed(uid_of(1)));
    fs::create_directory(directory_);
    // A new store knows nothing: it gets all that was counted since the generation began.
    flush_one(store, generation);
    EXPECT_TRUE(store.take_reopened());
    flush_one(store, generation);
    EXPECT_FALSE(store.take_reopened());
    EXPECT_EQ(open_reader(path_).total("one").value(), (KeyTotal{"one", 8, 1, 1000}));
}

TEST_F(UsageOpenTest, ABackupPutBackCountsOnFromItsOwnBaselines) {
    Generation generation{uid_of(1), {{digest_of(1), "one", 5, 1}}, {{0, 6}}};
    { flush_one(*std::make_unique<UsageStore>(open_store(path_)), generation); }
    const std::string backup = directory_ / "backup";
    fs::copy(path_, backup);
    UsageStore store = open_store(path_);
    generation.keys[0].allowed = 10;
    flush_one(store, generation);
    fs::rename(backup, path_);
    generation.keys[0].allowed = 12;
    flush_one(store, generation);
    EXPECT_TRUE(store.take_reopened());
    EXPECT_EQ(open_reader(path_).total("one").value(), (KeyTotal{"one", 12, 1, 1000}));
}

}  // namespace
}  // namespace apikeyd::test
