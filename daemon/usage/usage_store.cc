#include "usage/usage_store.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <chrono>
#include <utility>

#include "base/errno_text.h"
#include "sqlite/database.h"
#include "usage/flush_run.h"
#include "usage/quota_rows.h"
#include "usage/usage_schema.h"

namespace apikeyd {

namespace {

constexpr std::string_view kDoingFlush =
    "writing counts (they stay in shared memory and are written by a later flush)";

enum StatementIndex : uint8_t {
    kBegin,
    kCommit,
    kRollback,
    kSelectClosed,
    kInsertClosed,
    kDeleteBaselines,
    kDeleteCodeBaselines,
    kNextUid,
    kStatementCount,
};

constexpr std::array<std::string_view, kStatementCount> kStatementSql = {
    // IMMEDIATE: a writer who waits here cannot find its snapshot outdated later.
    "BEGIN IMMEDIATE",
    "COMMIT",
    "ROLLBACK",
    "SELECT 1 FROM closed WHERE uid = ?1",
    "INSERT INTO closed(uid, generation, closed_at_s) VALUES(?1, ?2, ?3) ON CONFLICT(uid) DO NOTHING",
    "DELETE FROM baselines WHERE uid = ?1",
    "DELETE FROM code_baselines WHERE uid = ?1",
    // Three index seeks, so that walking the few uids does not read the many baselines.
    "SELECT min(uid) FROM (SELECT * FROM (SELECT uid FROM baselines WHERE uid > ?1 ORDER BY uid LIMIT 1) "
    "UNION ALL "
    "SELECT * FROM (SELECT uid FROM recent WHERE uid > ?1 ORDER BY uid LIMIT 1) "
    "UNION ALL "
    "SELECT * FROM (SELECT uid FROM code_baselines WHERE uid > ?1 ORDER BY uid LIMIT 1))",
};

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
    FlushStatements flushes;
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
        flushes.recent.rolled_back();
        flushes.unsent.rolled_back();
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

    /// What is new of a generation, inside a flush's transaction; nothing of one that is closed.
    int add_generation(FlushRun& run, const GenerationCounts& counts, int64_t now_s) {
        bool closed = false;
        int rc = query_closed(counts.uid, closed);
        if (rc != SQLITE_OK || closed) {
            return rc;
        }
        rc = run.add(counts);
        rc = rc == SQLITE_OK ? quotas.put(counts.quotas, now_s) : rc;
        if (rc == SQLITE_OK && counts.closing) {
            const auto number = static_cast<int64_t>(counts.generation);
            rc = get(kInsertClosed).bind(1, counts.uid).bind(2, number).bind(3, now_s).run();
        }
        return rc;
    }
};

UsageStore::UsageStore(std::string path, const Retention& retention, bool sends, std::unique_ptr<Impl> impl,
                       OwnedFd lock)
    : path_(std::move(path)),
      retention_(retention),
      sends_(sends),
      impl_(std::move(impl)),
      lock_(std::move(lock)) {}
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

Result<UsageStore> UsageStore::open(const std::string& path, const Retention& retention, bool sends) {
    Result<std::unique_ptr<Impl>> impl = open_impl(path, sends, 0);
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
    return UsageStore(path, retention, sends, std::move(*impl), std::move(*lock));
}

Result<std::unique_ptr<UsageStore::Impl>> UsageStore::open_impl(const std::string& path, bool sends,
                                                                int64_t mark_min) {
    Result<Database> database = Database::open_writable(kUsageStore, path);
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
    Result<FlushStatements> flushes = FlushStatements::prepare(impl->database);
    if (!flushes) {
        return tl::unexpected(std::move(flushes.error()));
    }
    impl->flushes = std::move(*flushes);
    if (impl->flushes.unsent.open(sends, mark_min) != SQLITE_OK) {
        return tl::unexpected(impl->database.last_error("reading what was sent"));
    }
    impl->flushes.recent.set_mark(impl->flushes.unsent.mark());
    return impl;
}

/// Makes sure that the connection is to the file under the store's name, and may write it.
Result<void> UsageStore::follow_name() {
    const bool replaced = impl_ == nullptr || impl_->database.file_was_replaced();
    if (!replaced && !impl_->read_only) {
        return {};
    }
    mark_min_ = impl_ != nullptr ? impl_->flushes.unsent.mark().value_or(0) : mark_min_;
    impl_.reset();  // first: a connection's end tidies up by name
    Result<std::unique_ptr<Impl>> opened = open_impl(path_, sends_, mark_min_);
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
    FlushStatements& statements = impl_->flushes;
    FlushRun run(impl_->database, statements, now_s);
    const Result<void> done = impl_->transact(kDoingFlush, [&] {
        int rc = statements.recent.begin();
        for (size_t i = 0; rc == SQLITE_OK && i < generations.size(); ++i) {
            rc = impl_->add_generation(run, generations[i], now_s);
        }
        rc = rc == SQLITE_OK ? statements.recent.fold(run.summary().keys_changed, now_s) : rc;
        rc = rc == SQLITE_OK ? statements.rollups.forget_oldest(retention_, now_s) : rc;
        return rc == SQLITE_OK ? statements.unsent.tidy(statements.rollups.forgotten_hour_s()) : rc;
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
        int rc = impl_->flushes.recent.fold_generation(uid);
        if (rc == SQLITE_OK) {
            rc = impl_->get(kInsertClosed).bind(1, uid).bind(2, int64_t{0}).bind(3, now_s).run();
        }
        if (rc == SQLITE_OK) {
            rc = impl_->get(kDeleteBaselines).bind(1, uid).run();
        }
        return rc == SQLITE_OK ? impl_->get(kDeleteCodeBaselines).bind(1, uid).run() : rc;
    });
}

Result<UsageBatch> UsageStore::unsent(size_t keys_max, int64_t now_s) {
    if (const Result<void> there = follow_name(); !there) {
        return tl::unexpected(there.error());
    }
    UsageBatch batch;
    UnsentRows& rows = impl_->flushes.unsent;
    if (rows.take(keys_max, now_s, batch) != SQLITE_OK) {
        return tl::unexpected(impl_->database.last_error("reading what is to be sent"));
    }
    impl_->flushes.recent.set_mark(rows.mark());
    return batch;
}

Result<void> UsageStore::note_sent(const UsageBatch& batch, uint64_t number) {
    if (const Result<void> there = follow_name(); !there) {
        return tl::unexpected(there.error());
    }
    return impl_->transact("noting what was sent",
                           [&] { return impl_->flushes.unsent.note_sent(batch, number); });
}

Result<void> UsageStore::send_anew(const UsageBatch& batch, uint64_t number) {
    if (const Result<void> there = follow_name(); !there) {
        return tl::unexpected(there.error());
    }
    return impl_->transact("noting that all is to be sent",
                           [&] { return impl_->flushes.unsent.begin_anew(batch, number); });
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
