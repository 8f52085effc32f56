// One connection to a key store with what every reader and writer of it asks. Private to the key store.

#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"
#include "source/fingerprint.h"
#include "source/sqlite_rows.h"
#include "sqlite/database.h"

namespace apikeyd {

/// Where a key store stands: the last row of its log of changes.
struct Position {
    std::array<uint8_t, 16> uid{};  ///< of the file and its copies
    uint64_t seq = 0;
    uint64_t mark = 0;  ///< random, of that row; 0 before the first

    friend bool operator==(const Position&, const Position&) = default;
};

/// The mark, hidden in the uid's first half so that a fresh store's is no zero, then the number, most
/// significant byte first, then the uid: the first word differs with every change.
Fingerprint fingerprint_of(const Position& position);
Position position_of(const Fingerprint& fingerprint);

/// Statements and caches of one connection; used by one thread at a time. Does not move: the parts know each
/// other.
struct KeyStoreConnection {
    static Result<std::unique_ptr<KeyStoreConnection>> open(Result<Database> opened);

    explicit KeyStoreConnection(Database opened) : database(std::move(opened)) {}

    /// Reads the position; what was read of policies before is forgotten when it is another than then.
    Result<Position> position();
    /// The row of `keys` with this id as it stands there, to `look`; false when there is none.
    Result<bool> look_up(std::string_view id, const std::function<void(const KeyColumns&)>& look);
    /// The row with this id; nullopt when there is none; an error for one that breaks a rule.
    Result<std::optional<KeyRow>> key(std::string_view id);
    /// Calls `visit` with each different value of keys.scopes, of keys.environment: one seek each.
    Result<void> each_scopes(const std::function<void(std::string_view scopes)>& visit);
    Result<void> each_environment(const std::function<void(std::string_view environment)>& visit);
    /// The error kept by the policies, if any; once.
    Result<void> policies_read();
    /// After policies changed, or changes were taken back.
    void forget();
    [[nodiscard]] tl::unexpected<Error> failed(std::string_view doing) const;

    Database database;  // before the statements: they are finalized first
    PolicyRows policies;
    KeyReader reader{policies};
    Statement read_position, keys_between, one_key, next_scopes, next_environment;
    std::optional<Position> policies_at;

  private:
    Result<void> each(Statement& next, const std::function<void(std::string_view)>& visit);
};

/// A transaction that is rolled back unless it was committed.
class Transaction {
  public:
    /// `how`: BEGIN, or BEGIN IMMEDIATE.
    static Result<Transaction> begin(const Database& database, const char* how, std::string_view doing);
    Transaction(Transaction&& other) noexcept : database_(std::exchange(other.database_, nullptr)) {}
    Transaction& operator=(Transaction&&) = delete;
    ~Transaction() { roll_back(); }

    Result<void> commit(std::string_view doing);
    void roll_back();

  private:
    explicit Transaction(const Database& database) : database_(&database) {}
    const Database* database_;
};

}  // namespace apikeyd
