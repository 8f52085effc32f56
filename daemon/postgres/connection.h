// A connection to a PostgreSQL server which never waits without a bound: a server that is frozen, not gone,
// is an error.

#pragma once

#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/result.h"
#include "sql/connection.h"

namespace apikeyd {

struct PostgresOptions {
    /// For all hosts that the URI names together; `connect_timeout` in it is not looked at. The names of
    /// hosts are resolved by libpq, which waits for the resolver as long as that waits (resolv.conf(5):
    /// timeout and attempts); `hostaddr` in the URI does without.
    uint32_t connect_wait_ms_max = 5'000;
    /// In which nothing at all comes from the server, or it takes in nothing.
    uint32_t answer_wait_ms_max = 60'000;
    /// May be null. Once true, what waits gives up within 100 ms, and closes the connection.
    std::shared_ptr<const std::atomic<bool>> stopping;
};

class PostgresSession;

/// A connection; it does not come back once it is lost. One thread at a time; may move between threads. It
/// must outlive its statements.
///
/// It works behind a pooler in transaction mode: nothing is kept in the server's session. So no statement is
/// prepared there (the text goes with each step()), and what a transaction needs, such as the search_path, it
/// sets itself: `BEGIN; SET LOCAL search_path = apikeyd, pg_catalog`.
///
/// What is given up (by a time, or by `stopping`) closes the connection: a request to cancel could wait as
/// long. The server then takes the transaction back.
class PostgresConnection final : public SqlConnection {
  public:
    /// One row's fields in the binary form of their types; NULL: nullopt. Views live until it returns. False:
    /// no more are wanted.
    using CopyRow = std::function<bool(std::span<const std::optional<std::string_view>> fields)>;

    /// `place`: see place.h; it is checked.
    static Result<std::unique_ptr<PostgresConnection>> open(const std::string& place,
                                                            const PostgresOptions& options = {});
    ~PostgresConnection() override;
    PostgresConnection(const PostgresConnection&) = delete;
    PostgresConnection& operator=(const PostgresConnection&) = delete;

    /// Asks the server nothing: what is wrong with the statement, its first step() tells. That reads the
    /// whole answer, so that nothing of it stands in another statement's way: what may answer very many rows
    /// is for copy_out(). Integers and texts are bound without a type, which the server takes from where they
    /// stand; bytes are a bytea. column_int() of a boolean is 1 or 0.
    ///
    /// Also several statements, with ';' between, which go to the server together: it is asked once. Their
    /// parameters stand in the text, as literals, so none is bytes; the rows are those of the last one that
    /// answers rows, and the first error ends them. What one of them began, BEGIN for instance, its caller
    /// ends.
    [[nodiscard]] Result<SqlStatementPtr> prepare(std::string_view sql) const override;
    /// Also several statements, with ';' between; the first error ends them. A COMMIT that took back a
    /// transaction in which something had failed is an error.
    [[nodiscard]] bool execute(const char* sql) const override;
    [[nodiscard]] bool in_transaction() const override;
    [[nodiscard]] const SqlDialect& dialect() const override;
    [[nodiscard]] std::string named() const override;
    /// Tells the primary message alone: detail, context and query of the server's may hold what keys hold.
    [[nodiscard]] Error last_error(std::string_view doing) const override;

    /// Runs `COPY (SELECT ...) TO STDOUT (FORMAT binary)` and calls `row` for each row as it comes. Ended by
    /// `row`, it reads the rest when that is little, else it closes the connection: see broken().
    Result<void> copy_out(std::string_view copy_sql, const CopyRow& row,
                          std::string_view doing = "reading keys") const;

    /// The connection is lost or was closed: open another. An idle one that the server has closed shows it
    /// only when it is used.
    [[nodiscard]] bool broken() const;

    // For who listens.
    /// To be polled for reading; -1 when it is broken.
    [[nodiscard]] int descriptor() const;
    /// Takes in what has come, without waiting. True when a notification was among it, or came with other
    /// answers since the last call.
    [[nodiscard]] bool take_notifications() const;
    /// Whether the server itself is at the other end, not a pooler, which may lend this connection another of
    /// the server's sessions each time.
    [[nodiscard]] Result<bool> is_direct(std::string_view doing) const;

  private:
    explicit PostgresConnection(std::unique_ptr<PostgresSession> session);
    std::unique_ptr<PostgresSession> session_;
};

/// A field of copy_out(): int64_t for bigint, int32_t for integer, int16_t for smallint. nullopt for NULL,
/// and for what is of another size.
template <std::signed_integral Int>
std::optional<Int> copied_int(const std::optional<std::string_view>& field) {
    if (!field || field->size() != sizeof(Int)) {
        return std::nullopt;
    }
    std::make_unsigned_t<Int> value = 0;
    for (const char byte : *field) {  // the most significant first
        value = static_cast<std::make_unsigned_t<Int>>(static_cast<uint64_t>(value) << 8 |
                                                       static_cast<unsigned char>(byte));
    }
    return static_cast<Int>(value);
}

/// A boolean of copy_out(); nullopt as above.
inline std::optional<bool> copied_bool(const std::optional<std::string_view>& field) {
    return field && field->size() == 1 ? std::optional(field->front() != '\0') : std::nullopt;
}

}  // namespace apikeyd
