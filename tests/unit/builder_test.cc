// A new generation holds every live key as the changes leave it, with room for what was asked.

#include "core/builder.h"

#include <gtest/gtest.h>

#include "publisher_fixture.h"

namespace apikeyd {
namespace {

class BuilderTest : public testing::Test {
  protected:
    BuilderTest() : opened_(apikey::shm::Directory::open_and_lock(directory_.path(), "default", kOwnGroup)) {}

    Result<std::unique_ptr<apikey::shm::Generation>> build(const apikey::shm::Generation* from,
                                                           const std::vector<Change>& changes,
                                                           uint64_t capacity_keys = 0) {
        const BuildOrder order{opened_->fd(), ++generation_, 0, kOwnGroup, capacity_keys};
        const ChangeSet set(changes);
        const ChangeSet* const sets[] = {&set};
        return build_generation(order, from != nullptr ? &from->table().view() : nullptr, sets);
    }

    TemporaryDirectory directory_;
    Result<apikey::shm::Directory> opened_;
    uint32_t generation_ = 0;
};

TEST_F(BuilderTest, AnEnvironmentThatIsRenamedGivesItsPlaceToTheNewOne) {
    std::vector<Change> changes;
    for (uint64_t i = 0; i < kEnvironmentsMax; ++i) {
        changes.push_back({Change::Kind::kUpsert, numbered_row(i)});
        changes.back().row.environment = "e" + std::to_string(i);
    }
    const auto first = build(nullptr, changes);
    ASSERT_TRUE(first) << first.error().message;
    changes[3].row.environment = "renamed";
    const auto second = build(first->get(), {changes[3]});
    ASSERT_TRUE(second) << second.error().message;
    for (const Change& change : changes) {
        const apikey::shm::TableView& table = (*second)->table().view();
        const auto found = find_slot(table, row_hash(change.row, table.hash_seed), row_digest(change.row));
        ASSERT_NE(found.index, apikey::shm::kNoSlot) << change.row.id;
        EXPECT_EQ(row_of_slot(table, found.index)->environment, change.row.environment);
    }
}

TEST_F(BuilderTest, CapacityIsRoomForSlotsAndForDetails) {
    Change change{Change::Kind::kUpsert, numbered_row(0)};
    change.row.name = "a name of some length";
    for (const auto& changes : {std::vector<Change>{change}, std::vector<Change>{}}) {
        const auto built = build(nullptr, changes, 10000);
        ASSERT_TRUE(built) << built.error().message;
        EXPECT_TRUE((*built)->table().has_room(
            9999, 9999 * apikey::shm::TableWriter::detail_bytes(row_detail(change.row))));
    }
}

TEST_F(BuilderTest, ARemovedKeyIsNotCarriedOver) {
    const Change first{Change::Kind::kUpsert, numbered_row(1)};
    const Change second{Change::Kind::kUpsert, numbered_row(2)};
    const auto before = build(nullptr, {first, second});
    ASSERT_TRUE(before) << before.error().message;
    const auto after = build(before->get(), {{Change::Kind::kRemove, first.row}});
    ASSERT_TRUE(after) << after.error().message;
    EXPECT_FALSE(is_in((*after)->table().view(), first.row));
    EXPECT_TRUE(is_in((*after)->table().view(), second.row));
}

}  // namespace
}  // namespace apikeyd
