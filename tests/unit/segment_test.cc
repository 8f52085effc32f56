// Files of shared memory: reserved whole before they are mapped, exact modes, nothing left behind.

#include "shm/segment.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "shm/layout.h"
#include "tests/support/child.h"

namespace {

using namespace apikey::shm;
using apikey::test::in_child;

constexpr gid_t kKeepGroup = static_cast<gid_t>(-1);

class SegmentTest : public testing::Test {
  protected:
    void SetUp() override {
        ASSERT_NE(mkdtemp(path_.data()), nullptr);
        directory_ = FileHandle(open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        ASSERT_TRUE(directory_);
    }
    void TearDown() override { std::filesystem::remove_all(path_); }

    struct stat status_of(const std::string& name) {
        struct stat status {};
        EXPECT_EQ(fstatat(directory_.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW), 0) << name;
        return status;
    }
    bool exists(const std::string& name) { return faccessat(directory_.get(), name.c_str(), F_OK, 0) == 0; }

    std::string path_ = "/dev/shm/apikey-segment-XXXXXX";
    FileHandle directory_;
};

TEST_F(SegmentTest, IsReservedZeroedAndSeenByTheNextMapping) {
    auto made = Segment::create(directory_.get(), "seg", 100000, 0640, kKeepGroup);
    ASSERT_TRUE(made) << made.error().message;
    EXPECT_EQ(made->bytes(), 100000u);
    for (uint64_t i = 0; i < made->bytes(); ++i) {
        ASSERT_EQ(made->data()[i], 0);
    }
    EXPECT_EQ(status_of("seg").st_size, 100000);
    EXPECT_GE(status_of("seg").st_blocks * 512, 100000) << "reserved, not sparse";
    made->data()[99999] = 42;
    auto opened = Segment::open(directory_.get(), "seg");
    ASSERT_TRUE(opened) << opened.error().message;
    EXPECT_EQ(opened->bytes(), 100000u);
    EXPECT_EQ(opened->data()[99999], 42);
}

TEST_F(SegmentTest, HugePagesChangeNoByteAndNoReservation) {
    constexpr uint64_t kBytes = (5 << 20) + 4096;
    auto made = Segment::create(directory_.get(), "seg", kBytes, 0640, kKeepGroup);
    ASSERT_TRUE(made) << made.error().message;
    for (uint64_t at = 0; at < kBytes; at += 512) {
        made->data()[at] = static_cast<uint8_t>(at >> 9);
    }
    const uint64_t backed = made->use_huge_pages();
    EXPECT_EQ(backed % kHugePageBytes, 0u);
    EXPECT_LE(backed, kBytes) << "what the kernel grants is its own affair, 0 too";
    EXPECT_EQ(made->use_huge_pages(), backed) << "asking again changes nothing";
    for (uint64_t at = 0; at < kBytes; at += 512) {
        ASSERT_EQ(made->data()[at], static_cast<uint8_t>(at >> 9)) << at;
    }
    EXPECT_EQ(status_of("seg").st_size, static_cast<off_t>(kBytes));
    auto small = Segment::create(directory_.get(), "small", 4096, 0640, kKeepGroup);
    ASSERT_TRUE(small);
    EXPECT_EQ(small->use_huge_pages(), 0u);
}

TEST_F(SegmentTest, ModesAreExactWhateverTheUmask) {
    for (const mode_t mask : {0, 0777}) {
        const mode_t before = umask(mask);
        for (const mode_t mode : {0640, 0660, 0600}) {
            const std::string name = "seg-" + std::to_string(mask) + "-" + std::to_string(mode);
            EXPECT_TRUE(Segment::create(directory_.get(), name, 4096, mode, kKeepGroup));
            EXPECT_EQ(status_of(name).st_mode, S_IFREG | mode) << "umask " << mask;
        }
        umask(before);
    }
}

TEST_F(SegmentTest, GoesToTheGroupAskedFor) {
    ASSERT_EQ(geteuid(), 0u) << "this test gives files away: run it as root";
    ASSERT_TRUE(Segment::create(directory_.get(), "seg", 4096, 0660, 54321));
    EXPECT_EQ(status_of("seg").st_gid, 54321u);
}

TEST_F(SegmentTest, AGroupItMayNotGiveToLeavesNothing) {
    ASSERT_EQ(geteuid(), 0u) << "this test becomes another user: run it as root";
    ASSERT_EQ(chown(path_.c_str(), 65534, 65534), 0);
    const int status = in_child([&] {
        if (setgid(65534) != 0 || setuid(65534) != 0) {
            return 98;
        }
        auto made = Segment::create(directory_.get(), "seg", 4096, 0660, 54321);
        return !made && made.error().message.find("group 54321") != std::string::npos ? 0 : 1;
    });
    EXPECT_EQ(status, 0);
    EXPECT_FALSE(exists("seg"));
}

TEST_F(SegmentTest, NeverTakesOverAName) {
    ASSERT_TRUE(Segment::create(directory_.get(), "seg", 4096, 0640, kKeepGroup));
    auto again = Segment::create(directory_.get(), "seg", 4096, 0640, kKeepGroup);
    ASSERT_FALSE(again);
    EXPECT_EQ(again.error().message, "seg: cannot create: File exists");
    EXPECT_TRUE(exists("seg")) << "and does not remove what was there";
    ASSERT_EQ(symlinkat("/dev/shm/elsewhere-apikey-test", directory_.get(), "link"), 0);
    EXPECT_FALSE(Segment::create(directory_.get(), "link", 4096, 0640, kKeepGroup));
    EXPECT_NE(access("/dev/shm/elsewhere-apikey-test", F_OK), 0);
}

TEST_F(SegmentTest, OpensOnlyRegularFilesOfItsOwn) {
    const auto error = [&](const char* name) {
        auto opened = Segment::open(directory_.get(), name);
        return opened ? std::string("opened") : opened.error().message;
    };
    EXPECT_EQ(error("missing"), "missing: cannot open: No such file or directory");
    ASSERT_TRUE(Segment::create(directory_.get(), "seg", 4096, 0640, kKeepGroup));
    ASSERT_EQ(symlinkat("seg", directory_.get(), "link"), 0);
    EXPECT_EQ(error("link"), "link: cannot open: Too many levels of symbolic links");
    ASSERT_EQ(mkfifoat(directory_.get(), "pipe", 0600), 0);
    EXPECT_EQ(error("pipe"), "pipe: not a regular file of this user: not trusted");
    const int empty = openat(directory_.get(), "empty", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    ASSERT_GE(empty, 0);
    close(empty);
    EXPECT_EQ(error("empty"), "empty: empty");
    ASSERT_EQ(geteuid(), 0u) << "the rest gives a file away: run it as root";
    ASSERT_EQ(fchownat(directory_.get(), "seg", 65534, kKeepGroup, 0), 0);
    EXPECT_EQ(error("seg"), "seg: not a regular file of this user: not trusted");
}

/// Runs in a forked child with a tmpfs of its own over the directory; `size` as mount takes it.
template <typename Function>
int on_tmpfs(const std::string& path, const char* size, Function function) {
    return in_child([&] {
        if (unshare(CLONE_NEWNS) != 0 || mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
            mount("tmpfs", path.c_str(), "tmpfs", 0, size) != 0) {
            return 98;
        }
        const FileHandle directory(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        return function(directory.get());
    });
}

TEST_F(SegmentTest, AFullTmpfsIsAnErrorThatNamesTheMissingBytes) {
    const int status = on_tmpfs(path_, "size=1m", [](int directory) {
        auto made = Segment::create(directory, "seg", 3 << 20, 0640, kKeepGroup);
        const std::string expected =
            "seg: not enough memory in the instance's directory for 3145728 bytes, 1048576 are free, 2097152 "
            "are "
            "missing (mount a larger tmpfs, or set another `directory`)";
        if (made || made.error().message != expected) {
            fprintf(stderr, "%s\n", made ? "made" : made.error().message.c_str());
            return 1;
        }
        if (faccessat(directory, "seg", F_OK, 0) == 0) {
            return 2;  // left behind
        }
        return Segment::create(directory, "seg", 1 << 20, 0640, kKeepGroup) ? 0 : 3;  // all of it may be used
    });
    EXPECT_EQ(status, 0);
}

TEST_F(SegmentTest, ATmpfsWithoutALimitIsNotAFullOne) {
    const int status = on_tmpfs(path_, "size=0", [](int directory) {
        auto made = Segment::create(directory, "seg", 1 << 20, 0640, kKeepGroup);
        if (!made) {
            fprintf(stderr, "%s\n", made.error().message.c_str());
        }
        return made ? 0 : 1;
    });
    EXPECT_EQ(status, 0);
}

TEST_F(SegmentTest, ATimersSignalsDoNotKeepALargeFileFromBeingReserved) {
    // The kernel undoes an interrupted fallocate() whole; without steps this would never end.
    const int status = in_child([&] {
        struct sigaction action {};
        action.sa_handler = [](int) {};
        sigaction(SIGALRM, &action, nullptr);  // no SA_RESTART
        const itimerval often{{0, 5000}, {0, 5000}};
        setitimer(ITIMER_REAL, &often, nullptr);
        auto made = Segment::create(directory_.get(), "seg", uint64_t{192} << 20, 0640, kKeepGroup);
        const itimerval never{};
        setitimer(ITIMER_REAL, &never, nullptr);
        return made && made->bytes() == uint64_t{192} << 20 ? 0 : 1;
    });
    EXPECT_EQ(status, 0);
    EXPECT_EQ(status_of("seg").st_size, 192 << 20);
}

TEST(SystemErrorText, NamesPlaceOperationAndReason) {
    EXPECT_EQ(system_error_text("cannot open", "here", EACCES), "here: cannot open: Permission denied");
}

}  // namespace
