#include "sqlite/database.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <utility>

#include "base/errno_text.h"
#include "base/owned_fd.h"

namespace apikeyd {

namespace {

/// What every message begins with.
std::string store_named(const DatabaseKind& kind, const std::string& path) {
    return std::string(kind.noun) + " " + path;
}

/// Where the file stands: its directory with every link resolved, and its own name.
struct Place {
    std::string directory;
    std::string name;
    [[nodiscard]] std::string path() const { return directory == "/" ? "/" + name : directory + "/" + name; }
};

/// SQLITE_OPEN_NOFOLLOW refuses a link in any part of the path. Links to directories are the operator's
/// business
/// (/var/run, a data disk), so they are resolved here; only the last name must not be one.
Result<Place> locate(const DatabaseKind& kind, const std::string& path) {
    const size_t slash = path.rfind('/');
    const std::string directory = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
    const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
    if (name.empty() || name == "." || name == ".." || path.find('\0') != std::string::npos) {
        return fail(store_named(kind, "'" + path + "'") +
                    ": not a file name; name a file in an existing directory");
    }
    const std::unique_ptr<char, decltype(&free)> real(realpath(directory.c_str(), nullptr), &free);
    if (!real) {
        if (errno == ENOENT) {
            return fail(store_named(kind, path) + ": the directory " + directory +
                        " does not exist; create it, owned by the user that runs apikeyd");
        }
        return fail(store_named(kind, path) + ": the directory " + directory +
                    " cannot be reached: " + errno_text(errno));
    }
    return Place{real.get(), name};
}

/// Creates an empty file when there is none. An existing one is never opened here: closing a second
/// descriptor of a database would drop the POSIX locks of every SQLite connection this process has to it.
Result<void> create_if_missing(const DatabaseKind& kind, const std::string& path, const Place& place) {
    const OwnedFd directory(open(place.directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory.is_open()) {
        return fail(store_named(kind, path) + ": its directory cannot be opened: " + errno_text(errno));
    }
    const OwnedFd file(openat(directory.get(), place.name.c_str(),
                              O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, kind.mode));
    if (!file.is_open()) {
        if (errno == EEXIST) {
            return {};
        }
        return fail(store_named(kind, path) + ": cannot be created: " + errno_text(errno) + "; let user " +
                    std::to_string(geteuid()) + " write to " + place.directory + " or name another place");
    }
    // fchmod past the umask; then the name itself is made to last, SQLite only syncs what it creates.
    if (fchmod(file.get(), kind.mode) != 0 || fsync(file.get()) != 0 || fsync(directory.get()) != 0) {
        return fail(store_named(kind, path) + ": created, but not made durable: " + errno_text(errno));
    }
    return {};
}

Result<void> check_regular_file(const DatabaseKind& kind, const std::string& path, const Place& place) {
    struct stat status {};
    if (lstat(place.path().c_str(), &status) != 0) {
        if (errno == ENOENT) {
            return fail(store_named(kind, path) + ": there is none yet; " + std::string(kind.made_by));
        }
        return fail(store_named(kind, path) + ": cannot be examined: " + errno_text(errno));
    }
    if (S_ISLNK(status.st_mode)) {
        return fail(store_named(kind, path) +
                    ": is a symbolic link, which is not followed; name the file itself");
    }
    if (!S_ISREG(status.st_mode)) {
        return fail(store_named(kind, path) +
                    (S_ISDIR(status.st_mode) ? ": is a directory" : ": is not a regular file") +
                    "; name a file in an existing directory");
    }
    return {};
}

/// Why, and what to do about it, for the codes an operator can meet.
std::string advice(const DatabaseKind& kind, int extended_code) {
    switch (extended_code & 0xff) {
        case SQLITE_BUSY:
        case SQLITE_LOCKED:
            return "another program holds it locked; close what has it open for writing, such as an sqlite3 "
                   "shell";
        case SQLITE_FULL:
            return "no space left; free space on its file system (or raise the disk quota)";
        case SQLITE_READONLY:
            return "not writable for user " + std::to_string(geteuid()) +
                   "; check owner and mode of the file, its -wal, its -shm and its directory, and that the "
                   "file "
                   "system is not mounted read-only";
        case SQLITE_IOERR:
            return "the disk failed; check the kernel's log and the file system";
        case SQLITE_CANTOPEN:
            return "cannot be opened; check owner and mode of the file, its -wal, its -shm and its directory "
                   "for user " +
                   std::to_string(geteuid());
        case SQLITE_PERM:
        case SQLITE_AUTH:
            return "access denied; check owner and mode";
        case SQLITE_NOTADB:
            return "is not a " + std::string(kind.noun) +
                   " (no SQLite database); name another file, or move this one away";
        case SQLITE_CORRUPT:
            return "is damaged; stop apikeyd, move it away and restore a copy (sqlite3's .recover may save "
                   "it)";
        case SQLITE_NOMEM:
            return "out of memory";
        default:
            return "unexpected failure of SQLite";
    }
}

}  // namespace

Statement& Statement::bind(int index, int64_t value) {
    const int rc = sqlite3_bind_int64(statement_.get(), index, value);
    bind_result_ = bind_result_ == SQLITE_OK ? rc : bind_result_;
    return *this;
}

Statement& Statement::bind(int index, std::nullptr_t) {
    const int rc = sqlite3_bind_null(statement_.get(), index);
    bind_result_ = bind_result_ == SQLITE_OK ? rc : bind_result_;
    return *this;
}

Statement& Statement::bind(int index, std::string_view text) {
    // A null pointer would bind NULL, and an empty view may have one.
    const char* data = text.empty() ? "" : text.data();
    const int rc =
        sqlite3_bind_text64(statement_.get(), index, data, text.size(), SQLITE_STATIC, SQLITE_UTF8);
    bind_result_ = bind_result_ == SQLITE_OK ? rc : bind_result_;
    return *this;
}

Statement& Statement::bind(int index, std::span<const uint8_t> blob) {
    static constexpr uint8_t kNothing = 0;
    const uint8_t* data = blob.empty() ? &kNothing : blob.data();
    const int rc = sqlite3_bind_blob64(statement_.get(), index, data, blob.size(), SQLITE_STATIC);
    bind_result_ = bind_result_ == SQLITE_OK ? rc : bind_result_;
    return *this;
}

int Statement::step() {
    return bind_result_ != SQLITE_OK ? bind_result_ : sqlite3_step(statement_.get());
}

int Statement::run() {
    const int rc = step();
    reset();
    return rc == SQLITE_DONE || rc == SQLITE_ROW ? SQLITE_OK : rc;
}

void Statement::reset() {
    sqlite3_reset(statement_.get());
    bind_result_ = SQLITE_OK;
}

std::string_view Statement::column_text(int column) const {
    const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_.get(), column));
    return text == nullptr
               ? std::string_view()
               : std::string_view(text, static_cast<size_t>(sqlite3_column_bytes(statement_.get(), column)));
}

std::span<const uint8_t> Statement::column_blob(int column) const {
    const auto* bytes = static_cast<const uint8_t*>(sqlite3_column_blob(statement_.get(), column));
    return bytes == nullptr
               ? std::span<const uint8_t>()
               : std::span(bytes, static_cast<size_t>(sqlite3_column_bytes(statement_.get(), column)));
}

Result<Database> Database::connect(const DatabaseKind& kind, const std::string& path,
                                   const std::string& real_path, int flags) {
    Database database(kind, path);
    sqlite3* raw = nullptr;
    // NOMUTEX: one thread at a time is our contract, SQLite need not lock for it.
    const int rc =
        sqlite3_open_v2(real_path.c_str(), &raw,
                        flags | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, nullptr);
    database.connection_.reset(raw);
    if (raw == nullptr) {
        return fail(store_named(kind, path) + ": out of memory");
    }
    if (rc != SQLITE_OK) {
        return tl::unexpected(database.last_error("opening"));
    }
    sqlite3_busy_timeout(raw, kBusyTimeout_ms);
    return database;
}

Result<Database> Database::open_writable(const DatabaseKind& kind, const std::string& path, Missing missing) {
    const Result<Place> place = locate(kind, path);
    if (!place) {
        return tl::unexpected(place.error());
    }
    if (missing == Missing::kIsMade) {
        if (Result<void> made = create_if_missing(kind, path, *place); !made) {
            return tl::unexpected(made.error());
        }
    }
    if (Result<void> regular = check_regular_file(kind, path, *place); !regular) {
        return tl::unexpected(regular.error());
    }
    Result<Database> database = connect(kind, path, place->path(), SQLITE_OPEN_READWRITE);
    if (!database) {
        return database;
    }
    sqlite3* raw = database->connection_.get();
    // Until the file is known to be ours, closing must not move its log into it either.
    sqlite3_db_config(raw, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
    const Result<int64_t> version = database->version();
    if (!version) {
        return tl::unexpected(version.error());
    }
    if (sqlite3_db_readonly(raw, "main") != 0) {
        return fail(store_named(kind, path) + ": " + advice(kind, SQLITE_READONLY));
    }
    sqlite3_db_config(raw, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, nullptr);
    if (Result<void> configured = database->configure_for_writing(); !configured) {
        return tl::unexpected(configured.error());
    }
    if (Result<void> brought_up = database->bring_up(*version); !brought_up) {
        return tl::unexpected(brought_up.error());
    }
    return database;
}

Result<Database> Database::open_read_only(const DatabaseKind& kind, const std::string& path) {
    const Result<Place> place = locate(kind, path);
    if (!place) {
        return tl::unexpected(place.error());
    }
    if (Result<void> regular = check_regular_file(kind, path, *place); !regular) {
        return tl::unexpected(regular.error());
    }
    Result<Database> database = connect(kind, path, place->path(), SQLITE_OPEN_READONLY);
    if (!database) {
        return database;
    }
    const Result<int64_t> version = database->version();
    if (!version) {
        return tl::unexpected(version.error());
    }
    if (*version == 0) {
        return fail(store_named(kind, path) + ": is empty; " + std::string(kind.filled_by));
    }
    return database;
}

Result<int64_t> Database::version() const {
    const Result<int64_t> application = query_int("PRAGMA application_id");
    const Result<int64_t> version = application ? query_int("PRAGMA user_version") : application;
    const Result<int64_t> tables = version ? query_int("SELECT count(*) FROM sqlite_schema") : version;
    if (!tables) {
        return tl::unexpected(tables.error());
    }
    if (*application == 0 && *version == 0 && *tables == 0) {
        return 0;  // also what a daemon killed while creating it leaves
    }
    if (*application != kind_->application_id) {
        return fail(named() + ": is another program's SQLite database; name another file");
    }
    if (*version > kind_->version()) {
        return fail(named() + ": has version " + std::to_string(*version) + ", this apikeyd knows up to " +
                    std::to_string(kind_->version()) + "; run the newer apikeyd, or name another file");
    }
    if (*version < 1) {
        return fail(named() + ": has version " + std::to_string(*version) +
                    ", which no release wrote; restore a copy, or name another file");
    }
    return *version;
}

Result<int64_t> Database::query_int(const char* sql) const {
    Result<Statement> statement = prepare(sql);
    if (!statement) {
        return tl::unexpected(statement.error());
    }
    if (statement->step() != SQLITE_ROW) {
        return tl::unexpected(last_error("reading its header"));
    }
    return statement->column_int(0);
}

Result<void> Database::configure_for_writing() const {
    Result<Statement> mode = prepare("PRAGMA journal_mode = WAL");
    if (!mode) {
        return tl::unexpected(mode.error());
    }
    if (mode->step() != SQLITE_ROW) {
        return tl::unexpected(last_error("switching to write-ahead logging"));
    }
    if (mode->column_text(0) != "wal") {
        return fail(
            named() +
            ": its file system cannot share memory between processes, which write-ahead logging needs; "
            "name a place on a local disk");
    }
    mode->reset();
    // FULL, not NORMAL: in WAL mode NORMAL syncs only at checkpoints, so a power cut would take back every
    // flush since the last one, hours on a quiet host, while the shared memory that held the counts is gone
    // too. FULL syncs the log at each commit: at most the last flush interval is lost. One sync a second is
    // cheap. The log keeps its files when the last connection closes: a user who may only read could not
    // create them, and without them cannot read a WAL database. The size limit gives a big flush's space
    // back.
    int persist = 1;
    const std::string settings =
        "PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 16777216; PRAGMA cache_size = -" +
        std::to_string(kind_->cache_kib);
    if (execute(settings.c_str()) != SQLITE_OK ||
        sqlite3_file_control(connection_.get(), "main", SQLITE_FCNTL_PERSIST_WAL, &persist) != SQLITE_OK) {
        return tl::unexpected(last_error("setting it up"));
    }
    return {};
}

/// All of it or nothing: a store is of one version.
Result<void> Database::bring_up(int64_t from_version) const {
    if (from_version == kind_->version()) {
        return {};
    }
    int rc = execute("BEGIN IMMEDIATE");
    for (int64_t version = from_version; rc == SQLITE_OK && version < kind_->version(); ++version) {
        rc = execute(kind_->versions[static_cast<size_t>(version)]);
    }
    if (rc != SQLITE_OK || execute("COMMIT") != SQLITE_OK) {
        Error error = last_error("creating its tables");
        if (in_transaction()) {
            execute("ROLLBACK");
        }
        return tl::unexpected(std::move(error));
    }
    return {};
}

Result<Statement> Database::prepare(std::string_view sql) const {
    Statement statement;
    sqlite3_stmt* raw = nullptr;
    const int rc = sqlite3_prepare_v3(connection_.get(), sql.data(), static_cast<int>(sql.size()),
                                      SQLITE_PREPARE_PERSISTENT, &raw, nullptr);
    statement.statement_.reset(raw);
    if (rc != SQLITE_OK) {
        return tl::unexpected(last_error("preparing"));
    }
    return statement;
}

Result<void> Database::prepare(std::initializer_list<std::pair<Statement*, std::string_view>> wanted) const {
    for (const auto& [statement, sql] : wanted) {
        Result<Statement> prepared = prepare(sql);
        if (!prepared) {
            return tl::unexpected(std::move(prepared.error()));
        }
        *statement = std::move(*prepared);
    }
    return {};
}

int Database::execute(const char* sql) const {
    return sqlite3_exec(connection_.get(), sql, nullptr, nullptr, nullptr);
}

void Database::wait_for_locks(uint32_t wait_ms_max) const {
    sqlite3_busy_timeout(connection_.get(), static_cast<int>(std::min<uint32_t>(wait_ms_max, INT_MAX)));
}

bool Database::file_was_replaced() const {
    int moved = 0;
    return sqlite3_file_control(connection_.get(), "main", SQLITE_FCNTL_HAS_MOVED, &moved) == SQLITE_OK &&
           moved != 0;
}

Error Database::last_error(std::string_view doing) const {
    sqlite3* raw = connection_.get();
    const int code = sqlite3_extended_errcode(raw);
    std::string message = named() + ": " + std::string(doing) + ": " + advice(*kind_, code) + " (SQLite " +
                          std::to_string(code) + ": " + sqlite3_errmsg(raw);
    const int system_error = sqlite3_system_errno(raw);
    if (system_error != 0 && ((code & 0xff) == SQLITE_IOERR || (code & 0xff) == SQLITE_CANTOPEN)) {
        message += ", " + errno_text(system_error);
    }
    return Error{message + ")", (code & 0xff) != SQLITE_CONSTRAINT};
}

}  // namespace apikeyd
