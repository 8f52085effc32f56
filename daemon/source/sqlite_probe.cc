#include "source/sqlite_probe.h"

#include <utility>

#include "source/sqlite_schema.h"
#include "sqlite/database.h"

namespace apikeyd {

struct SqliteProbe::Open {
    Database database;  // before the statement: it is finalized first
    Statement version;  // changes with other connections' commits
    int64_t seen;

    /// What cannot be read is another one each time: whoever reads all can say why.
    int64_t look() {
        const ResetGuard guard(version);
        return version.step() == SQLITE_ROW ? version.column_int(0) : seen + 1;
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
    open_ = std::make_unique<Open>(Open{*std::move(database), *std::move(version), 0});
    open_->seen = open_->look();
    return true;
}

bool SqliteProbe::changed() {
    const bool looked = std::exchange(looked_, true);
    const bool was_there = open_ != nullptr;
    if (was_there && !open_->database.file_was_replaced()) {
        const int64_t seen = open_->look();
        return std::exchange(open_->seen, seen) != seen;
    }
    open_.reset();
    return open() ? looked : was_there;
}

}  // namespace apikeyd
