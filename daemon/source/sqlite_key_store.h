// A connection to a key store in SQLite: where it stands, and what its log says. Private to the key store.

#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>

#include "base/result.h"
#include "source/fingerprint.h"
#include "source/sql_changes.h"
#include "source/sql_key_store.h"
#include "sqlite/database.h"
#include "sqlite/sql_connection.h"

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

/// One thread at a time. Does not move.
class SqliteKeyStore {
  public:
    static Result<std::unique_ptr<SqliteKeyStore>> open(Result<Database> opened);

    [[nodiscard]] SqlKeyStore& keys() const { return *keys_; }
    [[nodiscard]] const SqlConnection& connection() const { return *keys_->connection; }
    [[nodiscard]] const Database& database() const { return *database_; }

    /// Reads the position; what was read of policies before is forgotten when it is another than then.
    Result<Position> position();
    /// What came after `since` until `now`; nullopt when the log does not reach back to it, or tells another
    /// history. In a transaction that stands at `now`.
    Result<std::optional<ChangeLog>> log_between(const Position& since, const Position& now) const;
    /// All columns of the keys with rowids between ?1 and ?2, both in it, in their order.
    [[nodiscard]] SqlStatement& keys_between() const { return *keys_between_; }

  private:
    std::unique_ptr<SqlKeyStore> keys_;  // before the statements: they are finalized first
    const Database* database_ = nullptr;
    SqlStatementPtr read_position_, keys_between_;
};

}  // namespace apikeyd
