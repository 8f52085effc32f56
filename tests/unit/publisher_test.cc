// What asked for room is in the table when it is told so, whoever asked first.

#include "core/publisher.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <vector>

#include "core/table_rows.h"
#include "loop_fixture.h"

namespace apikeyd {
namespace {

constexpr gid_t kOwnGroup = static_cast<gid_t>(-1);

class PublisherTest : public LoopFixture {
  protected:
    void SetUp() override {
        LoopFixture::SetUp();
        auto log = Log::open({.path = directory_ / "log"});
        ASSERT_TRUE(log) << log.error().message;
        log_ = std::move(*log);
        auto worker = Worker::start(*loop_);
        ASSERT_TRUE(worker) << worker.error().message;
        worker_ = std::move(*worker);
        auto opened = apikey::shm::Directory::open_and_lock(directory_.path(), "default", kOwnGroup);
        ASSERT_TRUE(opened) << opened.error().message;
        auto publisher = Publisher::open(std::move(*opened), kOwnGroup, 0, *worker_, *log_);
        ASSERT_TRUE(publisher) << publisher.error().message;
        publisher_ = std::move(*publisher);
    }

    static Change add(uint64_t number) {
        Change change{Change::Kind::kUpsert, {}};
        const std::string digits = std::to_string(number);
        change.row.id = std::string(kKeyIdLength - digits.size(), '0') + digits;
        for (size_t i = 0; i < change.row.digest.size(); ++i) {
            change.row.digest[i] = static_cast<uint8_t>(number * 0x9e3779b97f4a7c15U >> (i % 8 * 8));
        }
        return change;
    }

    /// Counts what was told, and that it went well.
    Publisher::Done told() {
        return [this](const Result<void>& result) {
            EXPECT_TRUE(result) << result.error().message;
            ++told_;
        };
    }

    /// Makes changes until the live table has no room, and returns the first that it refused.
    Change fill(uint64_t& next) {
        Change change = add(next);
        while (publisher_->make(change)) {
            change = add(++next);
        }
        ++next;
        return change;
    }

    bool has(const Change& change) const { return is_in(publisher_->current()->table().view(), change.row); }

    TemporaryDirectory directory_;
    std::unique_ptr<Log> log_;
    std::unique_ptr<Worker> worker_;
    std::unique_ptr<Publisher> publisher_;
    int told_ = 0;
};
INSTANTIATE_TEST_SUITE_P(BothLoops, PublisherTest, both_loops(), loop_param_name);

TEST_P(PublisherTest, WhatFoundNoRoomBeforeABuildBeganIsMadeWithoutAReload) {
    publisher_->apply({add(0)}, told());
    run_until([&] { return told_ == 1; });
    uint64_t next = 1;
    const Change refused = fill(next);
    // Another's change starts the build; the refused one asks for room only then.
    const Change other = add(next++);
    publisher_->apply({other}, told());
    ASSERT_TRUE(publisher_->building());
    publisher_->make_room_for({refused}, told());
    run_until([&] { return told_ == 3; });
    EXPECT_TRUE(has(other));
    EXPECT_TRUE(has(refused));
    for (uint64_t number = 0; number < next; ++number) {
        EXPECT_TRUE(has(add(number))) << number;
    }
}

TEST_P(PublisherTest, ARevocationDuringABuildOutlivesIt) {
    publisher_->apply({add(0), add(1)}, told());
    run_until([&] { return told_ == 1; });
    uint64_t next = 2;
    const Change refused = fill(next);
    publisher_->make_room_for({refused}, told());
    ASSERT_TRUE(publisher_->building());
    Change revoked = add(0);
    revoked.row.state = KeyState::kRevoked;
    EXPECT_TRUE(publisher_->make(revoked));
    Change late = refused;  // asked for as active, revoked before there was room
    late.row.state = KeyState::kRevoked;
    publisher_->make(late);
    run_until([&] { return told_ == 2; });
    for (const Change& change : {revoked, late}) {
        const apikey::shm::TableView& table = publisher_->current()->table().view();
        const auto found = find_slot(table, row_hash(change.row, table.hash_seed), row_digest(change.row));
        ASSERT_NE(found.index, apikey::shm::kNoSlot);
        EXPECT_EQ(apikey::shm::Meta::state(found.meta), apikey::shm::SlotState::kRevoked);
    }
}

}  // namespace
}  // namespace apikeyd
