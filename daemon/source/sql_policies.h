// The rows beside the keys, and the keys' own columns, as SQL statements give and take them. Private to the
// key store.

#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "source/key_columns.h"
#include "sql/connection.h"

namespace apikeyd {

/// A statement's columns from 0 on, and its parameters from 1 on, in the order of KeyColumns.
inline constexpr std::string_view kSelectKeySql =
    "SELECT id, sha256, state, expires, plan, limits, addresses, environment, owner, name, created, "
    "\"foreign\", scopes, metadata, rowid FROM keys";

KeyColumns key_columns(const SqlStatement& statement);
void bind_key(SqlStatement& statement, const KeyColumns& columns);

/// Read as it is asked for and kept until forget(). Errors of the database are kept: see take_error().
class SqlPolicies final : public RowPolicies {
  public:
    /// Keeps `connection`; once, before all else.
    Result<void> prepare(const SqlConnection& connection);

    using Fault =
        std::function<void(const std::string& table, const std::string& row, const std::string& what)>;
    /// All of it; tells of each row that breaks a rule. Until forget() no statement is run any more for what
    /// is asked.
    PolicySet load(const Fault& fault);
    const std::vector<std::string>& scopes() override;
    /// Valid until forget().
    const PlanRow* plan(std::string_view name) override;
    bool owner_is_sound(std::string_view name) override;
    void forget();
    /// The first since this was asked.
    std::optional<Error> take_error() { return std::exchange(error_, std::nullopt); }

  private:
    void note(SqlStep step);
    void load_plans(PolicySet& set, const Fault& fault);
    void load_owners(PolicySet& set, const Fault& fault);

    const SqlConnection* connection_ = nullptr;
    SqlStatementPtr all_scopes_, all_plans_, all_owners_, one_plan_, one_owner_;
    std::optional<std::vector<std::string>> scopes_;
    boost::unordered_flat_map<std::string, std::unique_ptr<const PlanRow>> plans_;
    boost::unordered_flat_map<std::string, bool> owners_;
    bool plans_known_ = false;   // all that are not in plans_ are none
    bool owners_known_ = false;  // all that are not in owners_ are sound
    std::optional<Error> error_;
};

}  // namespace apikeyd
