// One connection to a key store with what every reader and writer of it asks. Private to the key store.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "source/fingerprint.h"
#include "source/sql_policies.h"
#include "sql/connection.h"

namespace apikeyd {

/// Statements and caches of one connection; used by one thread at a time. Does not move: the parts know each
/// other.
struct SqlKeyStore {
    /// `for_change`: rows that are looked up are the caller's until the transaction ends.
    static Result<std::unique_ptr<SqlKeyStore>> open(std::unique_ptr<SqlConnection> opened, bool for_change);

    explicit SqlKeyStore(std::unique_ptr<SqlConnection> opened) : connection(std::move(opened)) {}

    /// What was read of policies is forgotten when the store stands elsewhere than when this was said last.
    void stands_at(const Fingerprint& position);
    /// The row of `keys` with this id as it stands there, to `look`; false when there is none.
    Result<bool> look_up(std::string_view id, const std::function<void(const KeyColumns&)>& look);
    /// The rows with these ids, those that there are, in no order.
    Result<void> look_up(const std::vector<std::string>& ids,
                         const std::function<void(const KeyColumns&)>& look);
    /// The row with this id; nullopt when there is none; an error for one that breaks a rule.
    Result<std::optional<KeyRow>> key(std::string_view id);
    /// Calls `visit` with each different value of keys.scopes, of keys.environment: one seek each.
    Result<void> each_scopes(const std::function<void(std::string_view scopes)>& visit);
    Result<void> each_environment(const std::function<void(std::string_view environment)>& visit);
    /// `text` as an expression by which an index knows keys.scopes: of the column, or of a parameter.
    [[nodiscard]] std::string scopes_indexed(std::string_view text) const;
    /// The error kept by the policies, if any; once.
    Result<void> policies_read();
    /// After policies changed, or changes were taken back.
    void forget();
    [[nodiscard]] tl::unexpected<Error> failed(std::string_view doing) const;

    std::unique_ptr<SqlConnection> connection;  // before the statements: they are finalized first
    SqlPolicies policies;
    KeyReader reader{policies};

  private:
    Result<void> each(SqlStatement& next, const std::function<void(std::string_view)>& visit);

    SqlStatementPtr one_key_, some_keys_, next_scopes_, next_environment_;
    std::optional<Fingerprint> policies_at_;
};

}  // namespace apikeyd
