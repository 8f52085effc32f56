#include "sqlite/sql_connection.h"

namespace apikeyd {

namespace {

class SqliteStatement final : public SqlStatement {
  public:
    SqliteStatement(const Database& database, Statement statement)
        : database_(database), statement_(std::move(statement)) {}

    SqlStatement& bind(int index, int64_t value) override {
        statement_.bind(index, value);
        return *this;
    }
    SqlStatement& bind(int index, std::nullptr_t) override {
        statement_.bind(index, nullptr);
        return *this;
    }
    SqlStatement& bind(int index, std::string_view text) override {
        statement_.bind(index, text);
        return *this;
    }
    SqlStatement& bind(int index, std::span<const uint8_t> blob) override {
        statement_.bind(index, blob);
        return *this;
    }
    SqlStep step() override {
        const int rc = statement_.step();
        return rc == SQLITE_ROW ? SqlStep::kRow : rc == SQLITE_DONE ? SqlStep::kDone : SqlStep::kFailed;
    }
    void reset() override { statement_.reset(); }
    [[nodiscard]] int64_t rows_changed() const override { return database_.rows_changed(); }
    [[nodiscard]] bool column_is_null(int column) const override {
        return statement_.column_type(column) == SQLITE_NULL;
    }
    [[nodiscard]] int64_t column_int(int column) const override { return statement_.column_int(column); }
    [[nodiscard]] std::string_view column_text(int column) const override {
        return statement_.column_text(column);
    }
    [[nodiscard]] std::span<const uint8_t> column_blob(int column) const override {
        return statement_.column_blob(column);
    }

  private:
    const Database& database_;
    Statement statement_;
};

constexpr SqlDialect kDialect = {
    .for_update = "",  // who changes it has the whole of it
    .scopes_before = "",
    .scopes_behind = "",
    .list_before = "IN (SELECT value FROM json_each(",
    .list_behind = "))",
};

}  // namespace

Result<SqlStatementPtr> SqliteConnection::prepare(std::string_view sql) const {
    Result<Statement> statement = database_.prepare(sql);
    if (!statement) {
        return tl::unexpected(std::move(statement.error()));
    }
    return std::make_unique<SqliteStatement>(database_, *std::move(statement));
}

const SqlDialect& SqliteConnection::dialect() const {
    return kDialect;
}

}  // namespace apikeyd
