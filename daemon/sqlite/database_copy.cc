// Whole copies of a database, by SQLite's backup API and not by VACUUM INTO: it copies pages as they are,
// keeps the rowids, which say in which order things were made and which a VACUUM may change, tells how far it
// is, and also works into a database in use. What VACUUM INTO has over it, a smaller file, is not wanted
// here.

#include "sqlite/database.h"

namespace apikeyd {

namespace {

/// 4 MiB at a time.
constexpr int kPagesAStep = 1024;
constexpr std::string_view kDoingCopy = "copying it";

/// A read transaction that keeps to one moment: without it the backup API would begin anew with every commit.
class Snapshot {
  public:
    explicit Snapshot(const Database& database) : database_(database) {}
    ~Snapshot() {
        if (database_.in_transaction()) {
            database_.execute("ROLLBACK");
        }
    }
    Snapshot(const Snapshot&) = delete;
    Snapshot& operator=(const Snapshot&) = delete;

    [[nodiscard]] bool begin() const {
        return database_.execute("BEGIN; SELECT count(*) FROM sqlite_schema") == SQLITE_OK;
    }

  private:
    const Database& database_;
};

}  // namespace

Result<Database> Database::open_for_copy(const DatabaseKind& kind, const std::string& path) {
    Result<Database> database = connect(kind, path, path, SQLITE_OPEN_READWRITE);
    if (database && database->execute("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF") != SQLITE_OK) {
        return tl::unexpected(database->last_error("setting it up"));
    }
    return database;
}

Result<void> Database::take_copy_of(const Database& from, const CopyWatch& watch) {
    const Snapshot snapshot(from);
    if (!snapshot.begin()) {
        return tl::unexpected(from.last_error(kDoingCopy));
    }
    sqlite3_backup* const copy =
        sqlite3_backup_init(connection_.get(), "main", from.connection_.get(), "main");
    if (copy == nullptr) {
        return tl::unexpected(last_error(kDoingCopy));
    }
    // The first step takes the lock, the last one commits: they must not be the same.
    int rc = sqlite3_backup_step(copy, 1);
    const Result<void> wanted = rc == SQLITE_OK && watch.locked ? watch.locked() : Result<void>();
    while (wanted && rc == SQLITE_OK) {
        rc = sqlite3_backup_step(copy, kPagesAStep);
        if (watch.copied) {
            const auto total = static_cast<uint64_t>(sqlite3_backup_pagecount(copy));
            watch.copied(total - static_cast<uint64_t>(sqlite3_backup_remaining(copy)), total);
        }
    }
    const bool finished = sqlite3_backup_finish(copy) == SQLITE_OK;
    return finished || !wanted ? wanted : tl::unexpected(last_error(kDoingCopy));
}

Result<void> Database::finish_copy() {
    // One that was copied says of itself that it has a log beside it, and whoever opens it would make one.
    if (execute("PRAGMA journal_mode = DELETE") != SQLITE_OK) {
        return tl::unexpected(last_error(kDoingCopy));
    }
    const Result<int64_t> known = version();
    return known ? check_integrity() : tl::unexpected(known.error());
}

Result<void> Database::check_integrity() const {
    Result<Statement> check = prepare("PRAGMA integrity_check(1)");
    if (!check) {
        return tl::unexpected(check.error());
    }
    if (check->step() != SQLITE_ROW) {
        return tl::unexpected(last_error("checking it"));
    }
    return check->column_text(0) == "ok"
               ? Result<void>()
               : fail(named() + ": is damaged: " + std::string(check->column_text(0)));
}

}  // namespace apikeyd
