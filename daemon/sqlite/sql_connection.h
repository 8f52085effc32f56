// A connection of SQLite's as the key store uses any database.

#pragma once

#include <string>
#include <utility>

#include "sql/connection.h"
#include "sqlite/database.h"

namespace apikeyd {

/// One thread at a time.
class SqliteConnection final : public SqlConnection {
  public:
    explicit SqliteConnection(Database database) : database_(std::move(database)) {}

    [[nodiscard]] const Database& database() const { return database_; }

    [[nodiscard]] Result<SqlStatementPtr> prepare(std::string_view sql) const override;
    [[nodiscard]] bool execute(const char* sql) const override { return database_.execute(sql) == SQLITE_OK; }
    [[nodiscard]] bool in_transaction() const override { return database_.in_transaction(); }
    [[nodiscard]] const SqlDialect& dialect() const override;
    [[nodiscard]] std::string named() const override { return database_.named(); }
    [[nodiscard]] Error last_error(std::string_view doing) const override {
        return database_.last_error(doing);
    }

  private:
    Database database_;
};

}  // namespace apikeyd
