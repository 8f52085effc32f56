#include "usage/usage_store.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>

#include "base/errno_text.h"
#include "usage/database.h"
#include "usage/quota_rows.h"
#include "usage/rollup_rows.h"

namespace apikeyd {

namespace {

constexpr uint64_t kInt64Max = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
constexpr std::string_view kDoingFlush =
    "writing counts (they stay in shared memory and are written by a later flush)";

enum StatementIndex : uint8_t {
    kBegin,
    kCommit,
    kRollback,
    kSelectClosed,
    kInsertClosed,
    kSelectBaseline,
    kRaiseBaseline,
    kAddTotal,
    kSelectCodeBaseline,
    kRaiseCodeBaseline,
    kAddCode,
    kCountQuarantined,
    kInsertQuarantined,
    kDeleteBaselines,
    kDeleteCodeBaselines,
    kNextUid,
    kStatementCount,
};

/// A sum beyond 2^63 - 1 would become a REAL; min() picks the largest integer instead.
constexpr std::array<std::string_view, kStatementCount> kStatementSql = {
    // IMMEDIATE: a writer who waits here cannot find its snapshot outdated later.
    "BEGIN IMMEDIATE",
    "COMMIT",
    "ROLLBACK",
    "SELECT 1 FROM closed WHERE uid = ?1",
    "INSERT INTO closed(uid, generation, closed_at_s) VALUES(?1, ?2, ?3) ON CONFLICT(uid) DO NOTHING",
    "SELECT allowed, denied FROM baselines WHERE uid = ?1 AND digest = ?2",
    "INSERT INTO baselines(uid, digest, allowed, denied) VALUES(?1, ?2, ?3, ?4) ON CONFLICT(uid, digest) "
    "DO UPDATE SET allowed = max(allowed, excluded.allowed), denied = max(denied, excluded.denied)",
    "INSERT INTO totals(key_id, allowed, denied, last_used_s) VALUES(?1, ?2, ?3, ?4) ON CONFLICT(key_id) "
    "DO UPDATE SET allowed = min(allowed + excluded.allowed, 9223372036854775807), "
    "denied = min(denied + excluded.denied, 9223372036854775807), "
    "last_used_s = max(last_used_s, excluded.last_used_s)",
    "SELECT total FROM code_baselines WHERE uid = ?1 AND code = ?2",
    "INSERT INTO code_baselines(uid, code, total) VALUES(?1, ?2, ?3) ON CONFLICT(uid, code) "
    "DO UPDATE SET total = max(total, excluded.total)",
    "INSERT INTO codes(code, total) VALUES(?1, ?2) ON CONFLICT(code) "
    "DO UPDATE SET total = min(total + excluded.total, 9223372036854775807)",
    "SELECT count(*) FROM quarantined",
    "INSERT INTO quarantined(uid, digest, allowed, denied, seen_s) VALUES(?1, ?2, ?3, ?4, ?5) "
    "ON CONFLICT(uid, digest) DO NOTHING",
    "DELETE FROM baselines WHERE uid = ?1",
    "DELETE FROM code_baselines WHERE uid = ?1",
    // Two index seeks, so that walking the few uids does not read the many baselines.
    "SELECT min(uid) FROM (SELECT * FROM (SELECT uid FROM baselines WHERE uid > ?1 ORDER BY uid LIMIT 1) "
    "UNION ALL "
    "SELECT * FROM (SELECT uid FROM code_baselines WHERE uid > ?1 ORDER BY uid LIMIT 1))",
};

bool plausible(uint64_t sum, uint64_t baseline) {
    return sum >= baseline && sum - baseline <= kImplausibleJump && sum <= kInt64Max;
}

int64_t clamped(uint64_t value) {
    return static_cast<int64_t>(std::min(value, kInt64Max));
}

}  // namespace

int64_t unix_now_s() {
    return std::chrono::duration_cast<std::chrono::seconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
}

struct UsageStore::Impl {
    explicit Impl(Database opened) : database(std::move(opened)) {}

    Database database;  // before the statements: they are finalized first
    std::array<Statement, kStatementCount> statements;
    QuotaRows quotas;
    RollupRows rollups;
    bool read_only = false;  // a log that could not be opened for writing stays so for the connection's life

    Statement& get(StatementIndex index) { return statements[index]; }

    /// Runs `body` (which answers a SQLite code) inside one transaction: committed, or the store as it was.
    template <typename Body>
    Result<void> transact(std::string_view doing, Body body) {
        int rc = get(kBegin).run();
        if (rc == SQLITE_OK) {
            rc = body();
        }
        if (rc == SQLITE_OK) {
            rc = get(kCommit).run();
        }
        if (rc == SQLITE_OK) {
            return {};
        }
        read_only = (rc & 0xff) == SQLITE_READONLY;
        Error error = database.last_error(doing);
        if (database.in_transaction()) {  // some failures, a full disk for one, have already rolled back
            get(kRollback).run();
        }
        return tl::unexpected(std::move(error));
    }

    /// SQLITE_OK and `closed` set, or an error.
    int query_closed(const GenerationUid& uid, bool& closed) {
        Statement& statement = get(kSelectClosed);
        const ResetGuard guard(statement);
        const int rc = statement.bind(1, uid).step();
        closed = rc == SQLITE_ROW;
        return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
    }
};

namespace {

/// One flush inside its transaction. Every function answers SQLITE_OK or the error that ends it.
class FlushRun {
  public:
    FlushRun(Database& database, std::array<Statement, kStatementCount>& statements, RollupRows& rollups,
             int64_t now_s)
        : database_(database), statements_(statements), rollups_(rollups), now_s_(now_s) {}

    int add_generation(const GenerationCounts& counts) {
        int rc = add_keys(counts);
        for (size_t i = 0; rc == SQLITE_OK && i < counts.codes.size(); ++i) {
            rc = add_code(counts.uid, counts.codes[i]);
        }
        if (rc == SQLITE_OK && counts.closing) {
            rc = statements_[kInsertClosed]
                     .bind(1, counts.uid)
                     .bind(2, clamped(counts.generation))
                     .bind(3, now_s_)
                     .run();
        }
        return rc;
    }

    /// Adds the differences that add_generation() found, in the order of the totals' tree, so that a page is
    /// visited once however many keys there are.
    int add_totals() {
        std::sort(differences_.begin(), differences_.end(),
                  [](const Difference& a, const Difference& b) { return a.key_id < b.key_id; });
        for (const Difference& difference : differences_) {
            const int64_t allowed = clamped(difference.allowed);
            const int64_t denied = clamped(difference.denied);
            int rc = statements_[kAddTotal]
                         .bind(1, difference.key_id)
                         .bind(2, allowed)
                         .bind(3, denied)
                         .bind(4, now_s_)
                         .run();
            rc = rc == SQLITE_OK ? rollups_.add_key(difference.key_id, allowed, denied, now_s_) : rc;
            if (rc != SQLITE_OK) {
                return rc;
            }
        }
        return SQLITE_OK;
    }

    [[nodiscard]] const FlushSummary& summary() const { return summary_; }

  private:
    struct Difference {
        std::string_view key_id;
        uint64_t allowed;
        uint64_t denied;
    };

    /// In the order of the baselines' tree, for the same reason.
    int add_keys(const GenerationCounts& counts) {
        std::vector<size_t> order(counts.keys.size());
        std::iota(order.begin(), order.end(), size_t{0});
        // A cell that was read twice: its earlier, smaller sums first, or the later ones would look like a
        // fall.
        std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
            const KeyCount& x = counts.keys[a];
            const KeyCount& y = counts.keys[b];
            return std::tie(x.digest, x.allowed, x.denied) < std::tie(y.digest, y.allowed, y.denied);
        });
        for (const size_t index : order) {
            if (const int rc = add_key(counts.uid, counts.keys[index]); rc != SQLITE_OK) {
                return rc;
            }
        }
        return SQLITE_OK;
    }

    int add_key(const GenerationUid& uid, const KeyCount& key) {
        uint64_t allowed_before = 0;
        uint64_t denied_before = 0;
        {
            Statement& baseline = statements_[kSelectBaseline];
            const ResetGuard guard(baseline);
            const int rc = baseline.bind(1, uid).bind(2, key.digest).step();
            if (rc == SQLITE_ROW) {
                allowed_before = static_cast<uint64_t>(baseline.column_int(0));
                denied_before = static_cast<uint64_t>(baseline.column_int(1));
            } else if (rc != SQLITE_DONE) {
                return rc;
            }
        }
        // One word out of two being wrong discredits the cell: whoever wrote it could write the other.
        if (!plausible(key.allowed, allowed_before) || !plausible(key.denied, denied_before)) {
            return quarantine(uid, key.digest, key.allowed, key.denied);
        }
        const Difference difference{key.key_id, key.allowed - allowed_before, key.denied - denied_before};
        if (difference.allowed == 0 && difference.denied == 0) {
            return SQLITE_OK;
        }
        differences_.push_back(difference);
        ++summary_.keys_changed;
        summary_.allowed_added += difference.allowed;
        summary_.denied_added += difference.denied;
        return statements_[kRaiseBaseline]
            .bind(1, uid)
            .bind(2, key.digest)
            .bind(3, clamped(key.allowed))
            .bind(4, clamped(key.denied))
            .run();
    }

    int add_code(const GenerationUid& uid, const CodeCount& code) {
        uint64_t total_before = 0;
        {
            Statement& baseline = statements_[kSelectCodeBaseline];
            const ResetGuard guard(baseline);
            const int rc = baseline.bind(1, uid).bind(2, int64_t{code.code}).step();
            if (rc == SQLITE_ROW) {
                total_before = static_cast<uint64_t>(baseline.column_int(0));
            } else if (rc != SQLITE_DONE) {
                return rc;
            }
        }
        if (!plausible(code.total, total_before)) {
            KeyDigest stand_in{};
            stand_in.back() = code.code;
            return quarantine(uid, stand_in, code.total, 0);
        }
        if (code.total == total_before) {
            return SQLITE_OK;
        }
        const int64_t difference = clamped(code.total - total_before);
        int rc = statements_[kRaiseCodeBaseline]
                     .bind(1, uid)
                     .bind(2, int64_t{code.code})
                     .bind(3, clamped(code.total))
                     .run();
        rc = rc == SQLITE_OK ? statements_[kAddCode].bind(1, int64_t{code.code}).bind(2, difference).run()
                             : rc;
        return rc == SQLITE_OK ? rollups_.add_code(code.code, difference, now_s_) : rc;
    }

    int quarantine(const GenerationUid& uid, const KeyDigest& digest, uint64_t allowed, uint64_t denied) {
        ++summary_.quarantined;
        if (quarantined_rows_ < 0) {
            Statement& count = statements_[kCountQuarantined];
            const ResetGuard guard(count);
            if (const int rc = count.step(); rc != SQLITE_ROW) {
                return rc;
            }
            quarantined_rows_ = count.column_int(0);
        }
        if (quarantined_rows_ >= kQuarantinedRowsMax) {
            return SQLITE_OK;
        }
        const int rc = statements_[kInsertQuarantined]
                           .bind(1, uid)
                           .bind(2, digest)
                           .bind(3, clamped(allowed))
                           .bind(4, clamped(denied))
                           .bind(5, now_s_)
                           .run();
        if (rc == SQLITE_OK && database_.rows_changed() > 0) {
            ++quarantined_rows_;
            ++summary_.quarantined_new;
        }
        return rc;
    }

    Database& database_;
    std::array<Statement, kStatementCount>& statements_;
    RollupRows& rollups_;
    int64_t now_s_;
    int64_t quarantined_rows_ = -1;  // counted when first needed
    FlushSummary summary_;
    std::vector<Difference> differences_;
};

}  // namespace

UsageStore::UsageStore(std::string path, const Retention& retention, std::unique_ptr<Impl> impl, OwnedFd lock)
    : path_(std::move(path)), retention_(retention), impl_(std::move(impl)), lock_(std::move(lock)) {}
UsageStore::UsageStore(UsageStore&&) noexcept = default;
UsageStore& UsageStore::operator=(UsageStore&&) noexcept = default;
UsageStore::~UsageStore() = default;

/// Held while the store is open. A file of its own: closing any descriptor of a database ends SQLite's locks.
Result<OwnedFd> UsageStore::take_lock(const std::string& path) {
    const std::string name = path + ".lock";
    OwnedFd lock(::open(name.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, S_IRUSR | S_IWUSR));
    if (!lock.is_open()) {
        return fail(name + ": cannot be opened: " + errno_text(errno));
    }
    struct flock range {};
    range.l_type = F_WRLCK;
    range.l_whence = SEEK_SET;
    if (fcntl(lock.get(), F_OFD_SETLK, &range) != 0) {
        return fail(path +
                    ": another daemon keeps its counts in this store; give each instance one of its own");
    }
    return lock;
}

Result<UsageStore> UsageStore::open(const std::string& path, const Retention& retention) {
    Result<std::unique_ptr<Impl>> impl = open_impl(path);
    if (!impl) {
        return tl::unexpected(std::move(impl.error()));
    }
    Result<OwnedFd> lock = take_lock(path);
    if (!lock) {
        return tl::unexpected(std::move(lock.error()));
    }
    struct stat status {};
    if (stat(path.c_str(), &status) == 0 && status.st_nlink > 1) {
        return fail(path +
                    ": has another name, under which another daemon could use it; remove that hard link");
    }
    return UsageStore(path, retention, std::move(*impl), std::move(*lock));
}

Result<std::unique_ptr<UsageStore::Impl>> UsageStore::open_impl(const std::string& path) {
    Result<Database> database = Database::open_writable(path);
    if (!database) {
        return tl::unexpected(std::move(database.error()));
    }
    auto impl = std::make_unique<Impl>(std::move(*database));
    for (size_t i = 0; i < kStatementCount; ++i) {
        Result<Statement> statement = impl->database.prepare(kStatementSql[i]);
        if (!statement) {
            return tl::unexpected(std::move(statement.error()));
        }
        impl->statements[i] = std::move(*statement);
    }
    Result<QuotaRows> quotas = QuotaRows::prepare(impl->database);
    if (!quotas) {
        return tl::unexpected(std::move(quotas.error()));
    }
    impl->quotas = std::move(*quotas);
    Result<RollupRows> rollups = RollupRows::prepare(impl->database);
    if (!rollups) {
        return tl::unexpected(std::move(rollups.error()));
    }
    impl->rollups = std::move(*rollups);
    return impl;
}

/// Makes sure that the connection is to the file under the store's name, and may write it.
Result<void> UsageStore::follow_name() {
    const bool replaced = impl_ == nullptr || impl_->database.file_was_replaced();
    if (!replaced && !impl_->read_only) {
        return {};
    }
    impl_.reset();  // first: a connection's end tidies up by name
    Result<std::unique_ptr<Impl>> opened = open_impl(path_);
    if (!opened) {
        return tl::unexpected(opened.error());
    }
    impl_ = std::move(*opened);
    reopened_ = reopened_ || replaced;
    return {};
}

Result<FlushSummary> UsageStore::flush(std::span<const GenerationCounts> generations, int64_t now_s) {
    if (const Result<void> there = follow_name(); !there) {
        return tl::unexpected(there.error());
    }
    FlushRun run(impl_->database, impl_->statements, impl_->rollups, now_s);
    const Result<void> done = impl_->transact(kDoingFlush, [&] {
        for (const GenerationCounts& counts : generations) {
            bool closed = false;
            int rc = impl_->query_closed(counts.uid, closed);
            if (rc == SQLITE_OK && !closed) {
                rc = run.add_generation(counts);
                rc = rc == SQLITE_OK ? impl_->quotas.put(counts.quotas, now_s) : rc;
            }
            if (rc != SQLITE_OK) {
                return rc;
            }
        }
        const int rc = run.add_totals();
        return rc == SQLITE_OK ? impl_->rollups.forget_oldest(retention_, now_s) : rc;
    });
    if (!done) {
        return tl::unexpected(done.error());
    }
    return run.summary();
}

Result<void> UsageStore::for_each_quota(const std::function<void(const QuotaCount&)>& visit, int64_t now_s) {
    if (const Result<void> there = follow_name(); !there) {
        return tl::unexpected(there.error());
    }
    // What stays costs space and nothing else; the next time tries again.
    (void)impl_->quotas.forget_past(now_s);
    if (impl_->quotas.for_each(now_s, visit) != SQLITE_OK) {
        return tl::unexpected(impl_->database.last_error("reading what was taken of quotas"));
    }
    return {};
}

Result<void> UsageStore::forget(const GenerationUid& uid, int64_t now_s) {
    if (const Result<void> there = follow_name(); !there) {
        return tl::unexpected(there.error());
    }
    return impl_->transact("forgetting a generation", [&] {
        int rc = impl_->get(kInsertClosed).bind(1, uid).bind(2, int64_t{0}).bind(3, now_s).run();
        if (rc == SQLITE_OK) {
            rc = impl_->get(kDeleteBaselines).bind(1, uid).run();
        }
        return rc == SQLITE_OK ? impl_->get(kDeleteCodeBaselines).bind(1, uid).run() : rc;
    });
}

Result<bool> UsageStore::is_closed(const GenerationUid& uid) {
    if (const Result<void> there = follow_name(); !there) {
        return tl::unexpected(there.error());
    }
    bool closed = false;
    if (impl_->query_closed(uid, closed) != SQLITE_OK) {
        return tl::unexpected(impl_->database.last_error("reading closed generations"));
    }
    return closed;
}

Result<std::vector<GenerationUid>> UsageStore::generations_with_baselines() {
    if (const Result<void> there = follow_name(); !there) {
        return tl::unexpected(there.error());
    }
    std::vector<GenerationUid> uids;
    Statement& statement = impl_->get(kNextUid);
    GenerationUid after{};
    std::span<const uint8_t> bound;  // before the first: the empty blob, less than every uid
    for (;;) {
        const ResetGuard guard(statement);
        if (statement.bind(1, bound).step() != SQLITE_ROW) {
            return tl::unexpected(impl_->database.last_error("reading baselines"));
        }
        const std::span<const uint8_t> next = statement.column_blob(0);
        if (next.empty()) {
            return uids;
        }
        assert(next.size() == after.size());  // held by the table's CHECK
        std::copy(next.begin(), next.end(), after.begin());
        uids.push_back(after);
        bound = after;
    }
}

}  // namespace apikeyd
