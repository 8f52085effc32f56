// What the tests of the usage store share: a directory, generations made of literals, a look into the file,
// and children that SQLite's own hooks kill.

#pragma once

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "usage/usage_reader.h"
#include "usage/usage_store.h"

namespace apikeyd::test {

/// A fresh directory for each test, removed at its end.
class UsageTest : public ::testing::Test {
  protected:
    void SetUp() override;
    void TearDown() override;
    /// Where the directory is made.
    [[nodiscard]] virtual std::string place() const { return ::testing::TempDir(); }

    std::filesystem::path directory_;
    std::string path_;
};

inline GenerationUid uid_of(uint8_t number) {
    GenerationUid uid{};
    uid.fill(number);
    return uid;
}

inline KeyDigest digest_of(uint64_t number) {
    KeyDigest digest{};
    for (size_t i = 0; i < sizeof(number); ++i) {
        digest[i] = static_cast<uint8_t>((number * 0x9E3779B97F4A7C15U) >> (8 * i));  // odd factor: distinct
    }
    return digest;
}

/// Owns what GenerationCounts points to.
struct Generation {
    GenerationUid uid{};
    std::vector<KeyCount> keys;
    std::vector<CodeCount> codes;
    bool closing = false;
    std::vector<QuotaCount> quotas = {};

    [[nodiscard]] GenerationCounts counts() const { return {uid, 7, keys, codes, quotas, closing}; }
};

/// Opens, or fails the test and throws.
UsageStore open_store(const std::string& path);
UsageReader open_reader(const std::string& path);

/// Flushes one generation at second 1000, or fails the test.
FlushSummary flush_one(UsageStore& store, const Generation& generation, int64_t now_s = 1000);

/// Everything a reader can see, and the rows of quotas: `plan/limit kind period used` with the owner's name
/// or the digest in hexadecimal before it.
struct Recorded {
    std::vector<KeyTotal> keys;
    std::vector<CodeCount> codes;
    std::vector<std::string> quotas = {};
    friend bool operator==(const Recorded&, const Recorded&) = default;
};
Recorded recorded(const std::string& path);

/// True when what is kept by minute, by hour and by day says the same as the totals, of keys and of codes.
bool times_agree(const std::string& path);

/// Moves all recent rows, as flushes of later minutes do. Of a closed store, and none of minute 0.
void fold_all(const std::string& path);

/// Makes a store of version 1 or 3 of a closed one that has nothing yet that those had not.
void make_version(int version, const std::string& path);

/// One integer, or all rows' first columns as texts, out of the file, by a connection of its own.
std::vector<std::string> query_texts(const std::string& path, const std::string& sql);
int64_t query_int(const std::string& path, const std::string& sql);
void execute(const std::string& path, const std::string& sql);

/// Runs `body` in a forked child and answers what it returned; the child may drop privileges or set a umask.
std::string in_child(const std::function<std::string()>& body);

/// A child without root's power over file modes: where this is root, it becomes kNobody.
inline constexpr uid_t kNobody = 65534;
void drop_privileges();

enum class CrashPoint { kStatement, kSystemCall, kTornWrite };

/// Forks a child that runs `body` and kills itself with SIGKILL at the n-th point (from 1): before a
/// SQL statement; before SQLite writes, truncates, maps or unlinks; in the middle of a write. True: it was
/// killed. False: it ran to its end, having met fewer points.
bool crashes_at(CrashPoint point, int n, const std::function<void()>& body);

/// While it lives, every file write of SQLite in this process fails with this errno.
class FailingWrites {
  public:
    explicit FailingWrites(int error);
    ~FailingWrites();
    FailingWrites(const FailingWrites&) = delete;
    FailingWrites& operator=(const FailingWrites&) = delete;
};

/// While it lives, remembers the last connection opened in this process.
class ConnectionSpy {
  public:
    ConnectionSpy();
    ~ConnectionSpy();
    ConnectionSpy(const ConnectionSpy&) = delete;
    ConnectionSpy& operator=(const ConnectionSpy&) = delete;
    static sqlite3* last();
};

}  // namespace apikeyd::test
