// A connection to a database that speaks SQL, as the key store uses it: the same statements for every kind of
// database, and the few words in which they differ.

#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace apikeyd {

enum class SqlStep : uint8_t { kRow, kDone, kFailed };

/// A prepared statement; it must not outlive its connection. One thread at a time.
class SqlStatement {
  public:
    virtual ~SqlStatement() = default;

    // Parameters count from 1 and are given before the first step(). Bound bytes are not copied: they live
    // until the statement is reset. What cannot be bound is told by the next step().
    virtual SqlStatement& bind(int index, int64_t value) = 0;
    virtual SqlStatement& bind(int index, std::nullptr_t) = 0;
    virtual SqlStatement& bind(int index, std::string_view text) = 0;
    virtual SqlStatement& bind(int index, std::span<const uint8_t> blob) = 0;

    /// Runs it, or goes on to its next row. After kFailed the connection's last_error() says why.
    virtual SqlStep step() = 0;
    /// Ends its reading; what is bound is forgotten.
    virtual void reset() = 0;
    /// By the last step(), of a statement that changes rows; without those of triggers.
    [[nodiscard]] virtual int64_t rows_changed() const = 0;

    // Columns count from 0. Views live until the next step() or reset(). NULL is 0 and empty.
    [[nodiscard]] virtual bool column_is_null(int column) const = 0;
    [[nodiscard]] virtual int64_t column_int(int column) const = 0;
    [[nodiscard]] virtual std::string_view column_text(int column) const = 0;
    [[nodiscard]] virtual std::span<const uint8_t> column_blob(int column) const = 0;
};

using SqlStatementPtr = std::unique_ptr<SqlStatement>;

/// Resets a statement at the end of a scope: an open read would hold up others.
class SqlResetGuard {
  public:
    explicit SqlResetGuard(SqlStatement& statement) : statement_(statement) {}
    ~SqlResetGuard() { statement_.reset(); }
    SqlResetGuard(const SqlResetGuard&) = delete;
    SqlResetGuard& operator=(const SqlResetGuard&) = delete;

  private:
    SqlStatement& statement_;
};

/// The words in which databases differ.
struct SqlDialect {
    std::string_view for_update;  ///< behind a SELECT of a row that is to be changed
    /// An expression of the column `keys.scopes`, and of a parameter that is compared with it, which an index
    /// of the keys has: before and behind it.
    std::string_view scopes_before, scopes_behind;
    /// That what stands in front is one of the strings of a JSON array, which is a parameter: before and
    /// behind it. By an index, also where the table is small.
    std::string_view list_before, list_behind;
};

/// One thread at a time.
class SqlConnection {
  public:
    virtual ~SqlConnection() = default;

    /// Parameters are written ?1, ?2, ...; no '?' stands in the statement otherwise.
    [[nodiscard]] virtual Result<SqlStatementPtr> prepare(std::string_view sql) const = 0;
    /// Runs a statement that answers nothing. False: last_error() says why.
    [[nodiscard]] virtual bool execute(const char* sql) const = 0;
    [[nodiscard]] virtual bool in_transaction() const = 0;
    [[nodiscard]] virtual const SqlDialect& dialect() const = 0;

    /// What every message begins with: what it is, and where.
    [[nodiscard]] virtual std::string named() const = 0;
    /// What was being done, why it failed, what to do. Asked before anything else uses the connection.
    [[nodiscard]] virtual Error last_error(std::string_view doing) const = 0;
};

/// Prepares several; the first that cannot be ends it.
Result<void> prepare(const SqlConnection& connection,
                     std::initializer_list<std::pair<SqlStatementPtr*, std::string_view>> wanted);

/// A transaction that is rolled back unless it was committed.
class SqlTransaction {
  public:
    /// `how`: the BEGIN of the kind of transaction that is wanted.
    static Result<SqlTransaction> begin(const SqlConnection& connection, const char* how,
                                        std::string_view doing);
    /// Of one that a statement of the caller's is about to begin.
    static SqlTransaction of(const SqlConnection& connection) { return SqlTransaction(connection); }
    SqlTransaction(SqlTransaction&& other) noexcept
        : connection_(std::exchange(other.connection_, nullptr)) {}
    SqlTransaction& operator=(SqlTransaction&&) = delete;
    ~SqlTransaction() { roll_back(); }

    Result<void> commit(std::string_view doing);
    void roll_back();

  private:
    explicit SqlTransaction(const SqlConnection& connection) : connection_(&connection) {}
    const SqlConnection* connection_;
};

}  // namespace apikeyd
