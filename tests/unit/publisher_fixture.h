// A publisher with its loop, log and worker, for the tests of what the daemon does with one.

#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <string>

#include "core/publisher.h"
#include "core/table_rows.h"
#include "loop_fixture.h"

namespace apikeyd {

inline constexpr gid_t kOwnGroup = static_cast<gid_t>(-1);

/// Row `number` of a made-up key set: the same id and digest each time.
inline KeyRow numbered_row(uint64_t number) {
    KeyRow row;
    const std::string digits = std::to_string(number);
    row.id = std::string(kKeyIdLength - digits.size(), '0') + digits;
    for (size_t i = 0; i < row.digest.size(); ++i) {
        row.digest[i] = static_cast<uint8_t>(number * 0x9e3779b97f4a7c15U >> (i % 8 * 8));
    }
    return row;
}

class PublisherFixture : public LoopFixture {
  protected:
    void SetUp() override {
        LoopFixture::SetUp();
        auto log = Log::open({.path = directory_ / "log"});
        ASSERT_TRUE(log) << log.error().message;
        log_ = std::move(*log);
        auto worker = Worker::start(*loop_);
        ASSERT_TRUE(worker) << worker.error().message;
        worker_ = std::move(*worker);
        open_publisher();
    }

    /// As a daemon that starts.
    Result<std::unique_ptr<Publisher>> try_to_open_publisher() {
        auto opened = apikey::shm::Directory::open_and_lock(directory_.path(), "default", kOwnGroup);
        return opened ? Publisher::open(std::move(*opened), kOwnGroup, 0, *worker_, *log_)
                      : tl::unexpected(opened.error());
    }
    void open_publisher() {
        auto publisher = try_to_open_publisher();
        ASSERT_TRUE(publisher) << publisher.error().message;
        publisher_ = std::move(*publisher);
    }

    /// Counts what was told, and that it went well.
    Publisher::Done told() {
        return [this](const Result<void>& result) {
            EXPECT_TRUE(result) << result.error().message;
            ++told_;
        };
    }

    /// The slot of a key in the current generation; kNoSlot when it has none.
    apikey::shm::Found found(const KeyRow& row) const {
        const apikey::shm::TableView& table = publisher_->current()->table().view();
        return find_slot(table, row_hash(row, table.hash_seed), row_digest(row));
    }

    TemporaryDirectory directory_;
    std::unique_ptr<Log> log_;
    std::unique_ptr<Worker> worker_;
    std::unique_ptr<Publisher> publisher_;
    int told_ = 0;
};

}  // namespace apikeyd
