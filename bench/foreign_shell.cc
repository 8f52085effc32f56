#include "bench/foreign_shell.h"

#include "bench/serving_run.h"

namespace apikey::bench {

namespace {

constexpr int kBusyTimeout_ms = 10'000;

void bind(sqlite3_stmt* statement, int index, std::string_view text) {
    sqlite3_bind_text(statement, index, text.data(), static_cast<int>(text.size()), SQLITE_STATIC);
}

}  // namespace

ForeignShell::ForeignShell(const std::string& path) {
    sqlite3* raw = nullptr;
    const int opened = sqlite3_open_v2(path.c_str(), &raw, SQLITE_OPEN_READWRITE, nullptr);
    connection_.reset(raw);
    check(opened == SQLITE_OK);
    sqlite3_busy_timeout(raw, kBusyTimeout_ms);
    insert_ = prepare("INSERT INTO keys(id, sha256, environment) VALUES(?, ?, 'live')");
    revoke_ = prepare("UPDATE keys SET state = 'revoked' WHERE id = ?");
    version_ = prepare("PRAGMA data_version");
    version();
}

void ForeignShell::begin_insert() {
    execute("BEGIN");
}

void ForeignShell::insert(std::string_view id, std::span<const uint8_t> sha256) {
    bind(insert_.get(), 1, id);
    sqlite3_bind_blob(insert_.get(), 2, sha256.data(), static_cast<int>(sha256.size()), SQLITE_STATIC);
    check(sqlite3_step(insert_.get()) == SQLITE_DONE);
    sqlite3_reset(insert_.get());
}

void ForeignShell::commit() {
    execute("COMMIT");
}

void ForeignShell::revoke(std::string_view id) {
    bind(revoke_.get(), 1, id);
    check(sqlite3_step(revoke_.get()) == SQLITE_DONE && sqlite3_changes(connection_.get()) == 1);
    sqlite3_reset(revoke_.get());
}

int64_t ForeignShell::version() {
    check(sqlite3_step(version_.get()) == SQLITE_ROW);
    const int64_t version = sqlite3_column_int64(version_.get(), 0);
    sqlite3_reset(version_.get());
    return version;
}

void ForeignShell::check(bool done) const {
    if (!done) {
        throw RunEnded(kUnreachable, std::string("SQLite: ") + sqlite3_errmsg(connection_.get()));
    }
}

void ForeignShell::execute(const char* sql) {
    check(sqlite3_exec(connection_.get(), sql, nullptr, nullptr, nullptr) == SQLITE_OK);
}

ForeignShell::Prepared ForeignShell::prepare(const char* sql) {
    sqlite3_stmt* statement = nullptr;
    check(sqlite3_prepare_v2(connection_.get(), sql, -1, &statement, nullptr) == SQLITE_OK);
    return Prepared(statement);
}

}  // namespace apikey::bench
