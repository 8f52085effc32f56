// Promise 5: whoever is killed when, the store gets every count once.

#include "core/flusher.h"

#include <gtest/gtest.h>

#include "publisher_fixture.h"
#include "shm/cells.h"
#include "usage/usage_reader.h"

namespace apikeyd {
namespace {

class FlusherTest : public PublisherFixture {
  protected:
    void SetUp() override {
        PublisherFixture::SetUp();
        publisher_->apply({{Change::Kind::kUpsert, row_}}, told());
        run_until([&] { return told_ == 1; });
    }

    const apikey::shm::CellsView& cells() const { return publisher_->current()->cells(); }
    void validate(int times) {
        for (int i = 0; i < times; ++i) {
            count_key(cells(), found(row_).index, 0, true);
        }
    }
    std::unique_ptr<Flusher> start_flusher() {
        auto store = UsageStore::open(directory_ / "usage.db");
        EXPECT_TRUE(store) << store.error().message;
        return std::make_unique<Flusher>(*publisher_, *worker_, std::move(*store), *log_);
    }
    void flush(Flusher& flusher) {
        bool flushed = false;
        flusher.flush([&](const Result<FlushSummary>& summary) {
            EXPECT_TRUE(summary) << summary.error().message;
            flushed = true;
        });
        run_until([&] { return flushed; });
    }
    uint64_t allowed() const {
        auto store = UsageReader::open(directory_ / "usage.db");
        EXPECT_TRUE(store) << store.error().message;
        const auto total = store->total(row_.id);
        EXPECT_TRUE(total);
        return *total ? (*total)->allowed : 0;
    }

    KeyRow row_ = numbered_row(1);
};
INSTANTIATE_TEST_SUITE_P(BothLoops, FlusherTest, both_loops(), loop_param_name);

TEST_P(FlusherTest, BringsWhatADaemonHadReadAndNotCommittedWhenItWasKilled) {
    auto flusher = start_flusher();
    validate(3);
    flush(*flusher);
    EXPECT_EQ(allowed(), 3u);
    validate(4);
    // What the killed daemon did: it took the marks, and its transaction never ended.
    uint64_t marked = 0;
    sweep_dirty(cells(), [&](uint64_t, uint64_t) { ++marked; });
    EXPECT_EQ(marked, 1u);
    flush(*flusher);
    EXPECT_EQ(allowed(), 3u) << "without a mark the cell is not looked at";
    flusher.reset();
    flusher = start_flusher();
    flush(*flusher);
    EXPECT_EQ(allowed(), 7u);
}

TEST_P(FlusherTest, AFlushAskedForByTheAnswerToAnotherIsOneAtATime) {
    auto flusher = start_flusher();
    int answers = 0;
    const Flusher::Done count = [&](const Result<FlushSummary>& summary) {
        EXPECT_TRUE(summary) << summary.error().message;
        ++answers;
    };
    for (int i = 0; i < 3; ++i) {
        flusher->flush([&](const Result<FlushSummary>& summary) {
            count(summary);
            validate(1);
            flusher->flush(count);
        });
    }
    run_until([&] { return answers == 6; });
    EXPECT_EQ(allowed(), 3u);
}

}  // namespace
}  // namespace apikeyd
