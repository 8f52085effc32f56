// Embedded stores with the keys of a PrivateSet, set up as fast as each can be asked.
//
// Their files stand in memory and have lost their names when the constructor returns: whatever ends the
// program leaves nothing behind. Not thread-safe. Failures end the program with a message.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "bench/private_set.h"

namespace apikey::bench {

/// The stores' versions, for a reader.
std::string peer_libraries();

#if APIKEYD_BENCH_LMDB
/// A tree with full pages (loaded in order), mapped to read. One read transaction is kept, and renewed after
/// every 16 lookups: without that it would see no change, ever; at every lookup it would pay for being as
/// fresh as libapikey is.
class LmdbStore {
  public:
    LmdbStore(uint64_t keys, FoundBy by);
    ~LmdbStore();
    LmdbStore(const LmdbStore&) = delete;
    LmdbStore& operator=(const LmdbStore&) = delete;
    bool find(std::string_view text, Row* row);

  private:
    struct Handles;
    std::unique_ptr<Handles> handles_;
};
#endif

/// A table WITHOUT ROWID, so that a lookup goes down one tree; mapped, one prepared statement.
class SqliteStore {
  public:
    enum class Sees : uint8_t {
        kNothing,  ///< opened as immutable: no locks, and no change of the file is ever noticed
        kChanges,  ///< write-ahead log: each lookup finds what was committed before it
    };
    SqliteStore(uint64_t keys, FoundBy by, Sees sees);
    ~SqliteStore();
    SqliteStore(const SqliteStore&) = delete;
    SqliteStore& operator=(const SqliteStore&) = delete;
    bool find(std::string_view text, Row* row);

  private:
    struct Handles;
    std::unique_ptr<Handles> handles_;
};

}  // namespace apikey::bench
