#include "source/snapshot_fill.h"

#include <unistd.h>

#include <cerrno>
#include <new>
#include <system_error>
#include <utility>

#include "base/errno_text.h"
#include "source/snapshot_schema.h"

namespace apikeyd {

using namespace snapshot_rows;

Result<std::unique_ptr<SnapshotFill>> SnapshotFill::begin(const std::string& path) {
    auto place = resolve_file(path);
    if (!place) {
        return tl::unexpected(place.error());
    }
    auto fill = std::make_unique<SnapshotFill>();
    fill->place_ = *std::move(place);
    remove_stale(fill->place_);
    if (Result<void> made = fill->file_.create(fill->place_); !made) {
        return tl::unexpected(made.error());
    }
    auto database = Database::open_for_copy(kSnapshot, fill->file_.path());
    if (!database) {
        return tl::unexpected(database.error());
    }
    fill->connection_ = std::make_unique<SqliteConnection>(*std::move(database));
    Result<void> done = run_writing(*fill->connection_, "PRAGMA cache_size = -65536; BEGIN");
    for (const char* sql : {kSnapshotVersion1Sql, kSnapshotDropIndexesSql}) {
        done = done ? run_writing(*fill->connection_, sql) : done;
    }
    if (done) {
        auto put = prepare_put_key(*fill->connection_);
        done = put ? Result<void>() : tl::unexpected(put.error());
        fill->put_ = put ? *std::move(put) : nullptr;
    }
    return done ? Result<std::unique_ptr<SnapshotFill>>(std::move(fill)) : tl::unexpected(done.error());
}

Result<void> SnapshotFill::add(const KeyRow& row) {
    batch_.push_back(row);
    return batch_.size() < kBatchRows ? Result<void>() : hand_over();
}

Result<void> SnapshotFill::end(const PolicySet& policies) {
    end_writer(false);
    Result<void> done = written_;
    for (auto row = batch_.begin(); done && row != batch_.end(); ++row) {
        done = put_key(*connection_, *put_, *row);
    }
    return done ? put_policies(*connection_, policies) : done;
}

Result<void> SnapshotFill::finish(const Standing& standing, const std::vector<Tightened>& since) {
    put_.reset();
    Result<void> done = run_writing(*connection_, kSnapshotMakeIndexesSql);
    if (done) {
        done = tighten(*connection_, since);
    }
    if (done) {
        done = write_standing(*connection_, standing);
    }
    if (done) {
        done = run_writing(*connection_, "COMMIT");
    }
    connection_.reset();
    if (done && fsync(file_.fd()) != 0) {
        done = fail(named(place_.path) + ": " + std::string(kDoingWrite) + ": " + errno_text(errno));
    }
    return done;
}

Result<void> SnapshotFill::hand_over() {
    if (!writer_.joinable()) {
        try {
            writer_ = std::thread([this] { write(); });
        } catch (const std::system_error& error) {
            return fail(named(place_.path) + ": " + std::string(kDoingWrite) + ": " + error.what());
        }
    }
    std::unique_lock lock(mutex_);
    taken_.wait(lock, [this] { return batches_.size() < kBatchesMax || !written_; });
    if (!written_) {
        return written_;
    }
    batches_.push_back(std::exchange(batch_, {}));
    lock.unlock();
    given_.notify_one();
    batch_.reserve(kBatchRows);
    return {};
}

void SnapshotFill::end_writer(bool unwanted) {
    if (!writer_.joinable()) {
        return;
    }
    {
        const std::lock_guard lock(mutex_);
        ended_ = true;
        if (unwanted) {
            batches_.clear();
        }
    }
    given_.notify_one();
    writer_.join();
}

void SnapshotFill::write() {
    Result<void> done;
    try {
        while (done) {
            std::unique_lock lock(mutex_);
            given_.wait(lock, [this] { return ended_ || !batches_.empty(); });
            if (batches_.empty()) {
                return;
            }
            const std::vector<KeyRow> batch = std::move(batches_.front());
            batches_.pop_front();
            lock.unlock();
            taken_.notify_one();
            for (auto row = batch.begin(); done && row != batch.end(); ++row) {
                done = put_key(*connection_, *put_, *row);
            }
        }
    } catch (const std::bad_alloc&) {
        done = fail(named(place_.path) + ": no memory to write it");
    }
    const std::lock_guard lock(mutex_);
    written_ = std::move(done);
    taken_.notify_one();
}

}  // namespace apikeyd
