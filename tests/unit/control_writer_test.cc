// The control file: reused by the next daemon where it fits, else replaced before the old one says so.

#include "shm/control_writer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "shm/attach.h"
#include "shm/header_checks.h"
#include "tests/support/test_instance.h"

namespace {

using namespace apikey::shm;
using apikey::test::TestInstance;

class ControlWriterTest : public testing::Test {
  protected:
    void SetUp() override {
        ASSERT_EQ(attach_control(instance_.attach_options(), &client_), AttachResult::kOk);
    }
    void TearDown() override { detach_control(&client_); }

    ControlState client_sees() const { return static_cast<ControlState>(client_.control->state.load()); }
    struct stat status() {
        struct stat status {};
        EXPECT_EQ(stat(instance_.file("control").c_str(), &status), 0);
        return status;
    }
    /// Changes bytes of the file as another build would have written them.
    template <typename Value>
    void overwrite(size_t offset, const Value& value) {
        const int fd = open(instance_.file("control").c_str(), O_WRONLY | O_CLOEXEC);
        ASSERT_EQ(pwrite(fd, &value, sizeof value, static_cast<off_t>(offset)),
                  static_cast<ssize_t>(sizeof value));
        close(fd);
    }
    /// Opened anew, the file under the name is another one, whole, and the old one sends its readers there.
    void expect_replaced() {
        const ino_t before = status().st_ino;
        EXPECT_NE(client_sees(), ControlState::kSuperseded);
        instance_.reopen_control();
        EXPECT_NE(status().st_ino, before);
        EXPECT_EQ(status().st_mode, S_IFREG | 0640u);
        EXPECT_EQ(client_sees(), ControlState::kSuperseded);
        EXPECT_EQ(instance_.control().current(), 0u) << "nothing is published in the new one yet";
        EXPECT_FALSE(std::filesystem::exists(instance_.file("build.control")));
        ControlMapping again;
        EXPECT_EQ(attach_control(instance_.attach_options(), &again), AttachResult::kOk);
        EXPECT_EQ(again.control->state.load(), static_cast<uint32_t>(ControlState::kServing));
        detach_control(&again);
    }

    TestInstance instance_{{.capacity_keys = 10}};
    ControlMapping client_;
};

TEST_F(ControlWriterTest, IsReusedInPlace) {
    const ino_t inode = status().st_ino;
    const uint32_t generation = instance_.current().number();
    instance_.control().applied(77, 5);
    const uint64_t position = instance_.control().control().applied_position.load();
    instance_.control().set_state(ControlState::kStopped);
    instance_.reopen_control();
    EXPECT_EQ(status().st_ino, inode);
    EXPECT_EQ(instance_.control().current(), generation);
    EXPECT_EQ(client_sees(), ControlState::kServing) << "the client's mapping goes on";
    EXPECT_EQ(client_.control->applied_position.load(), position) << "never falls while the file lives";
    instance_.control().applied(78, 6);
    EXPECT_EQ(client_.control->applied_position.load(), position + 1);
    EXPECT_EQ(client_.control->source_fingerprint.load(), 78u);
}

TEST_F(ControlWriterTest, ModeAndGroupAreSetAgainOnReuse) {
    ASSERT_EQ(chmod(instance_.file("control").c_str(), 0600), 0);
    instance_.reopen_control();
    EXPECT_EQ(status().st_mode, S_IFREG | 0640u);
    ASSERT_EQ(geteuid(), 0u) << "the rest gives a file away: run it as root";
    auto opened = ControlWriter::open(instance_.directory().fd(), 54321);
    ASSERT_TRUE(opened) << opened.error().message;
    EXPECT_EQ(status().st_gid, 54321u);
}

TEST_F(ControlWriterTest, AnotherAbiIsReplacedAndSuperseded) {
    overwrite(offsetof(Control, abi), kAbi + 1);
    expect_replaced();
}

TEST_F(ControlWriterTest, AnotherLayoutIsReplacedAndSuperseded) {
    overwrite(offsetof(Control, layout_hash), layout_hash() ^ 1);
    expect_replaced();
}

TEST_F(ControlWriterTest, AnotherBootIsReplacedAndSuperseded) {
    overwrite(offsetof(Control, boot), uint64_t{0x1122334455667788});
    expect_replaced();
}

TEST_F(ControlWriterTest, ASupersededOneIsNotReused) {
    const ino_t before = status().st_ino;
    instance_.control().set_state(ControlState::kSuperseded);
    instance_.reopen_control();
    EXPECT_NE(status().st_ino, before);
    EXPECT_EQ(client_sees(), ControlState::kSuperseded);
}

TEST_F(ControlWriterTest, AShortOrStrangeFileIsReplaced) {
    for (const off_t bytes : {off_t{0}, off_t{20}, off_t{100}}) {
        const std::string name = instance_.file("control");
        ASSERT_EQ(unlink(name.c_str()), 0);
        std::ofstream(name) << "not a control file";
        ASSERT_EQ(truncate(name.c_str(), bytes), 0);
        instance_.reopen_control();
        EXPECT_EQ(status().st_size, static_cast<off_t>(sizeof(Control))) << bytes;
        EXPECT_EQ(check_control(&instance_.control().control(), sizeof(Control)), AttachResult::kOk);
    }
}

TEST_F(ControlWriterTest, ALinkUnderTheNameIsReplacedAndNotFollowed) {
    const std::string target = instance_.base() + "/target";
    std::ofstream(target) << "untouched";
    ASSERT_EQ(unlink(instance_.file("control").c_str()), 0);
    ASSERT_EQ(symlink(target.c_str(), instance_.file("control").c_str()), 0);
    instance_.reopen_control();
    EXPECT_TRUE(std::filesystem::is_regular_file(std::filesystem::symlink_status(instance_.file("control"))));
    std::string text;
    std::ifstream(target) >> text;
    EXPECT_EQ(text, "untouched");
}

TEST_F(ControlWriterTest, AnnouncedThenPublished) {
    const uint32_t old = instance_.current().number();
    instance_.control().announce(old + 5);
    EXPECT_EQ(client_.control->current_next.load(), make_current_next(old, old + 5));
    instance_.reopen_control();
    EXPECT_EQ(instance_.control().next(), old + 5) << "announced is for ever";
    instance_.control().publish();
    EXPECT_EQ(client_.control->current_next.load(), make_current_next(old + 5, old + 5));
}

TEST_F(ControlWriterTest, SaysWhatClientsAndToolsRead) {
    ControlWriter& writer = instance_.control();
    writer.set_started(4711, 1000);
    writer.beat(2000);
    writer.refused();
    writer.refused();
    writer.flushed(3000);
    EXPECT_EQ(client_.control->daemon_pid.load(), 4711u);
    EXPECT_EQ(client_.control->started_ns.load(), 1000u);
    EXPECT_EQ(client_.control->heartbeat_ns.load(), 2000u);
    EXPECT_EQ(client_.control->source_refused.load(), 2u);
    EXPECT_EQ(client_.control->usage_flushed_ns.load(), 3000u);
    writer.applied(9, 4000);
    EXPECT_EQ(client_.control->source_refused.load(), 0u) << "since the last accepted one";
    EXPECT_EQ(client_.control->source_loaded_ns.load(), 4000u);
}

TEST_F(ControlWriterTest, EveryControlFileHasItsOwnInstanceId) {
    uint8_t first[kUidLength];
    std::memcpy(first, client_.control->instance, sizeof first);
    instance_.control().set_state(ControlState::kSuperseded);
    instance_.reopen_control();
    EXPECT_NE(std::memcmp(first, instance_.control().control().instance, sizeof first), 0);
    const uint8_t zeros[kUidLength] = {};
    EXPECT_NE(std::memcmp(zeros, first, sizeof first), 0);
    EXPECT_NE(std::memcmp(zeros, instance_.control().control().boot, sizeof zeros), 0);
}

using ControlWriterDeathTest = ControlWriterTest;

TEST_F(ControlWriterDeathTest, NumbersNeverGoBack) {
    const uint32_t current = instance_.current().number();
    EXPECT_DEATH(instance_.control().announce(current), "current");
    EXPECT_DEATH(instance_.control().publish(), "next");
}

}  // namespace
