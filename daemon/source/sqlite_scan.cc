#include "source/sqlite_scan.h"

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "source/sqlite_schema.h"

namespace apikeyd {

namespace {

constexpr std::string_view kDoing = "reading keys";
/// Rows that one thread reads in some milliseconds: what a second one costs to begin with is nothing to it.
constexpr int64_t kBlockRows = 4096;
constexpr int64_t kSharedRowsMin = 16 * kBlockRows;
constexpr int64_t kRowidsPerRowMax = 8;
/// Read by the other thread and not visited yet.
constexpr size_t kBlocksAhead = 2;

/// Both ends are in it.
struct Range {
    int64_t first = INT64_MIN;
    int64_t last = INT64_MAX;
};

Result<void> read_block(SqliteKeyStore& store, Range range, const std::function<void(ScannedRow&)>& visit) {
    SqlStatement& rows = store.keys_between();
    const SqlResetGuard guard(rows);
    rows.bind(1, range.first).bind(2, range.last);
    SqlStep step = rows.step();
    for (; step == SqlStep::kRow; step = rows.step()) {
        ScannedRow scanned = scan_row(store.keys(), key_columns(rows));
        visit(scanned);
    }
    return step == SqlStep::kDone ? Result<void>() : Result<void>(store.keys().failed(kDoing));
}

/// Blocks of rowids, alternately of the calling thread and of the other.
struct Blocks {
    int64_t first;
    int64_t last;
    int64_t width;

    friend bool operator==(const Blocks&, const Blocks&) = default;
    [[nodiscard]] int64_t count() const { return (last - first) / width + 1; }
    [[nodiscard]] Range at(int64_t number) const {
        const int64_t from = first + number * width;
        return {from, number + 1 == count() ? last : from + width - 1};
    }
};

/// nullopt where two threads do not pay: few rows, or rowids far apart, so that blocks could hold very
/// different numbers of them.
Result<std::optional<Blocks>> blocks_of(const SqliteKeyStore& store) {
    const Result<SqlStatementPtr> ends = store.connection().prepare(
        "SELECT (SELECT min(rowid) FROM keys), (SELECT max(rowid) FROM keys), (SELECT count(*) FROM keys)");
    if (!ends) {
        return tl::unexpected(ends.error());
    }
    if ((*ends)->step() != SqlStep::kRow) {
        return store.keys().failed(kDoing);
    }
    const int64_t first = (*ends)->column_int(0);
    const int64_t last = (*ends)->column_int(1);
    const int64_t rows = (*ends)->column_int(2);
    if (std::thread::hardware_concurrency() < 2 || rows < kSharedRowsMin || first < 0 ||
        (last - first) / rows >= kRowidsPerRowMax) {
        return std::nullopt;
    }
    return Blocks{first, last, kBlockRows * ((last - first) / rows + 1)};
}

/// The other thread: reads every second block, a few ahead of who takes them.
class Other {
  public:
    /// nullptr where there is none: no descriptor, no thread, or a store that has gone on meanwhile.
    static std::unique_ptr<Other> begin(const std::string& path, const Position& now, const Blocks& blocks) {
        auto store = SqliteKeyStore::open(Database::open_read_only(kKeyStore, path));
        if (!store) {
            return nullptr;
        }
        auto transaction = SqlTransaction::begin((*store)->connection(), "BEGIN", kDoing);
        const Result<Position> position = (*store)->position();
        if (!transaction || !position || *position != now) {
            return nullptr;
        }
        // Who moves rows to other rowids changes nothing that the position would say.
        const auto same = blocks_of(**store);
        if (!same || *same != blocks) {
            return nullptr;
        }
        (*store)->keys().policies.load([](const auto&, const auto&, const auto&) {});
        std::unique_ptr<Other> other(new Other(*std::move(store), *std::move(transaction)));
        try {
            other->thread_ = std::thread([&self = *other, blocks] { self.read(blocks); });
        } catch (const std::system_error&) {
            return nullptr;
        }
        return other;
    }
    ~Other() {
        {
            const std::lock_guard lock(mutex_);
            unwanted_ = true;
        }
        taken_.notify_all();
        if (thread_.joinable()) {
            thread_.join();
        }
    }
    Other(const Other&) = delete;
    Other& operator=(const Other&) = delete;

    using Block = Result<std::vector<ScannedRow>>;
    /// Its next one.
    Block take() {
        std::unique_lock lock(mutex_);
        read_.wait(lock, [this] { return !ahead_.empty() || failed_; });
        if (ahead_.empty()) {
            return fail("the thread that reads it as well has no memory");
        }
        Block block = std::move(ahead_.front());
        ahead_.pop_front();
        lock.unlock();
        taken_.notify_all();
        return block;
    }

  private:
    Other(std::unique_ptr<SqliteKeyStore> store, SqlTransaction transaction)
        : store_(std::move(store)), transaction_(std::move(transaction)) {}

    void read(const Blocks& blocks) {
        try {
            read_all(blocks);
        } catch (const std::exception&) {  // no memory
            const std::lock_guard lock(mutex_);
            failed_ = true;
        }
        read_.notify_all();
    }
    void read_all(const Blocks& blocks) {
        for (int64_t number = 1; number < blocks.count(); number += 2) {
            Block block = read_one(blocks.at(number));
            std::unique_lock lock(mutex_);
            taken_.wait(lock, [this] { return unwanted_ || ahead_.size() < kBlocksAhead; });
            if (unwanted_) {
                return;
            }
            ahead_.push_back(std::move(block));
            lock.unlock();
            read_.notify_all();
        }
    }
    Block read_one(Range range) {
        std::vector<ScannedRow> rows;
        rows.reserve(kBlockRows);
        Result<void> read =
            read_block(*store_, range, [&](ScannedRow& row) { rows.push_back(std::move(row)); });
        if (read) {
            read = store_->keys().policies_read();
        }
        return read ? Block(std::move(rows)) : Block(tl::unexpected(read.error()));
    }

    std::unique_ptr<SqliteKeyStore> store_;
    SqlTransaction transaction_;
    std::mutex mutex_;
    std::condition_variable read_, taken_;
    std::deque<Block> ahead_;  // under the mutex
    bool unwanted_ = false;    // too
    bool failed_ = false;      // too
    std::thread thread_;
};

}  // namespace

Result<void> scan_keys(SqliteKeyStore& store, const std::string& path, const Position& now,
                       const std::function<void(ScannedRow&)>& visit) {
    const Result<std::optional<Blocks>> blocks = blocks_of(store);
    if (!blocks) {
        return tl::unexpected(blocks.error());
    }
    const std::unique_ptr<Other> other = *blocks ? Other::begin(path, now, **blocks) : nullptr;
    if (other == nullptr) {
        return read_block(store, {}, visit);
    }
    for (int64_t number = 0; number < (*blocks)->count(); ++number) {
        if (number % 2 == 0) {
            if (Result<void> read = read_block(store, (*blocks)->at(number), visit); !read) {
                return read;
            }
            continue;
        }
        Other::Block block = other->take();
        if (!block) {
            return tl::unexpected(block.error());
        }
        std::for_each(block->begin(), block->end(), visit);
    }
    return {};
}

}  // namespace apikeyd
