// A store large enough for two threads is read as a small one is: every row once, in the order of rowids.

#include "source/sqlite_scan.h"

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <memory>
#include <thread>

#include "loop_fixture.h"
#include "source/sqlite_file.h"

namespace apikeyd {
namespace {

struct Close {
    void operator()(sqlite3* database) const { sqlite3_close(database); }
};

class SqliteScanTest : public testing::Test {
  protected:
    void SetUp() override {
        ChangeOptions options;
        options.create = true;
        const auto made =
            SqliteFile(path_).change([](KeySet& set) { return set.add_scope("reports"); }, options);
        ASSERT_TRUE(made) << made.error().message;
        sqlite3* opened = nullptr;
        ASSERT_EQ(sqlite3_open(path_.c_str(), &opened), SQLITE_OK);
        database_.reset(opened);
    }
    void run(const std::string& sql) {
        ASSERT_EQ(sqlite3_exec(database_.get(), sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK)
            << sqlite3_errmsg(database_.get());
    }
    /// Keys 1 to `count`, their rowids `apart`.
    void fill(int count, int apart) {
        const std::string n = std::to_string(count);
        run("INSERT INTO keys(rowid, id, sha256, environment) WITH RECURSIVE n(i) AS "
            "(SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < " +
            n + ") SELECT i * " + std::to_string(apart) +
            ", printf('%012d', i), CAST(printf('%032d', i) AS BLOB), 'live' FROM n");
    }
    std::vector<std::string> ids(const std::string& where) {
        std::vector<std::string> found;
        const auto add = [](void* to, int, char** columns, char**) {
            static_cast<std::vector<std::string>*>(to)->emplace_back(columns[0]);
            return 0;
        };
        const std::string sql = "SELECT id FROM keys " + where + " ORDER BY rowid";
        EXPECT_EQ(sqlite3_exec(database_.get(), sql.c_str(), add, &found, nullptr), SQLITE_OK);
        return found;
    }
    struct Loaded {
        std::vector<std::string> ids;
        std::vector<std::string> warnings;
        ptrdiff_t threads = 0;
    };
    Loaded load() {
        Loaded loaded;
        SqliteFile file(path_);
        const auto content = file.load(std::nullopt, [&](const KeyRow& row) {
            if (loaded.ids.size() % 1000 == 0) {
                const std::filesystem::directory_iterator threads("/proc/self/task");
                loaded.threads = std::max(loaded.threads, std::distance(begin(threads), end(threads)));
            }
            loaded.ids.push_back(row.id);
        });
        EXPECT_TRUE(content) << content.error().message;
        if (content && *content) {
            loaded.warnings = (*content)->warnings;
        }
        return loaded;
    }

    TemporaryDirectory directory_;
    std::string path_ = directory_ / "keys.db";
    std::unique_ptr<sqlite3, Close> database_;
};

TEST_F(SqliteScanTest, EveryRowComesOnceAndInOrder) {
    fill(90000, 3);
    run("DELETE FROM keys WHERE rowid % 17 = 0 OR rowid BETWEEN 60000 AND 80000");
    run("PRAGMA ignore_check_constraints = 1");
    run("UPDATE keys SET owner = char(9) WHERE id IN ('000000000005', '000000013001', '000000090000')");
    const Loaded loaded = load();
    EXPECT_EQ(loaded.ids, ids("WHERE owner = ''"));
    ASSERT_EQ(loaded.warnings.size(), 3u);
    EXPECT_NE(loaded.warnings[1].find("keys, id 000000013001: owner: "), std::string::npos)
        << loaded.warnings[1];
    EXPECT_GT(loaded.ids.size(), 50000u);
    // The sanitizers may have threads of their own.
    run("DELETE FROM keys WHERE rowid > 3000");  // too few for two
    EXPECT_EQ(loaded.threads - load().threads, std::thread::hardware_concurrency() > 1 ? 1 : 0);
}

TEST_F(SqliteScanTest, RowsFarApartAreReadByOneThread) {
    fill(70000, 1000000);
    EXPECT_EQ(load().ids, ids(""));
}

TEST_F(SqliteScanTest, WhatTheVisitorThrowsEndsBothThreads) {
    fill(80000, 1);
    struct Enough {};
    SqliteFile file(path_);
    for (const size_t wanted : {1u, 5000u, 79999u}) {
        size_t seen = 0;
        const auto visit = [&](const KeyRow&) {
            if (++seen == wanted) {
                throw Enough{};
            }
        };
        EXPECT_THROW((void)file.load(std::nullopt, visit), Enough);
        EXPECT_EQ(seen, wanted);
    }
    EXPECT_EQ(load().ids.size(), 80000u);
}

}  // namespace
}  // namespace apikeyd
