// Both files of a generation: built aside, named complete, and deleted only when nobody maps them.

#include "shm/generation.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "shm/attach.h"
#include "tests/support/child.h"
#include "tests/support/no_descriptors.h"
#include "tests/support/test_instance.h"

namespace {

using namespace apikey::shm;
using apikey::test::Child;
using apikey::test::make_key;
using apikey::test::NoDescriptors;
using apikey::test::TestInstance;
using apikey::test::TestKey;

/// A client's mapping of the current generation.
class Mapped {
  public:
    explicit Mapped(TestInstance& instance) {
        const AttachOptions options = instance.attach_options();
        result = attach_control(options, &control_);
        if (result == AttachResult::kOk) {
            result = attach_generation(options, control_, instance.control().current(), &generation_);
        }
    }
    ~Mapped() { detach(); }
    void detach() {
        detach_generation(&generation_);
        detach_control(&control_);
    }
    AttachResult result;

  private:
    ControlMapping control_;
    GenerationMapping generation_;
};

GenerationPlan plan_for(uint32_t generation) {
    GenerationPlan plan{};
    plan.generation = generation;
    plan.predecessor = generation - 1;
    plan.geometry = TableGeometry::for_keys(10, 1000, {});
    plan.cpus = 4;
    plan.shards_budget_bytes = 1 << 20;
    plan.clients_group = static_cast<gid_t>(-1);
    return plan;
}

class GenerationTest : public testing::Test {
  protected:
    bool exists(const std::string& name) { return std::filesystem::exists(instance_.file(name)); }
    mode_t mode_of(const std::string& name) {
        struct stat status {};
        EXPECT_EQ(stat(instance_.file(name).c_str(), &status), 0) << name;
        return status.st_mode & 07777;
    }
    std::string table_name() { return "table." + std::to_string(instance_.current().number()); }
    std::string cells_name() { return "cells." + std::to_string(instance_.current().number()); }

    TestInstance instance_{{.capacity_keys = 10}};
};

TEST_F(GenerationTest, IsBuiltAsideAndNamedComplete) {
    const mode_t before = umask(0);
    auto made = Generation::create(instance_.directory().fd(), plan_for(50));
    umask(before);
    ASSERT_TRUE(made) << made.error().message;
    EXPECT_EQ(mode_of("build.table"), 0640u);
    EXPECT_EQ(mode_of("build.cells"), 0660u);
    EXPECT_FALSE(exists("table.50"));
    ASSERT_TRUE((*made)->name_files());
    EXPECT_FALSE(exists("build.table"));
    EXPECT_FALSE(exists("build.cells"));
    EXPECT_EQ((*made)->number(), 50u);
    EXPECT_EQ((*made)->table().header().predecessor, 49u);
    EXPECT_EQ((*made)->file_bytes(), std::filesystem::file_size(instance_.file("table.50")) +
                                         std::filesystem::file_size(instance_.file("cells.50")));
    auto other = Generation::create(instance_.directory().fd(), plan_for(51));
    ASSERT_TRUE(other) << other.error().message;
    EXPECT_NE(std::memcmp((*other)->uid(), (*made)->uid(), kUidLength), 0);
    EXPECT_NE((*other)->table().view().hash_seed, (*made)->table().view().hash_seed);
}

TEST_F(GenerationTest, LeftoversOfAKilledBuildDoNotStopTheNext) {
    ASSERT_TRUE(Generation::create(instance_.directory().fd(), plan_for(50)));
    auto again = Generation::create(instance_.directory().fd(), plan_for(51));
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_TRUE((*again)->name_files());
}

TEST_F(GenerationTest, NeverNamesOverAnotherFile) {
    auto made = Generation::create(instance_.directory().fd(), plan_for(instance_.current().number()));
    ASSERT_TRUE(made) << made.error().message;
    const auto named = (*made)->name_files();
    ASSERT_FALSE(named);
    EXPECT_EQ(named.error().message, cells_name() + ": cannot name it: File exists");
    EXPECT_TRUE(exists(cells_name())) << "it is another's";
}

TEST_F(GenerationTest, WhatCannotBeNamedLeavesNothingInTheNextOnesWay) {
    std::ofstream(instance_.file("table.50")) << "another's";
    auto made = Generation::create(instance_.directory().fd(), plan_for(50));
    ASSERT_TRUE(made) << made.error().message;
    const auto named = (*made)->name_files();
    ASSERT_FALSE(named);
    EXPECT_EQ(named.error().message, "table.50: cannot name it: File exists");
    for (const char* name : {"cells.50", "build.table", "build.cells"}) {
        EXPECT_FALSE(exists(name)) << name;
    }
    std::filesystem::remove(instance_.file("table.50"));
    auto again = Generation::create(instance_.directory().fd(), plan_for(50));
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_TRUE((*again)->name_files());
}

TEST_F(GenerationTest, CellsAreShardedWithinTheirBudget) {
    const auto shards = [&](uint64_t budget_bytes, uint32_t cpus) {
        GenerationPlan plan = plan_for(50);
        plan.shards_budget_bytes = budget_bytes;
        plan.cpus = cpus;
        auto made = Generation::create(instance_.directory().fd(), plan);
        EXPECT_TRUE(made);
        EXPECT_EQ((*made)->cells().totals_shards, std::max(cpus, 1u));
        return (*made)->cells().shards;
    };
    const uint64_t one = 1024 * sizeof(Cell);  // the smallest table has 1024 slots
    EXPECT_EQ(shards(0, 4), 1u) << "never none";
    EXPECT_EQ(shards(2 * one, 4), 2u);
    EXPECT_EQ(shards(100 * one, 4), 4u) << "never more than CPUs";
    EXPECT_EQ(shards(100 * one, 0), 1u);
}

TEST_F(GenerationTest, IsOpenedWithAllItsKeysByTheNextDaemon) {
    const TestKey key = make_key();
    ASSERT_TRUE(instance_.add(key, {.owner = "acme"}));
    const uint32_t number = instance_.current().number();
    auto opened = Generation::open(instance_.directory().fd(), number);
    ASSERT_TRUE(opened) << opened.error().message;
    EXPECT_EQ((*opened)->number(), number);
    EXPECT_TRUE((*opened)->table().scan());
    EXPECT_NE(TestInstance::slot_index(**opened, key), kNoSlot);
    EXPECT_EQ(std::memcmp((*opened)->uid(), instance_.current().uid(), kUidLength), 0);
}

TEST_F(GenerationTest, ATableThatDoesNotFitIsNotOpenedAndCellsThatDoNotAreLeftOut) {
    const uint32_t number = instance_.current().number();
    const auto error = [&](uint32_t generation) {
        auto opened = Generation::open(instance_.directory().fd(), generation);
        if (!opened) {
            return opened.error().message;
        }
        return std::string((*opened)->cells().base == nullptr ? "opened without cells" : "opened");
    };
    EXPECT_EQ(error(number), "opened");
    EXPECT_EQ(error(number + 1),
              "table." + std::to_string(number + 1) + ": cannot open: No such file or directory");
    const uint32_t other = instance_.publish_new_generation();
    // Cells of another generation under the right name.
    std::filesystem::rename(instance_.file("cells." + std::to_string(number)),
                            instance_.file("cells." + std::to_string(other)));
    // Clients can write cells; a table is opened whatever became of them, for the sake of revocations.
    EXPECT_EQ(error(other), "opened without cells");
    EXPECT_EQ(error(number), "opened without cells");
    ASSERT_EQ(truncate(instance_.file("table." + std::to_string(other)).c_str(), 8192), 0);
    EXPECT_EQ(error(other), "table." + std::to_string(other) + ": " + attach_text(AttachResult::kTruncated));
}

// What clients scribble on is given up; what only cannot be opened now is not, or its counts were lost.
TEST_F(GenerationTest, CellsWaitWhereThereIsNoDescriptorForThem) {
    const auto open_again = [&] {
        auto opened = Generation::open(instance_.directory().fd(), instance_.current().number());
        EXPECT_TRUE(opened) << opened.error().message;
        return std::move(*opened);
    };
    std::unique_ptr<Generation> without;
    {
        const NoDescriptors beyond_the_table(1);
        without = open_again();
    }
    EXPECT_EQ(without->cells().base, nullptr);
    EXPECT_TRUE(without->cells_wait());
    EXPECT_FALSE(open_again()->cells_wait());
    std::filesystem::remove(instance_.file(cells_name()));
    const auto alone = open_again();
    EXPECT_EQ(alone->cells().base, nullptr);
    EXPECT_FALSE(alone->cells_wait()) << "they will never come";
}

TEST_F(GenerationTest, FollowsAChangeOfTheClientsGroup) {
    ASSERT_EQ(geteuid(), 0u) << "this test gives files away: run it as root";
    constexpr gid_t kOther = 65534;
    EXPECT_TRUE(instance_.current().give_to_group(kOther));
    for (const char* kind : {"table.", "cells."}) {
        struct stat status {};
        const std::string name = kind + std::to_string(instance_.current().number());
        ASSERT_EQ(stat(instance_.file(name).c_str(), &status), 0) << name;
        EXPECT_EQ(status.st_gid, kOther) << name;
    }
}

TEST_F(GenerationTest, IsInUseWhileAClientMapsIt) {
    Mapped first(instance_);
    Mapped second(instance_);
    ASSERT_EQ(first.result, AttachResult::kOk);
    ASSERT_EQ(second.result, AttachResult::kOk);
    EXPECT_FALSE(instance_.current().lock_unused());
    first.detach();
    EXPECT_FALSE(instance_.current().lock_unused());
    second.detach();
    EXPECT_TRUE(instance_.current().lock_unused());
    EXPECT_EQ(Mapped(instance_).result, AttachResult::kSuperseded) << "nobody comes in after the lock";
}

TEST_F(GenerationTest, AnotherOpenFileOfTheDaemonDoesNotCountAsUse) {
    auto opened = Generation::open(instance_.directory().fd(), instance_.current().number());
    ASSERT_TRUE(opened);
    EXPECT_TRUE((*opened)->lock_unused());
    EXPECT_FALSE(instance_.current().lock_unused()) << "two cannot harvest";
    opened->reset();
    EXPECT_TRUE(instance_.current().lock_unused()) << "the lock ends with its holder";
}

/// A child that maps and tells when it has.
template <typename Then>
std::unique_ptr<Child> mapping_child(TestInstance& instance, Then then) {
    int ready[2];
    EXPECT_EQ(pipe2(ready, O_CLOEXEC), 0);
    auto child = std::make_unique<Child>([&] {
        Mapped mapped(instance);
        const char ok = mapped.result == AttachResult::kOk ? 'y' : 'n';
        return write(ready[1], &ok, 1) == 1 ? then() : 97;
    });
    char answer = 0;
    EXPECT_EQ(read(ready[0], &answer, 1), 1);
    EXPECT_EQ(answer, 'y');
    close(ready[0]);
    close(ready[1]);
    return child;
}

TEST_F(GenerationTest, AKilledClientLetsGo) {
    auto client = mapping_child(instance_, [] {
        pause();
        return 1;
    });
    EXPECT_FALSE(instance_.current().lock_unused());
    ASSERT_EQ(kill(client->pid(), SIGKILL), 0);
    EXPECT_EQ(client->wait(), 128 + SIGKILL);
    EXPECT_TRUE(instance_.current().lock_unused());
}

TEST_F(GenerationTest, AForkedChildHoldsItAfterItsParentsEnd) {
    int grandchild_pipe[2];
    ASSERT_EQ(pipe2(grandchild_pipe, O_CLOEXEC), 0);
    auto client = mapping_child(instance_, [&] {
        const pid_t grandchild = fork();
        if (grandchild == 0) {
            char byte = 0;
            close(grandchild_pipe[1]);
            const ssize_t ignored = read(grandchild_pipe[0], &byte, 1);  // until the test lets go
            _exit(ignored == 0 ? 0 : 1);
        }
        return grandchild > 0 ? 0 : 96;
    });
    ASSERT_EQ(client->wait(), 0) << "the one that attached is gone";
    EXPECT_FALSE(instance_.current().lock_unused()) << "its child maps the table still";
    close(grandchild_pipe[1]);
    // The grandchild is not ours to wait for: its end shows in the lock, within the time limit of the test.
    while (!instance_.current().lock_unused()) {
        usleep(1000);
    }
    close(grandchild_pipe[0]);
}

TEST_F(GenerationTest, UnlinkRemovesBothNames) {
    const std::string table = table_name();
    const std::string cells = cells_name();
    instance_.publish_new_generation();
    EXPECT_EQ(instance_.drop_unused(), 1u);
    EXPECT_FALSE(exists(table));
    EXPECT_FALSE(exists(cells));
    EXPECT_TRUE(exists(table_name()));
    EXPECT_TRUE(exists(cells_name()));
}

}  // namespace
