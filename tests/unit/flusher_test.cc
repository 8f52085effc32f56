// What was counted comes into the usage store exactly once, whatever a mark covers and whatever the store
// does.

#include "core/flusher.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "publisher_fixture.h"
#include "shm/attach.h"
#include "shm/cells.h"
#include "support/no_descriptors.h"
#include "usage/usage_reader.h"
#include "usage_fixture.h"

namespace apikeyd {
namespace {

constexpr uint64_t kKeys = 600;  // of 1024 slots: marks of 16 cells cover several keys each

class FlusherTest : public PublisherFixture {
  protected:
    void SetUp() override {
        PublisherFixture::SetUp();
        auto started = Worker::start(*loop_);
        ASSERT_TRUE(started) << started.error().message;
        flush_worker_ = std::move(*started);
        start_flusher();
        add_keys(0, kKeys);
    }

    void add_keys(uint64_t from, uint64_t to) {
        std::vector<Change> changes;
        for (uint64_t number = from; number < to; ++number) {
            changes.push_back({Change::Kind::kUpsert, numbered_row(number)});
        }
        told_ = 0;
        publisher_->apply(changes, told());
        run_until([&] { return told_ == 1; });
    }

    /// As the next daemon would.
    void start_flusher() {
        flusher_.reset();
        auto store = UsageStore::open(store_path());
        ASSERT_TRUE(store) << store.error().message;
        flusher_ = std::make_unique<Flusher>(*publisher_, *flush_worker_, std::move(*store), *log_);
    }

    std::string store_path() const { return directory_ / "usage.db"; }

    const apikey::shm::CellsView& cells() const { return publisher_->current()->cells(); }

    /// Keys whose cells lie where the rolling sweep does not come in a test's few flushes: the hash's seed
    /// is another each time, and so are their slots.
    std::vector<uint64_t> keys_out_of_the_rolling_sweep(size_t how_many) const {
        std::vector<uint64_t> keys;
        for (uint64_t number = 0; keys.size() < how_many; ++number) {
            if (found(numbered_row(number)).index >= cells().cell_count / 2) {
                keys.push_back(number);
            }
        }
        return keys;
    }

    void count(uint64_t number) {
        const KeyRow row = numbered_row(number);
        count_key(cells(), found(row).index, 0, true);
        ++counted_[row.id];
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

    std::unique_ptr<Worker> flush_worker_;
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
    ASSERT_TRUE(flush());  // finds that the store is another, and brings what that one has not
    expect_all_there();
}

// A daemon that was killed between taking the marks and the end of its transaction.
TEST_P(FlusherTest, TheNextDaemonBringsWhatWasReadAndNotCommitted) {
    const std::vector<uint64_t> keys = keys_out_of_the_rolling_sweep(2);
    count(keys[0]);
    ASSERT_TRUE(flush());
    count(keys[0]);
    count(keys[1]);
    uint64_t marked = 0;
    sweep_dirty(cells(), [&](uint64_t, uint64_t) { ++marked; });
    ASSERT_GE(marked, 1u);
    const auto without_marks = flush();
    ASSERT_TRUE(without_marks);
    EXPECT_EQ(without_marks->allowed_added, 0u) << "nothing leads there, or this proves nothing";
    start_flusher();
    ASSERT_TRUE(flush());
    expect_all_there();
}

// The same, and the next daemon has no descriptor for the cells when it starts.
TEST_P(FlusherTest, CellsThatAreOpenedLateAreBroughtWhole) {
    count(keys_out_of_the_rolling_sweep(1)[0]);
    sweep_dirty(cells(), [](uint64_t, uint64_t) {});
    const std::string path = publisher_->directory().path();
    const apikey::shm::AttachOptions options{path.c_str(), apikey::shm::kAnyOwner};
    apikey::shm::ControlMapping control;
    apikey::shm::GenerationMapping mapping;  // keeps the generation from its harvest
    ASSERT_EQ(attach_control(options, &control), apikey::shm::AttachResult::kOk);
    ASSERT_EQ(attach_generation(options, control, publisher_->current()->number(), &mapping),
              apikey::shm::AttachResult::kOk);
    add_keys(kKeys, 3 * kKeys);  // in another generation
    flusher_.reset();
    publisher_.reset();
    {
        const apikey::test::NoDescriptors beyond_directory_lock_control_and_table(4);
        open_publisher();
    }
    add_keys(0, kKeys);
    ASSERT_EQ(publisher_->superseded().size(), 1u);
    ASSERT_TRUE(publisher_->superseded()[0]->cells_wait()) << "or this proves nothing";
    start_flusher();
    flusher_->retire_unused();
    ASSERT_TRUE(flush());
    expect_all_there();
    detach_generation(&mapping);
    detach_control(&control);
}

TEST_P(FlusherTest, FlushesThatAnAnswerAsksForCountNothingTwice) {
    int answers = 0;
    const Flusher::Done note = [&](const Result<FlushSummary>& summary) {
        EXPECT_TRUE(summary) << summary.error().message;
        ++answers;
    };
    for (int i = 0; i < 3; ++i) {
        flusher_->flush([&](const Result<FlushSummary>& summary) {
            note(summary);
            count(1);
            flusher_->flush(note);
        });
    }
    run_until([&] { return answers == 6; });
    expect_all_there();
}

}  // namespace
}  // namespace apikeyd
