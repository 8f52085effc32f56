// A key store in the course of one change. Private to the key store.

#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "source/sql_key_store.h"
#include "source/store.h"

namespace apikeyd {

/// In a transaction that is open for writing.
class SqlKeySet final : public KeySet {
  public:
    static Result<SqlKeySet> prepare(SqlKeyStore& store);

    Result<std::optional<KeyRow>> key(std::string_view id) override;
    Result<void> upsert(const KeyRow& row) override;
    Result<bool> erase(std::string_view id) override;
    Result<bool> has_keys() override { return is_there("SELECT 1 FROM keys WHERE id > ?1 LIMIT 1", ""); }

    [[nodiscard]] const PolicySet& policies() const override;
    Result<void> upsert_plan(const PlanRow& plan) override;
    Result<void> upsert_owner(const OwnerRow& owner) override;
    Result<void> add_scope(const std::string& scope) override;
    Result<void> erase_plan(const std::string& name) override;
    Result<void> erase_owner(const std::string& name) override;
    Result<void> erase_scope(const std::string& name) override;

    /// What policies() could not say when it was asked.
    [[nodiscard]] Result<void> read_whole() const { return policies_read_; }
    /// 0: nothing was changed.
    [[nodiscard]] int64_t rows_written() const { return rows_written_; }

  private:
    explicit SqlKeySet(SqlKeyStore& store) : store_(&store) {}

    struct Users {
        int64_t count = 0;
        std::string first;
    };

    Result<void> check(const KeyRow& row, const KeyColumns& columns);
    Result<void> check_environment(const KeyRow& row);
    Result<void> check_branches(const KeyRow& row);
    /// Counts names and branches of the set with these beside it, and remembers the branches.
    Result<size_t> scope_names(const std::vector<std::string>& granted);
    /// How many rows the table has, counted once.
    Result<void> check_room(std::optional<int64_t>& rows, std::string_view count_sql, size_t rows_max,
                            const std::string& what, const char* of);
    Result<void> check_terms_with(const PlanRow& plan);
    Result<Users> users(std::string_view sql, std::string_view name) const;
    Result<bool> is_there(std::string_view sql, std::string_view name) const;
    Result<void> run(SqlStatement& statement, const std::string& what);
    /// Statements with names, for what is seldom changed.
    Result<void> run(std::string_view sql, const std::string& what,
                     std::initializer_list<KeyColumns::Text> names);
    void policies_changed();

    SqlKeyStore* store_;
    SqlStatementPtr insert_key_, update_key_, erase_key_, digest_owner_, any_environment_;
    std::set<std::string, std::less<>> branches_;  // granted, as far as is known
    std::optional<int64_t> plans_, owners_;        // how many, once counted
    mutable std::optional<PolicySet> policies_;
    mutable Result<void> policies_read_;
    int64_t rows_written_ = 0;
};

}  // namespace apikeyd
