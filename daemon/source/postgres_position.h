// Where a key store in PostgreSQL stands, and what its log says since. Private to the key store.

#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "source/fingerprint.h"
#include "source/sql_changes.h"
#include "source/sql_key_store.h"

namespace apikeyd {

/// What a transaction sees of the log of changes.
///
/// Rows come into sight when their transactions commit, which need not be in the order of their numbers: a
/// number alone says nothing of what is still to come in front of it. So the position has the snapshot too,
/// PostgreSQL's own word for which transactions are seen, and a row is new when its transaction was not seen.
/// Nobody waits for anybody: a lock, or numbers given out at commit, would have one idle transaction hold up
/// every revocation.
///
/// Numbers of transactions that left nothing on disk are given out again after a crash, and of an older copy
/// that was put back all are. Then the row's own number is a new one (`last`), or the newest rows that were
/// seen are there no more (`tail`), or the server, the database or the table is another (`identity`).
struct PostgresPosition {
    std::string identity;  ///< of the server's start, the database, the log's file and the store
    std::string snapshot;  ///< pg_current_snapshot()
    int64_t last = 0;      ///< the highest number that is seen
    std::string tail;      ///< a sum over numbers and marks of the newest rows that are seen
};

struct PostgresLook {
    PostgresPosition now;
    /// What came since the position that was asked with; nullopt where none was, or it cannot be told.
    std::optional<ChangeLog> log = std::nullopt;
};

/// Begins a transaction by `begin`, and reads where the store stands in it, and what came since `since`,
/// which may be null: the server is asked once. The transaction goes on, also after an error: what is read in
/// it is what `now` stands for, where it has one snapshot. An error where the store is of a newer version, or
/// stands by.
Result<PostgresLook> look(const SqlKeyStore& store, std::string_view begin, const PostgresPosition* since);

/// The positions that were read last, under names that mean nothing to anybody else. One thread at a time.
class PostgresPositions {
  public:
    /// nullptr for one that is not known, or no more. One that is asked for is kept longer.
    [[nodiscard]] const PostgresPosition* find(const Fingerprint& name);
    /// Of the last that was noted; zero at first.
    [[nodiscard]] const Fingerprint& latest() const { return latest_; }
    /// Also of content that is known, and was seen again.
    void note(const Fingerprint& name, PostgresPosition position);

  private:
    struct Known {
        uint64_t turn = 0;
        PostgresPosition position;
    };
    std::map<Fingerprint, Known> known_;
    uint64_t turns_ = 0;
    Fingerprint latest_{};
};

/// A fingerprint that no position has or will have.
Fingerprint unknown_fingerprint();

}  // namespace apikeyd
