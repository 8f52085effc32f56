#include "source/sqlite_file.h"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <set>
#include <utility>

#include "shm/scope_name.h"
#include "source/file_lock.h"
#include "source/key_rules.h"
#include "source/key_set_limits.h"
#include "source/sqlite_changes.h"
#include "source/sqlite_connection.h"
#include "source/sqlite_key_set.h"
#include "source/sqlite_scan.h"
#include "source/sqlite_schema.h"
#include "source/yaml_events.h"

namespace apikeyd {

namespace {

constexpr std::string_view kDoingRead = "reading keys";
constexpr std::string_view kDoingChange = "changing it";

/// What only all rows together show: the first so many environments and branches are taken.
class WholeSet {
  public:
    explicit WholeSet(size_t scopes) : scopes_(scopes) {}

    /// What keeps the row from the set.
    std::optional<std::string> fault(const KeyRow& row) {
        if (!row.environment.empty() && !environments_.contains(row.environment)) {
            if (environments_.size() == kEnvironmentsMax) {
                overfull_ = true;
                return "environment: " + environments_fault(row.environment);
            }
            environments_.insert(row.environment);
        }
        if (row.terms == nullptr || row.terms == seen_) {
            return std::nullopt;
        }
        for (const std::string& scope : row.terms->scopes) {
            if (!apikey::shm::is_branch(scope) || branches_.contains(scope)) {
                continue;
            }
            if (scopes_ + branches_.size() == kScopesMax) {
                overfull_ = true;
                return "scopes: " + yaml_quote(scope) + " is one too many (want at most " +
                       std::to_string(kScopesMax) + " names and branches)";
            }
            branches_.insert(scope);
        }
        seen_ = row.terms;
        return std::nullopt;
    }
    [[nodiscard]] bool overfull() const { return overfull_; }

  private:
    size_t scopes_;
    std::set<std::string, std::less<>> environments_, branches_;
    std::shared_ptr<const KeyTerms> seen_;
    bool overfull_ = false;
};

/// All that is read while it lives is of one moment.
struct Reading {
    KeyStoreConnection* connection;
    Transaction transaction;
    Position now;
};

}  // namespace

struct SqliteFile::Impl {
    std::unique_ptr<KeyStoreConnection> reader, writer;
    /// The last load left rows out for want of room: which ones depends on all others, so all are read anew.
    bool overfull = false;

    /// A connection to what stands under the name now.
    template <typename Open>
    static Result<KeyStoreConnection*> current(std::unique_ptr<KeyStoreConnection>& connection,
                                               const Open& open) {
        if (connection == nullptr || connection->database.file_was_replaced()) {
            connection.reset();  // first: a connection's end tidies up by name
            auto opened = KeyStoreConnection::open(open());
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
        Result<Transaction> transaction = Transaction::begin((*connection)->database, "BEGIN", kDoingRead);
        if (!transaction) {
            return tl::unexpected(transaction.error());
        }
        const Result<Position> now = (*connection)->position();
        if (!now) {
            return tl::unexpected(now.error());
        }
        return Reading{*connection, *std::move(transaction), *now};
    }
    Result<KeyStoreConnection*> to_write(const std::string& path, Database::Missing missing) {
        return current(writer, [&] { return Database::open_writable(kKeyStore, path, missing); });
    }

    Result<SourceContent> load(KeyStoreConnection& connection, const std::string& path, const Position& now,
                               const RowSink& sink);
    static Result<Rewrite> carry_out(KeyStoreConnection& connection, const Edit& edit,
                                     Transaction& transaction);
};

SqliteFile::SqliteFile(std::string path) : path_(std::move(path)), impl_(std::make_unique<Impl>()) {}
SqliteFile::~SqliteFile() = default;

Result<SourceContent> SqliteFile::Impl::load(KeyStoreConnection& connection, const std::string& path,
                                             const Position& now, const RowSink& sink) {
    RowWarnings warnings(connection.database.named());
    SourceContent content{.fingerprint = fingerprint_of(now)};
    content.policies = connection.policies.load(
        [&](const auto& table, const auto& row, const auto& what) { warnings.add(table, row, what); });
    connection.reader.forget();
    WholeSet whole(content.policies.scopes.size());
    uint64_t read = 0;
    const Result<void> scanned = scan_keys(connection, path, now, [&](ScannedRow& scanned_row) {
        tl::expected<KeyRow, std::string>& row = scanned_row.row;
        if (++read > kKeySetRowsMax) {
            return;
        }
        if (row) {
            if (auto fault = whole.fault(*row)) {
                scanned_row.name = "id " + row->id;
                row = tl::unexpected(*std::move(fault));
            }
        }
        if (!row) {
            warnings.add("keys", scanned_row.name, row.error());
            return;
        }
        ++content.keys;
        sink(*row);
    });
    if (!scanned) {
        return tl::unexpected(scanned.error());
    }
    if (read > kKeySetRowsMax) {
        return fail(connection.database.named() + ": " + std::to_string(read) + " keys (the limit is " +
                    std::to_string(kKeySetRowsMax) + ")");
    }
    if (const Result<void> policies = connection.policies_read(); !policies) {
        return tl::unexpected(policies.error());
    }
    overfull = whole.overfull();
    content.left_out = warnings.count();
    content.warnings = warnings.take();
    return content;
}

Result<std::optional<SourceContent>> SqliteFile::load(const std::optional<Fingerprint>& unless,
                                                      const RowSink& sink) {
    const Result<Reading> reading = impl_->begin_read(path_);
    if (!reading) {
        return tl::unexpected(reading.error());
    }
    if (unless == fingerprint_of(reading->now) && !impl_->overfull) {
        return std::nullopt;
    }
    auto content = impl_->load(*reading->connection, path_, reading->now, sink);
    if (!content) {
        return tl::unexpected(content.error());
    }
    return *std::move(content);
}

Result<std::optional<SourceChanges>> SqliteFile::changes_since(const Fingerprint& since) {
    const Result<Reading> reading = impl_->begin_read(path_);
    if (!reading) {
        return tl::unexpected(reading.error());
    }
    if (impl_->overfull) {
        return std::nullopt;
    }
    return changes_between(*reading->connection, position_of(since), reading->now);
}

Result<std::optional<KeyRow>> SqliteFile::find(std::string_view id) {
    const Result<Reading> reading = impl_->begin_read(path_);
    if (!reading) {
        return tl::unexpected(reading.error());
    }
    return reading->connection->key(id);
}

/// Edits, and commits what has changed.
Result<Rewrite> SqliteFile::Impl::carry_out(KeyStoreConnection& connection, const Edit& edit,
                                            Transaction& transaction) {
    const Result<Position> before = connection.position();
    if (!before) {
        return tl::unexpected(before.error());
    }
    Result<SqliteKeySet> set = SqliteKeySet::prepare(connection);
    if (!set) {
        return tl::unexpected(set.error());
    }
    const int64_t rows_before = connection.database.rows_changed_ever();
    Result<void> edited = edit(*set);
    if (edited) {
        edited = set->read_whole();
    }
    if (!edited) {
        return tl::unexpected(edited.error());
    }
    Rewrite rewrite{fingerprint_of(*before), fingerprint_of(*before), false};
    if (connection.database.rows_changed_ever() == rows_before) {
        transaction.roll_back();
        return rewrite;
    }
    const Result<Position> after = connection.position();
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
    const Result<KeyStoreConnection*> opened = impl_->to_write(path_, missing);
    if (!opened) {
        return tl::unexpected(opened.error());
    }
    KeyStoreConnection& connection = **opened;
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    connection.database.wait_for_locks(static_cast<uint32_t>(std::max<int64_t>(left, 0)));
    Result<Transaction> transaction =
        Transaction::begin(connection.database, "BEGIN IMMEDIATE", kDoingChange);
    if (!transaction) {
        return tl::unexpected(transaction.error());
    }
    const Result<Rewrite> done = impl_->carry_out(connection, edit, *transaction);
    connection.forget();
    if (done && options.then_locked) {
        options.then_locked(*done);
    }
    return done;
}

}  // namespace apikeyd
