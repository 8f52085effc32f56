// What was counted comes into the usage store exactly once, whatever a mark covers and whatever the store
// does.

#include "core/flusher.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "core/table_rows.h"
#include "loop_fixture.h"
#include "shm/cells.h"
#include "usage/usage_reader.h"
#include "usage_fixture.h"

namespace apikeyd {
namespace {

constexpr gid_t kOwnGroup = static_cast<gid_t>(-1);
constexpr uint64_t kKeys = 600;  // of 1024 slots: marks of 16 cells cover several keys each

class FlusherTest : public LoopFixture {
  protected:
    void SetUp() override {
        LoopFixture::SetUp();
        log_ = std::move(*Log::open({.path = directory_ / "log"}));
        builder_ = std::move(*Worker::start(*loop_));
        flush_worker_ = std::move(*Worker::start(*loop_));
        auto opened = apikey::shm::Directory::open_and_lock(directory_.path(), "default", kOwnGroup);
        ASSERT_TRUE(opened) << opened.error().message;
        auto publisher = Publisher::open(std::move(*opened), kOwnGroup, 0, *builder_, *log_);
        ASSERT_TRUE(publisher) << publisher.error().message;
        publisher_ = std::move(*publisher);
        auto store = UsageStore::open(store_path());
        ASSERT_TRUE(store) << store.error().message;
        flusher_ = std::make_unique<Flusher>(*publisher_, *flush_worker_, std::move(*store), *log_);
        std::vector<Change> changes;
        for (uint64_t number = 0; number < kKeys; ++number) {
            changes.push_back({Change::Kind::kUpsert, row(number)});
        }
        bool told = false;
        publisher_->apply(changes, [&](const Result<void>& result) { told = result.has_value(); });
        run_until([&] { return told; });
    }

    std::string store_path() const { return directory_ / "usage.db"; }

    static KeyRow row(uint64_t number) {
        KeyRow row;
        const std::string digits = std::to_string(number);
        row.id = std::string(kKeyIdLength - digits.size(), '0') + digits;
        for (size_t i = 0; i < row.digest.size(); ++i) {
            row.digest[i] = static_cast<uint8_t>(number * 0x9e3779b97f4a7c15U >> (i % 8 * 8));
        }
        return row;
    }

    void count(uint64_t number) {
        const apikey::shm::Generation& generation = *publisher_->current();
        const auto& table = generation.table().view();
        const auto found = find_slot(table, row_hash(row(number), table.hash_seed), row_digest(row(number)));
        count_key(generation.cells(), found.index, 0, true);
        ++counted_[row(number).id];
    }

    Result<FlushSummary> flush() {
        Result<FlushSummary> summary = fail("nothing was told");
        bool told = false;
        flusher_->flush([&](const Result<FlushSummary>& result) {
            summary = result;
            told = true;
        });
        run_until([&] { return told; });
        return summary;
    }

    /// The store says of each key what was counted, and nothing else.
    void expect_all_there() {
        auto reader = UsageReader::open(store_path());
        ASSERT_TRUE(reader) << reader.error().message;
        std::map<std::string, uint64_t> totals;
        const auto read = reader->for_each_total(
            [&](const KeyTotal& total) { totals[std::string(total.key_id)] = total.allowed; });
        ASSERT_TRUE(read) << read.error().message;
        EXPECT_EQ(totals, counted_);
    }

    TemporaryDirectory directory_;
    std::unique_ptr<Log> log_;
    std::unique_ptr<Worker> builder_;
    std::unique_ptr<Worker> flush_worker_;
    std::unique_ptr<Publisher> publisher_;
    std::unique_ptr<Flusher> flusher_;
    std::map<std::string, uint64_t> counted_;
};
INSTANTIATE_TEST_SUITE_P(BothLoops, FlusherTest, both_loops(), loop_param_name);

TEST_P(FlusherTest, KeysUnderOneMarkAreCountedOnceEach) {
    std::mt19937 random(7);
    uint64_t added = 0;
    uint64_t made = 0;
    for (int round = 0; round < 20; ++round) {
        for (int i = 0; i < 100; ++i, ++made) {
            count(random() % kKeys);
        }
        const auto flushed = flush();
        ASSERT_TRUE(flushed) << flushed.error().message;
        added += flushed->allowed_added;
    }
    EXPECT_EQ(added, made);
    expect_all_there();
}

TEST_P(FlusherTest, WhatAFailedFlushBroughtComesAgain) {
    count(1);
    ASSERT_TRUE(flush());
    for (uint64_t number = 0; number < kKeys; ++number) {
        count(number);
    }
    {
        const test::FailingWrites full(ENOSPC);
        EXPECT_FALSE(flush());
    }
    ASSERT_TRUE(flush());
    expect_all_there();
}

TEST_P(FlusherTest, AStoreMadeAnewGetsEverythingThatWasEverCounted) {
    for (uint64_t number = 0; number < kKeys; ++number) {
        count(number);
    }
    ASSERT_TRUE(flush());
    for (const char* suffix : {"", "-wal", "-shm"}) {
        std::filesystem::remove(store_path() + suffix);
    }
    count(1);
    ASSERT_TRUE(flush());  // finds that the store is another
    ASSERT_TRUE(flush());  // brings what that one has not
    expect_all_there();
}

}  // namespace
}  // namespace apikeyd
