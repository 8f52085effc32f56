// What the first load of a key store costs, against reading its rows and doing nothing with them.
//
// The store is an SQLite database with as many keys as asked for, on tmpfs. `scan` takes every column of
// every row by sqlite3_step() on one thread, with a plain connection. `load` is the daemon's: from asking the
// reloader to the published table, by its loader and its builder. Both are repeated in turn, each load into a
// directory of its own. Wall time is what an operator waits; CPU time shows what the second thread saves and
// what it does not. `private_mib` is anonymous memory of this process at its highest, looked at every few
// milliseconds, over what it was before the load.
//
// Every load must bring all keys, and the table answer for one in so many.

#include <malloc.h>
#include <sqlite3.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>

#include "bench/serving_instance.h"
#include "bench/serving_run.h"
#include "bench/temporary_directory.h"
#include "core/bus_guard.h"
#include "core/reloader.h"
#include "core/table_rows.h"
#include "source/sqlite_file.h"

namespace apikey::bench {
namespace {

using apikeyd::KeyRow;

constexpr char kInstance[] = "load";
constexpr uint64_t kKeysPerLook = 1009;  // a prime: keys of all owners
constexpr std::chrono::milliseconds kMemoryInterval{5};
constexpr char kAllColumns[] =
    "SELECT id, sha256, state, expires, plan, limits, addresses, environment, owner, name, created, "
    "\"foreign\", scopes, metadata FROM keys";

double process_cpu_s() {
    timespec now{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

/// Anonymous memory of this process.
double private_mib() {
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;) {
        double kib = 0;
        if (word == "RssAnon:" && status >> kib) {
            return kib / 1024;
        }
    }
    throw RunEnded(kUnreachable, "/proc/self/status does not say RssAnon");
}

/// Another program's connection.
class PlainStore {
  public:
    explicit PlainStore(const std::string& path) {
        check(sqlite3_open_v2(path.c_str(), &database_, SQLITE_OPEN_READWRITE, nullptr));
    }
    ~PlainStore() { sqlite3_close(database_); }
    PlainStore(const PlainStore&) = delete;
    PlainStore& operator=(const PlainStore&) = delete;

    void run(const char* sql) { check(sqlite3_exec(database_, sql, nullptr, nullptr, nullptr)); }
    /// Calls `visit` until it says false, with the statement.
    template <typename Visit>
    void each(const char* sql, Visit visit) {
        sqlite3_stmt* statement = nullptr;
        check(sqlite3_prepare_v2(database_, sql, -1, &statement, nullptr));
        const std::unique_ptr<sqlite3_stmt, int (*)(sqlite3_stmt*)> owner(statement, sqlite3_finalize);
        while (visit(statement)) {
        }
    }
    void check(int rc) {
        if (rc != SQLITE_OK && rc != SQLITE_DONE && rc != SQLITE_ROW) {
            throw RunEnded(kUnreachable, std::string("the key store: ") + sqlite3_errmsg(database_));
        }
    }

  private:
    sqlite3* database_ = nullptr;
};

void bind_text(sqlite3_stmt* statement, int index, const std::string& text) {
    sqlite3_bind_text(statement, index, text.data(), static_cast<int>(text.size()), SQLITE_STATIC);
}

void make_store(const std::string& path, uint64_t keys) {
    apikeyd::ChangeOptions options;
    options.create = true;
    value_or_end(apikeyd::SqliteFile(path).change(
        [](apikeyd::KeySet& set) { return set.add_scope("reports.read"); }, options));
    PlainStore store(path);
    store.run("PRAGMA cache_size = -4000000");  // the ids are random: else every page is written many times
    store.run("BEGIN");
    uint64_t number = 0;
    store.each(
        "INSERT INTO keys(id, sha256, environment, owner, name, created) VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
        [&](sqlite3_stmt* insert) {
            const KeyRow row = row_of_key(number);
            bind_text(insert, 1, row.id);
            sqlite3_bind_blob(insert, 2, row.digest.data(), static_cast<int>(row.digest.size()),
                              SQLITE_STATIC);
            bind_text(insert, 3, row.environment);
            bind_text(insert, 4, row.owner);
            bind_text(insert, 5, row.name);
            sqlite3_bind_int64(insert, 6, row.created_s);
            store.check(sqlite3_step(insert));
            store.check(sqlite3_reset(insert));
            return ++number < keys;
        });
    store.run("COMMIT");
    store.run("PRAGMA wal_checkpoint(TRUNCATE)");
}

struct Cost {
    double wall_s = 0;
    double cpu_s = 0;
};

template <typename Work>
Cost cost_of(Work work) {
    const double cpu_before_s = process_cpu_s();
    const uint64_t begun_ns = monotonic_ns();
    work();
    return {static_cast<double>(monotonic_ns() - begun_ns) * 1e-9, process_cpu_s() - cpu_before_s};
}

Cost scan(const std::string& path, uint64_t keys) {
    uint64_t rows = 0;
    uint64_t bytes = 0;
    const Cost cost = cost_of([&] {
        PlainStore store(path);
        store.each(kAllColumns, [&](sqlite3_stmt* row) {
            const int rc = sqlite3_step(row);
            store.check(rc);
            for (int i = 0; rc == SQLITE_ROW && i < sqlite3_column_count(row); ++i) {
                const int type = sqlite3_column_type(row, i);
                if (type == SQLITE_INTEGER) {
                    bytes += static_cast<uint64_t>(sqlite3_column_int64(row, i)) & 1;
                } else if (type != SQLITE_NULL) {
                    bytes += *static_cast<const uint8_t*>(sqlite3_column_blob(row, i));
                    bytes += static_cast<uint64_t>(sqlite3_column_bytes(row, i));
                }
            }
            rows += rc == SQLITE_ROW ? 1 : 0;
            return rc == SQLITE_ROW;
        });
    });
    if (rows != keys || bytes == 0) {
        throw RunEnded(kWrong, "the scan saw " + std::to_string(rows) + " rows");
    }
    return cost;
}

void check_table(const shm::TableView& table, uint64_t keys) {
    for (uint64_t number = 0; number < keys; number += kKeysPerLook) {
        const KeyRow row = row_of_key(number);
        std::optional<KeyRow> found = row_in(table, row);
        if (found) {
            found->digest = row.digest;  // the table has 20 bytes of it
        }
        if (found != row) {
            throw RunEnded(kWrong, "the loaded table does not have key " + std::to_string(number));
        }
    }
}

/// A daemon that has no table, with this source.
class LoadRun {
  public:
    LoadRun(const std::string& base, const std::string& store)
        : log_(value_or_end(apikeyd::Log::open({.path = base + "/log"}))),
          loop_(value_or_end(apikeyd::make_loop(apikeyd::LoopKind::automatic))),
          loader_(value_or_end(apikeyd::Worker::start(*loop_))),
          builder_(value_or_end(apikeyd::Worker::start(*loop_))),
          publisher_(value_or_end(apikeyd::Publisher::open(
              value_or_end(shm::Directory::open_and_lock(base, kInstance, getegid())), getegid(),
              /*capacity_keys=*/0, *builder_, *log_))),
          reloader_(*loop_, *publisher_, *loader_,
                    {.source = std::make_shared<apikeyd::SqliteFile>(store), .max_loss_percent = 50}, *log_) {
    }
    ~LoadRun() {
        loader_->stop();
        builder_->stop();
    }

    Cost load(uint64_t keys) {
        malloc_trim(0);  // what others gave back would be used again, and not be seen
        const double before_mib = private_mib();
        apikeyd::Result<apikeyd::ReloadReport> report = apikeyd::fail("nothing was told of the load");
        loop_->every(kMemoryInterval, [&] { most_mib_ = std::max(most_mib_, private_mib() - before_mib); });
        const Cost cost = cost_of([&] {
            reloader_.request(false, [&](const apikeyd::Result<apikeyd::ReloadReport>& result) {
                report = result;
                loop_->stop();
            });
            value_or_end(loop_->run());
        });
        if (value_or_end(report).added != keys) {
            throw RunEnded(kWrong, "the load brought " + std::to_string(report->added) + " keys");
        }
        check_table(publisher_->current()->table().view(), keys);
        return cost;
    }
    double most_mib() const { return most_mib_; }

  private:
    std::unique_ptr<apikeyd::Log> log_;
    std::unique_ptr<apikeyd::Loop> loop_;
    std::unique_ptr<apikeyd::Worker> loader_, builder_;
    std::unique_ptr<apikeyd::Publisher> publisher_;
    apikeyd::Reloader reloader_;
    double most_mib_ = 0;
};

FigureRow row(const char* what, const std::vector<Cost>& costs, const std::vector<Cost>& against) {
    std::vector<double> wall_s, cpu_s, wall_ratio, cpu_ratio;
    for (size_t i = 0; i < costs.size(); ++i) {
        wall_s.push_back(costs[i].wall_s);
        cpu_s.push_back(costs[i].cpu_s);
        wall_ratio.push_back(costs[i].wall_s / against[i].wall_s);
        cpu_ratio.push_back(costs[i].cpu_s / against[i].cpu_s);
    }
    return {what,
            {{"wall_seconds", median(wall_s)},
             {"cpu_seconds", median(cpu_s)},
             {"wall_ratio", median(wall_ratio)},
             {"cpu_ratio", median(cpu_ratio)}}};
}

}  // namespace

std::vector<FigureTable> measure_load(const ServingOptions& options) {
    apikeyd::install_bus_guard();
    const TemporaryDirectory directory;
    const std::string store = directory.path() + "/keys.db";
    make_store(store, options.keys);
    std::vector<Cost> scans, loads;
    double most_mib = 0;
    for (uint32_t i = 0; i < options.repetitions; ++i) {
        scans.push_back(scan(store, options.keys));
        const std::string base = directory.path() + "/load";
        std::filesystem::create_directory(base);
        {
            LoadRun run(base, store);
            loads.push_back(run.load(options.keys));
            most_mib = std::max(most_mib, run.most_mib());
        }
        std::filesystem::remove_all(base);
    }
    FigureTable table{"load", "First load of a key store, and a scan of its rows", {}};
    table.rows.push_back(row("scan", scans, scans));
    table.rows.push_back(row("load", loads, scans));
    return {table,
            {"load_memory", "The daemon's own memory meanwhile", {{"load", {{"private_mib", most_mib}}}}}};
}

}  // namespace apikey::bench
