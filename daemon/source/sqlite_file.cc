#include "source/sqlite_file.h"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "source/file_lock.h"
#include "source/sql_changes.h"
#include "source/sql_key_set.h"
#include "source/sql_load.h"
#include "source/sqlite_key_store.h"
#include "source/sqlite_scan.h"
#include "source/sqlite_schema.h"

namespace apikeyd {

namespace {

constexpr std::string_view kDoingRead = "reading keys";
constexpr std::string_view kDoingChange = "changing it";

/// All that is read while it lives is of one moment.
struct Reading {
    SqliteKeyStore* store;
    SqlTransaction transaction;
    Position now;
};

}  // namespace

struct SqliteFile::Impl {
    std::unique_ptr<SqliteKeyStore> reader, writer;
    /// The last load left rows out for want of room: which ones depends on all others, so all are read anew.
    bool overfull = false;

    /// A connection to what stands under the name now.
    template <typename Open>
    static Result<SqliteKeyStore*> current(std::unique_ptr<SqliteKeyStore>& connection, const Open& open) {
        if (connection == nullptr || connection->database().file_was_replaced()) {
            connection.reset();  // first: a connection's end tidies up by name
            auto opened = SqliteKeyStore::open(open());
            if (!opened) {
                return tl::unexpected(opened.error());
            }
            connection = *std::move(opened);
        }
        return connection.get();
    }
    Result<Reading> begin_read(const std::string& path) {
        const auto connection = current(reader, [&] { return Database::open_read_only(kKeyStore, path); });
        if (!connection) {
            return tl::unexpected(connection.error());
        }
        Result<SqlTransaction> transaction =
            SqlTransaction::begin((*connection)->connection(), "BEGIN", kDoingRead);
        if (!transaction) {
            return tl::unexpected(transaction.error());
        }
        const Result<Position> now = (*connection)->position();
        if (!now) {
            return tl::unexpected(now.error());
        }
        return Reading{*connection, *std::move(transaction), *now};
    }
    Result<SqliteKeyStore*> to_write(const std::string& path, Database::Missing missing) {
        return current(writer, [&] { return Database::open_writable(kKeyStore, path, missing); });
    }

    static Result<Rewrite> carry_out(SqliteKeyStore& store, const Edit& edit, SqlTransaction& transaction);
};

SqliteFile::SqliteFile(std::string path) : path_(std::move(path)), impl_(std::make_unique<Impl>()) {}
SqliteFile::~SqliteFile() = default;

Result<std::optional<SourceContent>> SqliteFile::load(const std::optional<Fingerprint>& unless,
                                                      const RowSink& sink) {
    const Result<Reading> reading = impl_->begin_read(path_);
    if (!reading) {
        return tl::unexpected(reading.error());
    }
    if (unless == fingerprint_of(reading->now) && !impl_->overfull) {
        return std::nullopt;
    }
    SqliteKeyStore& store = *reading->store;
    auto loaded = load_key_set(
        store.keys(), fingerprint_of(reading->now),
        [&](const auto& visit) { return scan_keys(store, path_, reading->now, visit); }, sink);
    if (!loaded) {
        return tl::unexpected(loaded.error());
    }
    impl_->overfull = loaded->overfull;
    if (unless) {
        const auto log = store.log_between(position_of(*unless), reading->now);
        if (!log) {
            return tl::unexpected(log.error());
        }
        loaded->content.is_other_copy = !*log;
    }
    return std::move(loaded->content);
}

Result<std::optional<SourceChanges>> SqliteFile::changes_since(const Fingerprint& since) {
    const Result<Reading> reading = impl_->begin_read(path_);
    if (!reading) {
        return tl::unexpected(reading.error());
    }
    if (impl_->overfull) {
        return std::nullopt;
    }
    const Position then = position_of(since);
    const Fingerprint now = fingerprint_of(reading->now);
    if (then == reading->now) {
        return SourceChanges{.fingerprint = now};
    }
    const auto log = reading->store->log_between(then, reading->now);
    if (!log) {
        return tl::unexpected(log.error());
    }
    return *log ? read_changes(reading->store->keys(), **log, now) : std::nullopt;
}

Result<std::optional<KeyRow>> SqliteFile::find(std::string_view id) {
    const Result<Reading> reading = impl_->begin_read(path_);
    if (!reading) {
        return tl::unexpected(reading.error());
    }
    return reading->store->keys().key(id);
}

/// Edits, and commits what has changed.
Result<Rewrite> SqliteFile::Impl::carry_out(SqliteKeyStore& store, const Edit& edit,
                                            SqlTransaction& transaction) {
    const Result<Position> before = store.position();
    if (!before) {
        return tl::unexpected(before.error());
    }
    Result<SqlKeySet> set = SqlKeySet::prepare(store.keys());
    if (!set) {
        return tl::unexpected(set.error());
    }
    Result<void> edited = edit(*set);
    if (edited) {
        edited = set->read_whole();
    }
    if (!edited) {
        return tl::unexpected(edited.error());
    }
    Rewrite rewrite{fingerprint_of(*before), fingerprint_of(*before), false};
    if (set->rows_written() == 0) {
        transaction.roll_back();
        return rewrite;
    }
    const Result<Position> after = store.position();
    if (!after) {
        return tl::unexpected(after.error());
    }
    rewrite.after = fingerprint_of(*after);
    rewrite.written = true;
    if (const Result<void> committed = transaction.commit(kDoingChange); !committed) {
        return tl::unexpected(committed.error());
    }
    return rewrite;
}

Result<Rewrite> SqliteFile::change(const Edit& edit, const ChangeOptions& options) {
    using Clock = std::chrono::steady_clock;
    const auto deadline = Clock::now() + std::chrono::milliseconds(options.lock_wait_ms_max);
    const auto missing = options.create ? Database::Missing::kIsMade : Database::Missing::kIsAnError;
    if (!options.create) {  // before a lock file is made beside what is no key store
        if (const auto there = impl_->to_write(path_, missing); !there) {
            return tl::unexpected(there.error());
        }
    }
    const auto place = resolve_file(path_);
    const auto lock = place ? take_file_lock(*place, options.lock_wait_ms_max)
                            : Result<OwnedFd>(tl::unexpected(place.error()));
    if (!lock) {
        return tl::unexpected(lock.error());
    }
    const Result<SqliteKeyStore*> opened = impl_->to_write(path_, missing);
    if (!opened) {
        return tl::unexpected(opened.error());
    }
    SqliteKeyStore& store = **opened;
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    store.database().wait_for_locks(static_cast<uint32_t>(std::max<int64_t>(left, 0)));
    Result<SqlTransaction> transaction =
        SqlTransaction::begin(store.connection(), "BEGIN IMMEDIATE", kDoingChange);
    if (!transaction) {
        return tl::unexpected(transaction.error());
    }
    const Result<Rewrite> done = impl_->carry_out(store, edit, *transaction);
    store.keys().forget();
    if (done && options.then_locked) {
        options.then_locked(*done);
    }
    return done;
}

}  // namespace apikeyd
