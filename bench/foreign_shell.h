// A connection to a key store as a program has one that knows SQLite, the names in the table, and nothing of
// this project's code.

#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace apikey::bench {

/// One thread at a time. Failures throw RunEnded. Waits ten seconds for others' locks.
class ForeignShell {
  public:
    explicit ForeignShell(const std::string& path);

    // Many keys in one transaction.
    void begin_insert();
    void insert(std::string_view id, std::span<const uint8_t> sha256);
    void commit();

    /// By one statement, and so one commit.
    void revoke(std::string_view id);
    /// Another one than before when another connection has committed since.
    int64_t version();

  private:
    struct Closer {
        void operator()(sqlite3* connection) const { sqlite3_close(connection); }
        void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
    };
    using Prepared = std::unique_ptr<sqlite3_stmt, Closer>;

    void check(bool done) const;
    void execute(const char* sql);
    Prepared prepare(const char* sql);

    std::unique_ptr<sqlite3, Closer> connection_;  // before the statements: they are finalized first
    Prepared insert_, revoke_, version_;
};

}  // namespace apikey::bench
