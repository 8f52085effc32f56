// What bringing the counts into the usage store costs the daemon.
//
// A client process validates 1 000 keys, scattered over the table, round after round at a modest rate; the
// flusher brings what was counted into an SQLite store on tmpfs. The CPU time of a flush is that of its
// worker's thread: the worker runs its jobs in order, and the jobs before and after the flush read that
// thread's clock. It has the sweep over the dirty map, the sums, and SQLite's work; what a disk would add is
// waiting. `share` is the part of one core at a flush a second. `idle` is a flush in which nobody counted:
// what remains is what grows with the table. `active among counted` are the same active keys once each key
// beside them was counted before: a mark stands for 16 cells, and sums that did not change go to the store as
// well. The flush that first meets a new minute moves the rows of the one before, and shows in `worst` if at
// all. `harvest` is the end of a superseded generation in which so many keys were counted.
//
// All flushes together must have added what was answered VALID, exactly.

#include <algorithm>
#include <set>

#include "bench/generated_keys.h"
#include "bench/serving_crew.h"
#include "bench/serving_instance.h"
#include "bench/serving_run.h"
#include "bench/temporary_directory.h"
#include "core/table_rows.h"
#include "shm/cells.h"

namespace apikey::bench {
namespace {

constexpr uint64_t kActiveKeysMax = 1000;
constexpr timespec kBetweenRounds{0, 50'000'000};

struct SweepArea {
    std::atomic<uint64_t> valid;
    std::atomic<uint64_t> rounds;
};

std::vector<uint64_t> numbers_of_active(const ServingOptions& options) {
    const uint64_t count = std::min(options.keys, kActiveKeysMax);
    std::vector<uint64_t> numbers(count);
    for (uint64_t i = 0; i < count; ++i) {
        numbers[i] = options.keys / count * i;
    }
    return numbers;
}

std::vector<GeneratedKey> active_keys(const ServingOptions& options) {
    std::vector<GeneratedKey> keys;
    for (const uint64_t number : numbers_of_active(options)) {
        keys.push_back(known_key(number));
    }
    return keys;
}

void validate_rounds(const Crew::Step& step, const std::vector<GeneratedKey>& keys, SweepArea* area) {
    apikey_client* client = step.open_client();
    step.ready();
    while (!step.stopped()) {
        for (const GeneratedKey& key : keys) {
            apikey_verdict verdict;
            const apikey_code code = apikey_validate(client, key.data(), key.size(), &verdict);
            if (code != APIKEY_VALID) [[unlikely]] {
                step.wrong(wrong_words("sweep", "an active key", code, "VALID"));
            }
        }
        area->valid.fetch_add(keys.size(), std::memory_order_relaxed);
        area->rounds.fetch_add(1, std::memory_order_release);
        nanosleep(&kBetweenRounds, nullptr);
    }
    apikey_close(client);
}

/// Times what runs on the flusher's worker, and sums up what flushes brought.
class TimedFlushes {
  public:
    explicit TimedFlushes(ServingInstance& instance) : instance_(instance) {}

    /// CPU seconds of the next flush.
    double flush() {
        apikeyd::Result<apikeyd::FlushSummary> summary = apikeyd::fail("nothing was told of the flush");
        const double cpu_s = time_job([&] {
            instance_.flusher().flush(
                [&](const apikeyd::Result<apikeyd::FlushSummary>& result) { summary = result; });
        });
        const apikeyd::FlushSummary flushed = value_or_end(std::move(summary));
        keys_ = flushed.keys_changed;
        counted_ += flushed.allowed_added;
        return cpu_s;
    }
    /// CPU seconds of harvesting the one superseded generation, which no client maps any more.
    double harvest() {
        const double cpu_s = time_job([&] { instance_.flusher().retire_unused(); });
        if (!instance_.publisher().superseded().empty()) {
            throw RunEnded(kUnreachable, "a generation that nobody uses was not harvested; see the log");
        }
        return cpu_s;
    }
    uint64_t counted() const { return counted_; }
    uint64_t keys_of_last() const { return keys_; }

  private:
    /// CPU seconds of the one job that `submit` has the worker do.
    template <typename Submit>
    double time_job(Submit submit) {
        double before_s = 0;
        double after_s = 0;
        apikeyd::Worker& worker = instance_.flush_worker();
        bool queued = worker.submit([&] { before_s = thread_cpu_s(); }, [] {});
        submit();
        queued &= worker.submit([&] { after_s = thread_cpu_s(); }, [this] { instance_.loop().stop(); });
        if (!queued) {
            throw RunEnded(kUnreachable, "the flusher's worker is busy");
        }
        instance_.run();
        return after_s - before_s;
    }

    ServingInstance& instance_;
    uint64_t counted_ = 0;
    uint64_t keys_ = 0;
};

FigureRow flush_row(const char* what, const std::vector<double>& cpu_s, double keys) {
    constexpr double kFlushesPerSecond = 1;
    return {what,
            {{"flushes", static_cast<double>(cpu_s.size())},
             {"keys_changed", keys},
             {"cpu_ms", median(cpu_s) * 1e3},
             {"worst_cpu_ms", *std::max_element(cpu_s.begin(), cpu_s.end()) * 1e3},
             {"share_percent", median(cpu_s) * kFlushesPerSecond * 100}}};
}

class SweepRun {
  public:
    explicit SweepRun(const ServingOptions& options)
        : options_(options),
          keys_(active_keys(options)),
          crew_(directory_.path(), 1,
                [this](const Crew::Step& step) { validate_rounds(step, keys_, &*area_); }),
          instance_(directory_.path(), options.keys, kShardsBudgetBytes, crew_),
          flushes_(instance_) {}

    std::vector<FigureTable> measure() {
        FigureTable table{"sweep", "CPU time of a flush; its share of one core at a flush a second", {}};
        table.rows.push_back(active("active"));
        table.rows.push_back(idle());
        count_neighbours();
        table.rows.push_back(active("active among counted"));
        check_counts();
        FigureTable end{"harvest", "CPU time of the end of a superseded generation", {harvest()}};
        return {table, end};
    }

  private:
    uint32_t flushes_wanted() const { return std::max(3u, 2 * options_.repetitions); }

    /// Until every active key was presented once more.
    void next_round() {
        const uint64_t wanted = area_->rounds.load(std::memory_order_relaxed) + 2;
        instance_.run_until([&] { return area_->rounds.load(std::memory_order_acquire) >= wanted; });
    }

    FigureRow active(const char* what) {
        crew_.begin(0);
        next_round();
        flushes_.flush();  // makes the keys' rows
        std::vector<double> cpu_s;
        std::vector<double> keys_changed;
        for (uint32_t i = 0; i < flushes_wanted(); ++i) {
            instance_.run_for(options_.seconds);
            next_round();
            cpu_s.push_back(flushes_.flush());
            keys_changed.push_back(static_cast<double>(flushes_.keys_of_last()));
        }
        crew_.end();
        flushes_.flush();
        return flush_row(what, cpu_s, median(keys_changed));
    }

    FigureRow idle() {
        std::vector<double> cpu_s;
        for (uint32_t i = 0; i < flushes_wanted(); ++i) {
            instance_.run_for(options_.seconds);
            cpu_s.push_back(flushes_.flush());
        }
        return flush_row("idle", cpu_s, 0);
    }

    /// Counts each key once that shares a mark with an active one, as a client would.
    void count_neighbours() {
        const shm::Generation& generation = *instance_.publisher().current();
        const shm::TableView& table = generation.table().view();
        const shm::CellsView& cells = generation.cells();
        const uint64_t step = uint64_t{1} << cells.dirty_shift;
        for (uint64_t number : numbers_of_active(options_)) {
            const apikeyd::KeyRow row = row_of_key(number);
            const uint64_t own = shm::find_slot(table, row_hash(row, table.hash_seed), row_digest(row)).index;
            counted_slots_.insert(own);
            const uint64_t first = own / step * step;
            for (uint64_t index = first; index < std::min(first + step, cells.cell_count); ++index) {
                if (apikeyd::row_of_slot(table, index) && counted_slots_.insert(index).second) {
                    shm::count_key(cells, index, 0, true);
                    ++counted_beside_;
                }
            }
        }
    }

    void check_counts() const {
        const uint64_t valid = area_->valid.load(std::memory_order_relaxed) + counted_beside_;
        if (flushes_.counted() != valid) {
            throw RunEnded(kWrong, "WRONG: sweep: " + std::to_string(valid) + " keys were counted, but " +
                                       std::to_string(flushes_.counted()) + " counts came into the store");
        }
    }

    /// All clients have closed by now.
    FigureRow harvest() {
        instance_.publish_next(1);
        const double cpu_s = flushes_.harvest();
        return {"a generation",
                {{"keys_counted", static_cast<double>(counted_slots_.size())}, {"cpu_ms", cpu_s * 1e3}}};
    }

    const ServingOptions& options_;
    TemporaryDirectory directory_;
    std::vector<GeneratedKey> keys_;
    Shared<SweepArea> area_;
    Crew crew_;
    ServingInstance instance_;
    TimedFlushes flushes_;
    std::set<uint64_t> counted_slots_;
    uint64_t counted_beside_ = 0;
};

}  // namespace

std::vector<FigureTable> measure_sweep(const ServingOptions& options) {
    return SweepRun(options).measure();
}

}  // namespace apikey::bench
