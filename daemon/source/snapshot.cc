#include "source/snapshot.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <mutex>
#include <span>
#include <string_view>
#include <utility>

#include "base/clock.h"
#include "base/errno_text.h"
#include "base/owned_fd.h"
#include "source/key_columns.h"
#include "source/rfc3339.h"
#include "source/snapshot_fill.h"
#include "source/snapshot_rows.h"
#include "source/snapshot_schema.h"
#include "source/sql_load.h"
#include "sqlite/sql_connection.h"

namespace apikeyd {

using namespace snapshot_rows;

namespace {

/// So often the time is written when nothing else is.
constexpr int64_t kTakenInterval_s = 60;
/// After so many failures to write what changed another one is made: it may be damaged.
constexpr int kFailuresMax = 3;

int64_t now_s() {
    return static_cast<int64_t>(realtime_now_ns() / 1'000'000'000);
}

}  // namespace

Result<void> check_snapshot_place(const std::string& path) {
    struct stat status {};
    if (lstat(path.c_str(), &status) != 0) {
        return errno == ENOENT ? Result<void>()
                               : fail(named(path) + ": cannot be examined: " + errno_text(errno));
    }
    if (!S_ISREG(status.st_mode)) {
        return fail(named(path) + ": is no regular file; name a file of its own");
    }
    if (status.st_size == 0) {
        return {};
    }
    // By its first bytes alone: of one that is damaged or newer these are ours as well.
    constexpr std::string_view kMagic("SQLite format 3\0", 16);
    constexpr size_t kApplicationIdAt = 68;
    std::array<uint8_t, 72> head{};
    const OwnedFd file(open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    if (!file.is_open() || pread(file.get(), head.data(), head.size(), 0) < 0) {
        return fail(named(path) + ": cannot be read: " + errno_text(errno));
    }
    int64_t application_id = 0;
    for (size_t i = 0; i < 4; ++i) {
        application_id = application_id << 8 | head[kApplicationIdAt + i];
    }
    if (std::memcmp(head.data(), kMagic.data(), kMagic.size()) != 0 ||
        application_id != kSnapshotApplicationId) {
        return fail(named(path) +
                    ": is another program's file, which is left alone; name another one, or move it away");
    }
    return {};
}

struct Snapshot::Impl {
    explicit Impl(SnapshotOptions given) : options(std::move(given)) {}

    struct StagedChanges {
        Fingerprint since{};
        SourceChanges changes;
    };

    const SnapshotOptions options;

    // The reader's.
    bool filling = false;                ///< all rows follow
    std::unique_ptr<SnapshotFill> fill;  ///< made with the first
    std::optional<Fingerprint> filled;   ///< the fill is whole, and of this
    std::optional<StagedChanges> staged;
    int64_t read_s = 0;  ///< when the last read began
    std::optional<Error> unusable;

    mutable std::mutex mutex;
    // Under it.
    std::unique_ptr<SqliteConnection> connection;
    SqlStatementPtr put;               // after the connection: finalized first
    std::optional<Standing> standing;  ///< of what is open; nullopt for one that cannot be gone on with
    std::vector<Tightened> meanwhile;  ///< since the last read began
    int64_t known_s = 0;               ///< when the source was last known to say what stands there
    std::string problem;
    int failures = 0;  ///< to write, one behind the other

    void note(const Result<void>& done) {
        problem = done ? std::string() : done.error().message;
        failures = done ? 0 : failures + 1;
        if (!done) {
            close();
        }
    }
    void close() {
        put.reset();
        connection.reset();
        standing.reset();
    }
    void forget_staged() {
        filling = false;
        fill.reset();
        filled.reset();
        staged.reset();
    }
    /// The first failure ends it.
    template <typename Step>
    void fill_up(const Step& step) {
        if (!filling) {
            return;
        }
        Result<void> done;
        if (fill == nullptr) {
            auto begun = SnapshotFill::begin(options.path);
            done = begun ? Result<void>() : tl::unexpected(begun.error());
            if (begun) {
                fill = *std::move(begun);
            }
        }
        if (done) {
            done = step(*fill);
        }
        if (!done) {
            filling = false;
            fill.reset();
            const std::lock_guard lock(mutex);
            problem = done.error().message;
        }
    }
    bool open();
    Result<void> write(const std::function<Result<void>()>& change);
    Result<void> take_changes(const std::vector<KeyRow>& rows, const std::vector<KeyRow>& gone);
    Result<void> take_staged(const Fingerprint& name);
    Result<void> end_old_file();
    Result<void> replace(const Fingerprint& name);
    Result<void> write_taken(int64_t taken_s);
    Result<Database> open_to_read() const;
    Result<SnapshotContent> load(const RowSink& sink) const;
};

/// False where there is none to go on with; a fill makes one.
bool Snapshot::Impl::open() {
    if (connection != nullptr && !connection->database().file_was_replaced()) {
        return standing.has_value();
    }
    close();
    struct stat status {};
    if (lstat(options.path.c_str(), &status) != 0 && errno == ENOENT) {
        return false;
    }
    // SQLite takes a file of a few bytes for an empty one of its own.
    if (const Result<void> ours = check_snapshot_place(options.path); !ours) {
        note(ours);
        return false;
    }
    Result<Database> opened = Database::open_writable(kSnapshot, options.path, Database::Missing::kIsAnError);
    if (!opened) {
        note(tl::unexpected(opened.error()));
        return false;
    }
    connection = std::make_unique<SqliteConnection>(*std::move(opened));
    auto found = read_standing(*connection);
    auto prepared = prepare_put_key(*connection);
    if (prepared) {
        put = *std::move(prepared);  // ends before the connection, also where that is of no use
    }
    if (!found || !prepared) {
        note(tl::unexpected(!found ? found.error() : prepared.error()));
        return false;
    }
    if (*found && (*found)->source == options.source) {
        standing = **std::move(found);
    }
    return standing.has_value();
}

/// All of `change` or nothing.
Result<void> Snapshot::Impl::write(const std::function<Result<void>()>& change) {
    Result<SqlTransaction> transaction = SqlTransaction::begin(*connection, "BEGIN IMMEDIATE", kDoingWrite);
    if (!transaction) {
        return tl::unexpected(transaction.error());
    }
    if (Result<void> done = change(); !done) {
        return done;
    }
    return transaction->commit(kDoingWrite);
}

Result<void> Snapshot::Impl::take_changes(const std::vector<KeyRow>& rows, const std::vector<KeyRow>& gone) {
    SqlStatementPtr erase;
    Result<void> done = prepare(*connection, {{&erase, "DELETE FROM keys WHERE sha256 = ?1"}});
    for (auto row = gone.begin(); done && row != gone.end(); ++row) {
        erase->bind(1, std::span<const uint8_t>(row->digest));
        done = run_writing(*connection, *erase);
    }
    for (auto row = rows.begin(); done && row != rows.end(); ++row) {
        done = put_key(*connection, *put, *row);
    }
    return done;
}

Result<void> Snapshot::Impl::take_staged(const Fingerprint& name) {
    Standing next{options.source, name, read_s};
    Result<void> done = write([&]() -> Result<void> {
        const SourceChanges& changes = staged->changes;
        Result<void> taken = changes.policies ? put_policies(*connection, *changes.policies) : Result<void>();
        if (taken) {
            taken = take_changes(changes.rows, changes.gone);
        }
        if (taken) {
            taken = tighten(*connection, meanwhile);
        }
        return taken ? write_standing(*connection, next) : taken;
    });
    if (done) {
        standing = std::move(next);
    }
    return done;
}

/// A log that stays beside the old file would be taken for the new one's.
Result<void> Snapshot::Impl::end_old_file() {
    close();
    if (Result<void> ours = check_snapshot_place(options.path); !ours) {
        return ours;
    }
    struct stat status {};
    const bool is_there = lstat(options.path.c_str(), &status) == 0 && status.st_size != 0;
    if (is_there) {
        const Result<Database> old =
            Database::open_writable(kSnapshot, options.path, Database::Missing::kIsAnError);
        Result<Statement> mode =
            old ? old->prepare("PRAGMA journal_mode = DELETE") : tl::unexpected(old.error());
        if (old && mode && mode->step() == SQLITE_ROW && mode->column_text(0) != "delete") {
            return fail(named(options.path) + ": another program has it open; close it there");
        }
        if (!old || !mode) {  // damaged, or newer: nobody can use it
            if (unlink(options.path.c_str()) != 0 && errno != ENOENT) {
                return fail(named(options.path) + ": cannot be replaced: " + errno_text(errno));
            }
        }
    }
    for (const char* tail : {"-wal", "-shm", "-journal"}) {
        unlink((options.path + tail).c_str());
    }
    return {};
}

Result<void> Snapshot::Impl::replace(const Fingerprint& name) {
    Result<void> done = fill->finish({options.source, name, read_s}, meanwhile);
    if (done) {
        done = end_old_file();
    }
    return done ? fill->take_its_place() : done;
}

Result<void> Snapshot::Impl::write_taken(int64_t taken_s) {
    Standing next = *standing;
    next.taken_s = taken_s;
    Result<void> done = write([&] { return write_standing(*connection, next); });
    if (done) {
        standing = std::move(next);
    }
    return done;
}

/// Who was killed may have left something to be taken back, which needs the right to write.
Result<Database> Snapshot::Impl::open_to_read() const {
    const std::lock_guard lock(mutex);
    if (connection == nullptr) {
        if (const Result<void> ours = check_snapshot_place(options.path); !ours) {
            return tl::unexpected(ours.error());
        }
        static_cast<void>(Database::open_writable(kSnapshot, options.path, Database::Missing::kIsAnError));
    }
    return Database::open_read_only(kSnapshot, options.path);
}

Result<SnapshotContent> Snapshot::Impl::load(const RowSink& sink) const {
    Result<Database> database = open_to_read();
    if (!database) {
        return tl::unexpected(database.error());
    }
    auto store = SqlKeyStore::open(std::make_unique<SqliteConnection>(*std::move(database)), false);
    if (!store) {
        return tl::unexpected(store.error());
    }
    const SqlConnection& reader = *(*store)->connection;
    const Result<SqlTransaction> transaction = SqlTransaction::begin(reader, "BEGIN", kDoingRead);
    if (!transaction) {
        return tl::unexpected(transaction.error());
    }
    const auto found = read_standing(reader);
    if (!found) {
        return tl::unexpected(found.error());
    }
    if (!*found) {
        return fail(reader.named() + ": is not whole; a load of the source makes another");
    }
    if ((*found)->source != options.source) {
        return fail(reader.named() + ": is of another source, " + (*found)->source + ", and not used");
    }
    // A clock that was set back since tells no age.
    if (now_s() - (*found)->taken_s > options.max_age_s) {
        return fail(reader.named() + ": is of " + format_rfc3339((*found)->taken_s) +
                    ", which is longer ago than snapshot.max_age_h, and not used");
    }
    const Result<SqlStatementPtr> rows = reader.prepare(std::string(kSelectKeySql) + " ORDER BY rowid");
    if (!rows) {
        return tl::unexpected(rows.error());
    }
    auto loaded = load_key_set(
        **store, (*found)->fingerprint,
        [&](const std::function<void(ScannedRow&)>& visit) -> Result<void> {
            const SqlResetGuard guard(**rows);
            SqlStep step = (*rows)->step();
            for (; step == SqlStep::kRow; step = (*rows)->step()) {
                ScannedRow scanned = scan_row(**store, key_columns(**rows));
                visit(scanned);
            }
            return step == SqlStep::kDone ? Result<void>() : Result<void>((*store)->failed(kDoingRead));
        },
        sink);
    if (!loaded) {
        return tl::unexpected(loaded.error());
    }
    return SnapshotContent{std::move(loaded->content), (*found)->taken_s};
}

Snapshot::Snapshot(SnapshotOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
Snapshot::~Snapshot() = default;

const std::string& Snapshot::path() const {
    return impl_->options.path;
}

Result<SnapshotContent> Snapshot::load(const RowSink& sink) {
    if (impl_->unusable) {
        return tl::unexpected(*impl_->unusable);
    }
    auto loaded = impl_->load(sink);
    if (!loaded) {
        impl_->unusable = loaded.error();
    }
    return loaded;
}

void Snapshot::begin_read() {
    impl_->forget_staged();
    impl_->read_s = now_s();
    const std::lock_guard lock(impl_->mutex);
    impl_->meanwhile.clear();
}

std::optional<Fingerprint> Snapshot::stands_at() {
    const std::lock_guard lock(impl_->mutex);
    return impl_->open() && impl_->failures < kFailuresMax ? std::optional(impl_->standing->fingerprint)
                                                           : std::nullopt;
}

void Snapshot::begin_all() {
    impl_->fill.reset();
    impl_->filling = true;
}

void Snapshot::add(const KeyRow& row) {
    impl_->fill_up([&](SnapshotFill& fill) { return fill.add(row); });
}

void Snapshot::stage_all(const SourceContent& content) {
    impl_->fill_up([&](SnapshotFill& fill) { return fill.end(content.policies); });
    if (impl_->filling) {
        impl_->filled = content.fingerprint;
    }
}

void Snapshot::stage_changes(const Fingerprint& since, const SourceChanges& changes) {
    impl_->staged.emplace(Impl::StagedChanges{since, changes});
}

void Snapshot::in_force(const Fingerprint& name) {
    Impl& impl = *impl_;
    const std::lock_guard lock(impl.mutex);
    if (impl.filled == name) {
        impl.note(impl.replace(name));
        impl.unusable.reset();
    }
    if (impl.open()) {
        if (impl.staged && impl.staged->changes.fingerprint == name &&
            impl.staged->since == impl.standing->fingerprint) {
            impl.note(impl.take_staged(name));
        }
        if (impl.standing && impl.standing->fingerprint == name) {
            impl.known_s = impl.read_s;
            if (impl.known_s - impl.standing->taken_s >= kTakenInterval_s ||
                impl.standing->taken_s > impl.known_s) {
                impl.note(impl.write_taken(impl.known_s));
            }
        }
    }
    impl.forget_staged();
}

bool Snapshot::made(const std::vector<MadeChanges>& changes) {
    Impl& impl = *impl_;
    const std::lock_guard lock(impl.mutex);
    const size_t first = impl.meanwhile.size();
    for (const MadeChanges& change : changes) {
        for (const KeyRow& row : change.rows) {
            if (row.state == KeyState::kRevoked) {
                impl.meanwhile.push_back({row.digest, false});
            }
        }
        for (const KeyRow& row : change.gone) {
            impl.meanwhile.push_back({row.digest, true});
        }
    }
    if (!impl.open()) {
        return false;
    }
    bool all = true;
    Standing next = *impl.standing;
    const Result<void> done = impl.write([&] {
        const auto begin = impl.meanwhile.begin() + static_cast<ptrdiff_t>(first);
        Result<void> taken = tighten(*impl.connection, {begin, impl.meanwhile.end()});
        for (auto change = changes.begin(); taken && change != changes.end(); ++change) {
            if (change->before == next.fingerprint) {
                taken = impl.take_changes(change->rows, change->gone);
                next.fingerprint = change->after;
            } else {
                all = all && std::all_of(change->rows.begin(), change->rows.end(),
                                         [](const KeyRow& row) { return row.state == KeyState::kRevoked; });
            }
        }
        return taken ? write_standing(*impl.connection, next) : taken;
    });
    if (done) {
        impl.standing = std::move(next);
    }
    impl.note(done);
    return all && done;
}

void Snapshot::close() {
    Impl& impl = *impl_;
    const std::lock_guard lock(impl.mutex);
    if (impl.open() && impl.known_s > impl.standing->taken_s) {
        impl.note(impl.write_taken(impl.known_s));
    }
    impl.close();
}

std::string Snapshot::problem() const {
    const std::lock_guard lock(impl_->mutex);
    return impl_->problem;
}

}  // namespace apikeyd
