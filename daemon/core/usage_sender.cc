#include "core/usage_sender.h"

#include <algorithm>
#include <new>
#include <utility>

namespace apikeyd {

using std::chrono::milliseconds;

namespace {

constexpr milliseconds kPauseMin{500};
constexpr milliseconds kPauseMax{60'000};
/// Where nothing is counted the store is told of all the same, so that nobody sends a copy of it
/// (send_usage() looks back ten minutes).
constexpr std::chrono::minutes kTellAgain{3};
/// Read between two flushes in some 10 ms, and one statement.
constexpr size_t kBatchKeysMax = 4096;

}  // namespace

/// One batch on its way.
struct UsageSender::Job {
    Result<UsageBatch> batch = fail("the batch was not made");
    Result<uint64_t> number = fail("the batch was not sent");
    Result<void> noted;
};

UsageSender::UsageSender(std::shared_ptr<UsageStore> store, Worker& flushes, Worker& worker,
                         std::string place, ServingHost host, Log& log)
    : store_(std::move(store)),
      usage_(std::make_shared<PostgresUsage>(std::move(place), std::move(host))),
      flushes_(flushes),
      worker_(worker),
      log_(log),
      pause_(kPauseMin) {}

void UsageSender::send() {
    if (!sending_ && Clock::now() >= again_) {
        take();
    }
}

void UsageSender::take() {
    auto job = std::make_shared<Job>();
    sending_ = flushes_.submit(
        [job, store = store_] {
            try {
                job->batch = store->unsent(kBatchKeysMax);
            } catch (const std::bad_alloc&) {
                job->batch = fail("no memory to read what is to be sent");
            }
        },
        [this, job] {
            sending_ = false;
            if (!job->batch) {
                failed(job->batch.error());
            } else if (!job->batch->is_empty() || Clock::now() - told_ >= kTellAgain) {
                give(job);
            }
        });
}

void UsageSender::give(const std::shared_ptr<Job>& job) {
    sending_ = worker_.submit(
        [job, usage = usage_] {
            try {
                job->number = usage->send(*job->batch);
            } catch (const std::bad_alloc&) {
                job->number = fail("no memory to send usage");
            }
        },
        [this, job] {
            sending_ = false;
            if (job->number) {
                note(job);
            } else {
                failed(job->number.error());
            }
        });
}

void UsageSender::note(const std::shared_ptr<Job>& job) {
    const bool taken = job->batch->was_taken(*job->number);
    if (!taken) {
        log_.info("usage.sent_anew", {{"reason", "the database does not have what was sent"}});
    }
    sending_ = flushes_.submit(
        [job, store = store_, taken] {
            try {
                job->noted = taken ? store->note_sent(*job->batch, *job->number)
                                   : store->send_anew(*job->batch, *job->number);
            } catch (const std::bad_alloc&) {
                job->noted = fail("no memory to note what was sent");
            }
        },
        [this, job, taken] {
            sending_ = false;
            if (!job->noted) {
                failed(job->noted.error());
                return;
            }
            if (!last_error_.empty()) {
                log_.info("usage.send_recovered");
            }
            last_error_.clear();
            told_ = Clock::now();
            pause_ = kPauseMin;
            if (job->batch->more || !taken) {
                take();
            }
        });
}

void UsageSender::failed(const Error& error) {
    if (last_error_ != error.message) {
        last_error_ = error.message;
        log_.warn("usage.send_failed", {{"reason", last_error_}});
    }
    again_ = Clock::now() + milliseconds(std::uniform_int_distribution<int64_t>(pause_.count() / 2,
                                                                                pause_.count())(chance_));
    pause_ = std::min(2 * pause_, kPauseMax);
}

}  // namespace apikeyd
