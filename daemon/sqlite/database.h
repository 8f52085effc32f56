// One SQLite connection to a store of ours and its prepared statements: the only code that opens such files.

#pragma once

#include <sqlite3.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace apikeyd {

/// How long SQLite waits for another connection's lock before it answers busy, unless it is told otherwise.
/// Short: the counts wait safely in shared memory, and whoever flushes has other work.
inline constexpr int kBusyTimeout_ms = 100;

/// What kind of store a file is.
struct DatabaseKind {
    std::string_view noun;       ///< what messages call it
    int64_t application_id = 0;  ///< PRAGMA application_id: tells our file from any other
    /// SQL that makes a store of each version of one of the version before; of an empty file for the first.
    std::span<const char* const> versions{};
    mode_t mode = 0600;  ///< of a new file
    /// Pages that whoever writes keeps at most, in KiB. One large change touches pages at random: those that
    /// do not stay are written to the log each time.
    int64_t cache_kib = 16 << 10;
    // What to do where there is none, and where it is empty.
    std::string_view made_by;
    std::string_view filled_by;

    /// PRAGMA user_version. A store with a higher one was written by a newer apikeyd and is left alone; one
    /// with a lower one is brought up to it by whoever opens it for writing, and read as it is by others.
    [[nodiscard]] int64_t version() const { return static_cast<int64_t>(versions.size()); }
};

/// A prepared statement. Binding errors are remembered and answered by the next step(), so that callers check
/// once. Bound bytes are not copied: they must live until the statement is reset. Not thread safe. Must not
/// outlive its Database.
class Statement {
  public:
    Statement() = default;

    Statement& bind(int index, int64_t value);
    Statement& bind(int index, std::nullptr_t);
    Statement& bind(int index, std::string_view text);
    Statement& bind(int index, std::span<const uint8_t> blob);

    /// SQLITE_ROW, SQLITE_DONE or an extended error code.
    int step();
    /// step() for a statement that gives no rows; resets. SQLITE_OK or an extended error code.
    int run();
    void reset();

    [[nodiscard]] int64_t column_int(int column) const {
        return sqlite3_column_int64(statement_.get(), column);
    }
    /// Valid until the next step() or reset().
    [[nodiscard]] std::string_view column_text(int column) const;
    [[nodiscard]] std::span<const uint8_t> column_blob(int column) const;
    [[nodiscard]] bool column_is_text(int column) const { return column_type(column) == SQLITE_TEXT; }
    /// SQLITE_NULL, SQLITE_INTEGER, ... Ask it before anything else of the column: reading may convert.
    [[nodiscard]] int column_type(int column) const { return sqlite3_column_type(statement_.get(), column); }

  private:
    friend class Database;
    struct Finalizer {
        void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
    };
    std::unique_ptr<sqlite3_stmt, Finalizer> statement_;
    int bind_result_ = SQLITE_OK;
};

/// Resets a statement at the end of a scope: an open read would pin the log and block a later commit.
class ResetGuard {
  public:
    explicit ResetGuard(Statement& statement) : statement_(statement) {}
    ~ResetGuard() { statement_.reset(); }
    ResetGuard(const ResetGuard&) = delete;
    ResetGuard& operator=(const ResetGuard&) = delete;

  private:
    Statement& statement_;
};

/// A connection to a store; its kind must outlive it. One thread at a time. Movable; statements go first.
class Database {
  public:
    enum class Missing { kIsMade, kIsAnError };

    /// Opens for writing. Creates the file (of the kind's mode whatever the umask; SQLite gives -wal and -shm
    /// the same mode) and its tables when missing or empty, and those that came with a later version than the
    /// file's. Refuses, without changing a byte: a symbolic link or anything else that is no regular file,
    /// another program's database, a store of a newer version. The directory must exist.
    static Result<Database> open_writable(const DatabaseKind& kind, const std::string& path,
                                          Missing missing = Missing::kIsMade);
    /// Opens an existing store for reading, also while a daemon writes and for a user who may only read the
    /// files. One of an earlier version stays so.
    static Result<Database> open_read_only(const DatabaseKind& kind, const std::string& path);

    /// The file at `path`, which is empty and the caller's own, for a copy to be made in it: nothing of it is
    /// synced or logged, since it is thrown away when anything fails.
    static Result<Database> open_for_copy(const DatabaseKind& kind, const std::string& path);

    struct CopyWatch {
        /// Called once nobody else can change this any more and nothing has changed; an error leaves all as
        /// it was. May be empty.
        std::function<Result<void>()> locked;
        /// Pages copied, and how many there are. May be empty.
        std::function<void(uint64_t done, uint64_t total)> copied;
    };
    /// Puts all that `from` holds at one moment in the place of all that this holds, in one transaction:
    /// other connections see one or the other, and those of `from` are not waited for. Called in no
    /// transaction of either.
    Result<void> take_copy_of(const Database& from, const CopyWatch& watch);
    /// Makes a file of one copied into it that needs none beside it; then checks every page and index of it,
    /// and that it is a store of a version that is known.
    Result<void> finish_copy();
    /// The first fault that PRAGMA integrity_check finds.
    Result<void> check_integrity() const;

    /// Of a file that is known to be a store; 0 for one that is empty.
    Result<int64_t> version() const;
    Result<Statement> prepare(std::string_view sql) const;
    /// The same for several; the first that cannot be prepared ends it.
    Result<void> prepare(std::initializer_list<std::pair<Statement*, std::string_view>> wanted) const;
    /// Runs SQL that answers nothing. SQLITE_OK or an extended error code.
    int execute(const char* sql) const;
    [[nodiscard]] bool in_transaction() const { return sqlite3_get_autocommit(connection_.get()) == 0; }
    /// Of a lock that another connection holds; kBusyTimeout_ms at first.
    void wait_for_locks(uint32_t wait_ms_max) const;
    /// True when the name this connection was opened by now means another file, or none: what is written here
    /// would be read by nobody.
    [[nodiscard]] bool file_was_replaced() const;
    /// By the last statement, without those of triggers; by all since the connection was made, with them.
    [[nodiscard]] int64_t rows_changed() const { return sqlite3_changes64(connection_.get()); }
    [[nodiscard]] int64_t rows_changed_ever() const { return sqlite3_total_changes64(connection_.get()); }

    /// What every message begins with: the kind and the path.
    [[nodiscard]] std::string named() const { return std::string(kind_->noun) + " " + path_; }
    /// Words the connection's last error for the operator: path, what was being done, why, what to do. Call
    /// it before anything else uses the connection (a rollback forgets the error).
    [[nodiscard]] Error last_error(std::string_view doing) const;

  private:
    struct Closer {
        void operator()(sqlite3* connection) const { sqlite3_close(connection); }
    };

    Database(const DatabaseKind& kind, std::string path) : kind_(&kind), path_(std::move(path)) {}
    static Result<Database> connect(const DatabaseKind& kind, const std::string& path,
                                    const std::string& real_path, int flags);
    Result<int64_t> query_int(const char* sql) const;
    Result<void> configure_for_writing() const;
    Result<void> bring_up(int64_t from_version) const;

    const DatabaseKind* kind_;
    std::string path_;  ///< as the operator wrote it, for messages
    std::unique_ptr<sqlite3, Closer> connection_;
};

}  // namespace apikeyd
