#include "source/postgres_store.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <random>
#include <utility>

#include "base/hex.h"
#include "postgres/connection.h"
#include "postgres/place.h"
#include "source/postgres_position.h"
#include "source/sql_changes.h"
#include "source/sql_key_set.h"
#include "source/sql_load.h"

namespace apikeyd {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::string_view kDoingRead = "reading keys";
constexpr std::string_view kDoingChange = "changing it";
constexpr std::string_view kDoingTell = "telling the fleet what is in force";

/// Of one snapshot, that is taken when the tables are locked: one that is truncated meanwhile would look
/// empty. A lock that is not given in time is given up, and not left to wait on when this end has gone. Scans
/// of a table begin at its beginning: which rows are left out for want of room is not left to chance.
constexpr std::string_view kBeginRead =
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL search_path = pg_catalog, apikeyd; "
    "SET LOCAL synchronize_seqscans = off; SET LOCAL lock_timeout = '10s'; LOCK TABLE apikeyd.store, "
    "apikeyd.changes, apikeyd.keys, apikeyd.plans, apikeyd.owners, apikeyd.scopes IN ACCESS SHARE MODE";
/// Each statement sees what was committed before it: who waited for a row sees it as it has become.
constexpr std::string_view kBeginChange =
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL search_path = pg_catalog, apikeyd; "
    "SET LOCAL lock_timeout = ";
/// One of apikeyctl at a time, in the fleet. Any number that other programs do not use.
constexpr std::string_view kTakeTurn = "; SELECT pg_advisory_xact_lock(x'6170696b65796374'::bigint)";

constexpr std::string_view kCopySql =
    "COPY (SELECT id, sha256, state, expires, plan, limits, addresses, environment, owner, name, created, "
    "\"foreign\"::bigint, scopes, metadata, rowid FROM keys) TO STDOUT (FORMAT binary)";
constexpr size_t kCopyColumns = 15;
constexpr int64_t kPageRows = 1000;
/// What changed nothing may be committed, too.
constexpr std::string_view kTellSql =
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = '1s'; "
    "SELECT apikeyd.tell_in_force(?1, ?2, ?3, ?4::bigint, ?5, ?6::pg_snapshot)::int; COMMIT";
/// So often, in rows of the log, each daemon has the server shorten it.
constexpr int64_t kTrimRows = 10'000;
constexpr const char* kTrim =
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = '1s'; "
    "SELECT apikeyd.trim_changes(); COMMIT";

constexpr milliseconds kPauseMin{250};
constexpr milliseconds kPauseMax{10'000};

using CopyFields = std::span<const std::optional<std::string_view>>;

KeyColumns columns_of(CopyFields fields) {
    const auto number = [&](size_t column) { return copied_int<int64_t>(fields[column]); };
    return {fields[0],  fields[1],  fields[2],  number(3),  fields[4],
            fields[5],  fields[6],  fields[7],  fields[8],  fields[9],
            number(10), number(11), fields[12], fields[13], number(14).value_or(0)};
}

/// All that is read while it lives is of one moment.
struct Reading {
    SqlKeyStore* store;
    SqlTransaction transaction;
    PostgresLook seen;
};

}  // namespace

struct PostgresStore::Impl {
    Impl(std::string uri_place, std::optional<ServingHost> serving)
        : place(std::move(uri_place)), host(std::move(serving)) {}

    struct Connected {
        std::unique_ptr<SqlKeyStore> store;
        PostgresConnection* connection = nullptr;
    };

    std::string place;
    std::optional<ServingHost> host;
    std::string told;  // the snapshot
    Clock::time_point told_at{};
    /// Relaxed: a flag that is looked at every 100 ms, and nothing goes with it.
    const std::shared_ptr<std::atomic<bool>> stopping = std::make_shared<std::atomic<bool>>(false);
    Connected reader, writer;
    PostgresPositions positions;
    bool overfull = false;  ///< see LoadedSet
    bool trims = false;     ///< the log has grown; when what it told is in force
    // After a failure to connect.
    std::optional<Error> failure;
    Clock::time_point again{};
    milliseconds pause = kPauseMin;
    std::minstd_rand chance{std::random_device{}()};

    Result<SqlKeyStore*> current(Connected& connected, bool for_change, uint32_t lock_wait_ms_max = 0) {
        if (connected.store != nullptr && !connected.connection->broken()) {
            return connected.store.get();
        }
        connected = {};
        if (failure && Clock::now() < again) {
            return tl::unexpected(*failure);
        }
        PostgresOptions options;
        options.stopping = stopping;
        options.answer_wait_ms_max += lock_wait_ms_max;
        auto opened = PostgresConnection::open(place, options);
        if (!opened) {
            note_failure(opened.error());
            return tl::unexpected(opened.error());
        }
        failure.reset();
        pause = kPauseMin;
        connected.connection = opened->get();
        auto store = SqlKeyStore::open(*std::move(opened), for_change);
        if (!store) {
            return tl::unexpected(store.error());
        }
        connected.store = *std::move(store);
        return connected.store.get();
    }
    void note_failure(const Error& error) {
        failure = error;
        again = Clock::now() + milliseconds(std::uniform_int_distribution<int64_t>(pause.count() / 2,
                                                                                   pause.count())(chance));
        pause = std::min(2 * pause, kPauseMax);
    }

    Result<Reading> begin_read(const PostgresPosition* since = nullptr) {
        const Result<SqlKeyStore*> store = current(reader, false);
        if (!store) {
            return tl::unexpected(store.error());
        }
        SqlTransaction transaction = SqlTransaction::of(*(*store)->connection);
        Result<PostgresLook> seen = look(**store, kBeginRead, since);
        if (!seen) {
            return tl::unexpected(seen.error());
        }
        (*store)->forget();
        return Reading{*store, std::move(transaction), *std::move(seen)};
    }

    Result<void> tell(const Fingerprint& name);

    Result<void> scan(SqlKeyStore& store, const std::function<void(ScannedRow&)>& visit) const {
        bool sound = true;
        const Result<void> copied = reader.connection->copy_out(kCopySql, [&](CopyFields fields) {
            sound = fields.size() == kCopyColumns;
            if (sound) {
                ScannedRow row = scan_row(store, columns_of(fields));
                visit(row);
            }
            return sound;
        });
        return copied && !sound ? fail(store.connection->named() + ": answers other columns than were asked")
                                : copied;
    }
};

PostgresStore::PostgresStore(std::string place, std::optional<ServingHost> host)
    : shown_(shown_place(place)), impl_(std::make_unique<Impl>(std::move(place), std::move(host))) {}
PostgresStore::~PostgresStore() = default;

Result<std::optional<SourceContent>> PostgresStore::load(const std::optional<Fingerprint>& unless,
                                                         const RowSink& sink) {
    // The same content has one name.
    Fingerprint name = unless.value_or(impl_->positions.latest());
    Result<Reading> reading = impl_->begin_read(impl_->positions.find(name));
    if (!reading) {
        return tl::unexpected(reading.error());
    }
    SqlKeyStore& store = *reading->store;
    PostgresLook& seen = reading->seen;
    const bool is_known = seen.log && seen.log->empty();
    if (is_known && unless && !impl_->overfull) {
        impl_->positions.note(name, std::move(seen.now));
        return std::nullopt;
    }
    if (!is_known) {
        name = unknown_fingerprint();
    }
    auto loaded = load_key_set(
        store, name, [&](const auto& visit) { return impl_->scan(store, visit); }, sink);
    if (!loaded) {
        return tl::unexpected(loaded.error());
    }
    impl_->overfull = loaded->overfull;
    impl_->positions.note(name, std::move(seen.now));
    return std::move(loaded->content);
}

Result<std::optional<SourceChanges>> PostgresStore::changes_since(const Fingerprint& since) {
    const PostgresPosition* then = impl_->overfull ? nullptr : impl_->positions.find(since);
    if (then == nullptr) {
        return std::nullopt;
    }
    Result<Reading> reading = impl_->begin_read(then);
    if (!reading) {
        return tl::unexpected(reading.error());
    }
    PostgresLook& seen = reading->seen;
    if (!seen.log) {
        return std::nullopt;
    }
    if (seen.log->empty()) {
        impl_->positions.note(since, std::move(seen.now));
        return SourceChanges{.fingerprint = since};
    }
    const Fingerprint name = unknown_fingerprint();
    auto changes = read_changes(*reading->store, *seen.log, name);
    if (changes && *changes) {
        impl_->trims |= then->last / kTrimRows != seen.now.last / kTrimRows;
        impl_->positions.note(name, std::move(seen.now));
    }
    return changes;
}

void PostgresStore::stop() {
    impl_->stopping->store(true, std::memory_order_relaxed);
}

Result<void> PostgresStore::Impl::tell(const Fingerprint& name) {
    const PostgresPosition* position = host ? positions.find(name) : nullptr;
    if (position == nullptr || reader.store == nullptr ||
        (told == position->snapshot && Clock::now() - told_at < milliseconds(host->silent_ms_max / 3))) {
        return {};
    }
    const SqlKeyStore& store = *reader.store;
    const ServingHost& self = *host;
    const SqlTransaction transaction = SqlTransaction::of(*store.connection);
    const Result<SqlStatementPtr> prepared = store.connection->prepare(kTellSql);
    if (!prepared) {
        return tl::unexpected(prepared.error());
    }
    SqlStatement& row = **prepared;
    row.bind(1, self.name).bind(2, self.version).bind(3, self.place_id).bind(4, int64_t{self.silent_ms_max});
    if (row.bind(5, position->identity).bind(6, position->snapshot).step() != SqlStep::kRow) {
        return store.failed(kDoingTell);
    }
    if (row.column_int(0) == 0) {
        return fail(store.connection->named() + ": another daemon tells the fleet as host '" + self.name +
                    "'; give one of them another name (host in its configuration)");
    }
    told = position->snapshot;
    told_at = Clock::now();
    return {};
}

Result<void> PostgresStore::note_in_force(const Fingerprint& name) {
    Result<void> told = impl_->tell(name);
    if (impl_->reader.store != nullptr && std::exchange(impl_->trims, false)) {
        const SqlConnection& connection = *impl_->reader.store->connection;
        if (!connection.execute(kTrim) && connection.in_transaction()) {
            connection.execute("ROLLBACK");  // another time
        }
    }
    return told;
}

Result<std::optional<KeyRow>> PostgresStore::find(std::string_view id) {
    const Result<Reading> reading = impl_->begin_read();
    if (!reading) {
        return tl::unexpected(reading.error());
    }
    return reading->store->key(id);
}

Result<void> PostgresStore::visit_keys(std::string_view after,
                                       const std::function<bool(const KeyRow& row)>& visit) {
    const Result<Reading> reading = impl_->begin_read();
    if (!reading) {
        return tl::unexpected(reading.error());
    }
    SqlKeyStore& store = *reading->store;
    const Result<SqlStatementPtr> prepared =
        store.connection->prepare(std::string(kSelectKeySql) + " WHERE id > ?1 ORDER BY id LIMIT ?2::bigint");
    if (!prepared) {
        return tl::unexpected(prepared.error());
    }
    SqlStatement& rows = **prepared;
    std::string last(after);
    for (int64_t read = kPageRows; read == kPageRows;) {
        const SqlResetGuard guard(rows);
        const std::string from = last;
        read = 0;
        SqlStep step = rows.bind(1, from).bind(2, kPageRows).step();
        for (; step == SqlStep::kRow; step = rows.step(), ++read) {
            const KeyColumns columns = key_columns(rows);
            last = columns.id.value_or("");
            const auto row = store.reader.read(columns);
            if (row && !visit(*row)) {
                return store.policies_read();
            }
        }
        if (step == SqlStep::kFailed) {
            return store.failed(kDoingRead);
        }
    }
    return store.policies_read();
}

Result<Rewrite> PostgresStore::change(const Edit& edit, const ChangeOptions& options) {
    const Result<SqlKeyStore*> opened = impl_->current(impl_->writer, true, options.lock_wait_ms_max);
    if (!opened) {
        return tl::unexpected(opened.error());
    }
    SqlKeyStore& store = **opened;
    const std::string begin =
        std::string(kBeginChange) + std::to_string(options.lock_wait_ms_max) + std::string(kTakeTurn);
    SqlTransaction transaction = SqlTransaction::of(*store.connection);
    if (const auto standing = look(store, begin, nullptr); !standing) {
        return tl::unexpected(standing.error());
    }
    store.forget();
    Result<SqlKeySet> set = SqlKeySet::prepare(store);
    if (!set) {
        return tl::unexpected(set.error());
    }
    Result<void> done = edit(*set);
    if (done) {
        done = set->read_whole();
    }
    if (done && set->rows_written() != 0) {
        done = transaction.commit(kDoingChange);
    }
    if (!done) {
        return tl::unexpected(done.error());
    }
    transaction.roll_back();  // nothing, where nothing was written: others need not wait for the daemon
    // No other's word for what was and is: each daemon knows its own.
    const Rewrite rewrite{unknown_fingerprint(), unknown_fingerprint(), set->rows_written() != 0};
    if (options.then_locked) {
        options.then_locked(rewrite);
    }
    return rewrite;
}

}  // namespace apikeyd
