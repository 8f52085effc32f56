#include "source/sqlite_probe.h"

#include <utility>

#include "source/sqlite_schema.h"
#include "sqlite/database.h"

namespace apikeyd {

namespace {

constexpr int64_t kUnknown = -1;

}  // namespace

struct SqliteProbe::Open {
    Database database;  // before the statement: it is finalized first
    Statement version;  // changes with other connections' commits
    int64_t seen = kUnknown;

    /// Whether it is another one than at the last look. What cannot be read is, and then the next is as well:
    /// whoever reads all can say why.
    bool look() {
        const ResetGuard guard(version);
        const int64_t now = version.step() == SQLITE_ROW ? version.column_int(0) : kUnknown;
        return std::exchange(seen, now) != now || now == kUnknown;
    }
};

SqliteProbe::SqliteProbe(std::string path) : path_(std::move(path)) {}
SqliteProbe::SqliteProbe(SqliteProbe&&) noexcept = default;
SqliteProbe& SqliteProbe::operator=(SqliteProbe&&) noexcept = default;
SqliteProbe::~SqliteProbe() = default;

bool SqliteProbe::open() {
    Result<Database> database = Database::open_read_only(kKeyStore, path_);
    Result<Statement> version =
        database ? database->prepare("PRAGMA data_version") : tl::unexpected(std::move(database.error()));
    if (!version) {
        return false;
    }
    database->wait_for_locks(0);
    open_ = std::make_unique<Open>(Open{*std::move(database), *std::move(version)});
    open_->look();
    return true;
}

bool SqliteProbe::changed() {
    const bool looked = std::exchange(looked_, true);
    const bool was_there = open_ != nullptr;
    if (was_there && !open_->database.file_was_replaced()) {
        return open_->look();
    }
    open_.reset();
    return open() ? looked : was_there;
}

}  // namespace apikeyd
