// The instance's directory: safe modes, one daemon at a time, leftovers of killed builds removed.

#include "shm/directory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/support/child.h"

namespace {

using namespace apikey::shm;
using apikey::test::Child;
using apikey::test::in_child;

constexpr gid_t kKeepGroup = static_cast<gid_t>(-1);
constexpr uid_t kNobody = 65534;

class DirectoryTest : public testing::Test {
  protected:
    void SetUp() override { ASSERT_NE(mkdtemp(base_.data()), nullptr); }
    void TearDown() override { std::filesystem::remove_all(base_); }

    Result<Directory> open_it(gid_t group = kKeepGroup) {
        return Directory::open_and_lock(base_, "one", group);
    }
    std::string error_of(const std::string& base, const std::string& instance) {
        auto opened = Directory::open_and_lock(base, instance, kKeepGroup);
        return opened ? "opened" : opened.error().message;
    }
    static mode_t mode_of(const std::string& path) {
        struct stat status {};
        EXPECT_EQ(lstat(path.c_str(), &status), 0) << path;
        return status.st_mode & 07777;
    }
    void touch(const std::string& name) { std::ofstream(base_ + "/one/" + name) << "x"; }
    bool exists(const std::string& name) { return std::filesystem::exists(base_ + "/one/" + name); }

    std::string base_ = "/dev/shm/apikey-directory-XXXXXX";
};

TEST_F(DirectoryTest, IsMadeWithExactModesWhateverTheUmask) {
    for (const mode_t mask : {0, 0777}) {
        const std::string base = base_ + "/base-" + std::to_string(mask);
        const mode_t before = umask(mask);
        auto opened = Directory::open_and_lock(base, "one", kKeepGroup);
        umask(before);
        ASSERT_TRUE(opened) << opened.error().message;
        EXPECT_EQ(mode_of(base), 0755u) << "instances of several groups are reached through it";
        EXPECT_EQ(mode_of(base + "/one"), 0750u);
        EXPECT_EQ(mode_of(base + "/one/lock"), 0600u);
        EXPECT_EQ(opened->path(), base + "/one");
    }
}

TEST_F(DirectoryTest, TheClientsGroupFollowsTheConfiguration) {
    ASSERT_EQ(geteuid(), 0u) << "this test gives directories away: run it as root";
    struct stat status {};
    for (const gid_t group : {54321u, 54322u}) {
        ASSERT_TRUE(open_it(group));
        ASSERT_EQ(stat((base_ + "/one").c_str(), &status), 0);
        EXPECT_EQ(status.st_gid, group);
        EXPECT_EQ(status.st_mode & 07777, 0750u);
    }
}

TEST_F(DirectoryTest, ASecondDaemonIsRefusedAndToldWhoServes) {
    auto first = open_it();
    ASSERT_TRUE(first) << first.error().message;
    const std::string expected = base_ + "/one: another daemon (pid " + std::to_string(getpid()) +
                                 ") serves this instance; stop it or set another `instance`";
    EXPECT_EQ(error_of(base_, "one"), expected) << "in the same process";
    const int status = in_child([&] { return error_of(base_, "one") == expected ? 0 : 1; });
    EXPECT_EQ(status, 0) << "in another process";
    EXPECT_EQ(error_of(base_, "two"), "opened") << "another instance is nobody's business";
}

TEST_F(DirectoryTest, TheLockGoesWithItsHolderByWhateverEnd) {
    ASSERT_TRUE(open_it());
    ASSERT_TRUE(open_it()) << "closed";
    int ready[2];
    ASSERT_EQ(pipe2(ready, O_CLOEXEC), 0);
    Child holder([&] {
        auto held = open_it();
        if (write(ready[1], held ? "y" : "n", 1) == 1) {
            pause();
        }
        return 1;
    });
    char answer = 0;
    ASSERT_EQ(read(ready[0], &answer, 1), 1);
    ASSERT_EQ(answer, 'y');
    EXPECT_NE(error_of(base_, "one").find("pid " + std::to_string(holder.pid())), std::string::npos);
    ASSERT_EQ(kill(holder.pid(), SIGKILL), 0);
    EXPECT_EQ(holder.wait(), 128 + SIGKILL);
    EXPECT_TRUE(open_it());
    close(ready[0]);
    close(ready[1]);
}

TEST_F(DirectoryTest, AnInstancesNameIsAPlainName) {
    for (const char* name : {"", ".", "..", ".hidden", "a/b", "../elsewhere"}) {
        EXPECT_NE(error_of(base_, name).find("must be a plain name"), std::string::npos) << name;
    }
}

TEST_F(DirectoryTest, WhatIsNoDirectoryIsRefused) {
    std::ofstream(base_ + "/one") << "a file";
    EXPECT_EQ(error_of(base_, "one"),
              base_ + "/one: is no directory (links are not followed); remove it or set another `directory`");
    std::filesystem::create_directory(base_ + "/real");
    std::filesystem::create_directory_symlink(base_ + "/real", base_ + "/link");
    EXPECT_NE(error_of(base_, "link").find("is no directory"), std::string::npos);
    EXPECT_NE(error_of(base_ + "/link", "two").find("is no directory"), std::string::npos);
    EXPECT_NE(error_of(base_ + "/missing/deeper", "two").find("No such file or directory"),
              std::string::npos);
}

TEST_F(DirectoryTest, DirectoriesOfOthersAreRefused) {
    ASSERT_EQ(geteuid(), 0u) << "this test gives directories away: run it as root";
    std::filesystem::create_directory(base_ + "/one");
    ASSERT_EQ(chown((base_ + "/one").c_str(), kNobody, kKeepGroup), 0);
    EXPECT_EQ(error_of(base_, "one"),
              base_ +
                  "/one: owned by uid 65534, not by this daemon's uid 0; remove it or set "
                  "another `directory`");
    // Whoever owns the base could rename another directory into the instance's place.
    ASSERT_EQ(chown(base_.c_str(), kNobody, kKeepGroup), 0);
    EXPECT_EQ(error_of(base_, "two"),
              base_ +
                  ": owned by uid 65534, neither root nor this daemon's uid 0; remove it "
                  "or set another `directory`");
}

TEST_F(DirectoryTest, DirectoriesThatOthersMayWriteAreRefused) {
    std::filesystem::create_directory(base_ + "/one");
    ASSERT_EQ(chmod((base_ + "/one").c_str(), 0770), 0);
    EXPECT_EQ(error_of(base_, "one"),
              base_ + "/one: writable by others; chmod it to 0750 after checking what is in it");
    ASSERT_EQ(chmod(base_.c_str(), 0777), 0);
    EXPECT_NE(error_of(base_, "two").find(": writable by others"), std::string::npos);
    ASSERT_EQ(chmod(base_.c_str(), 01777), 0);
    EXPECT_EQ(error_of(base_, "two"), "opened") << "sticky, as /dev/shm is";
}

TEST_F(DirectoryTest, ADirectoryThatMayNotBeWrittenIsAClearError) {
    ASSERT_EQ(geteuid(), 0u) << "this test becomes another user: run it as root";
    ASSERT_EQ(chmod(base_.c_str(), 0755), 0);
    const int status = in_child([&] {
        if (setgid(kNobody) != 0 || setuid(kNobody) != 0) {
            return 98;
        }
        return error_of(base_, "one") == base_ + "/one: cannot create the directory: Permission denied" ? 0
                                                                                                        : 1;
    });
    EXPECT_EQ(status, 0);
}

TEST_F(DirectoryTest, ListsGenerationsAndRemovesLeftovers) {
    auto opened = open_it();
    ASSERT_TRUE(opened) << opened.error().message;
    for (const char* name : {"table.12", "cells.12", "table.7", "cells.7", "table.4294967295", "cells.9",
                             "build.table", "build.cells", "build.control", "control", "table.", "table.x",
                             "table.0", "table.1x", "table.4294967296", "cells.7.aside"}) {
        touch(name);
    }
    for (int round = 0; round < 2; ++round) {
        auto listed = opened->generations();
        ASSERT_TRUE(listed) << listed.error().message;
        EXPECT_EQ(*listed, (std::vector<uint32_t>{7, 12, 4294967295u}));
    }
    for (const char* gone : {"cells.9", "build.table", "build.cells", "build.control"}) {
        EXPECT_FALSE(exists(gone)) << gone;
    }
    for (const char* kept : {"table.12", "cells.12", "table.7", "cells.7", "table.4294967295", "control",
                             "lock", "table.x", "table.0", "cells.7.aside"}) {
        EXPECT_TRUE(exists(kept)) << kept;
    }
}

TEST_F(DirectoryTest, NoticesWhenItsNamesAreNotItsFilesAnyMore) {
    auto opened = open_it();
    ASSERT_TRUE(opened) << opened.error().message;
    touch("control");
    const FileHandle control(open((base_ + "/one/control").c_str(), O_RDONLY | O_CLOEXEC));
    EXPECT_TRUE(opened->still_named(control.get()));
    // A new file under the name has another inode: the old one is still open.
    const auto replaced = [&](const std::string& name) {
        std::filesystem::rename(base_ + "/one/" + name, base_ + "/aside");
        const bool without = opened->still_named(control.get());
        touch(name);
        const bool with_another = opened->still_named(control.get());
        std::filesystem::rename(base_ + "/aside", base_ + "/one/" + name);
        return !without && !with_another && opened->still_named(control.get());
    };
    EXPECT_TRUE(replaced("control"));
    EXPECT_TRUE(replaced("lock")) << "or a second daemon could lock the new one";
    std::filesystem::rename(base_ + "/one", base_ + "/moved");
    EXPECT_FALSE(opened->still_named(control.get()));
    std::filesystem::create_directory(base_ + "/one");
    EXPECT_FALSE(opened->still_named(control.get()));
}

}  // namespace
