// Rows of the key store's tables, and what they say: one way to read them for the load, for what changed, and
// for who changes them. Private to the key store.

#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>
#include <vector>

#include "base/result.h"
#include "source/key_row.h"
#include "source/policy_rows.h"
#include "sqlite/database.h"

namespace apikeyd {

/// A statement's columns from 0 on, and its parameters from 1 on, in the order of KeyColumns.
inline constexpr std::string_view kSelectKeySql =
    "SELECT id, sha256, state, expires, plan, limits, addresses, environment, owner, name, created, "
    "\"foreign\", scopes, metadata, rowid FROM keys";

/// One row of `keys` as it stands there. Views are the statement's, or KeyText's.
struct KeyColumns {
    using Text = std::optional<std::string_view>;
    Text id, sha256, state;
    std::optional<int64_t> expires;
    Text plan, limits, addresses, environment, owner, name;
    std::optional<int64_t> created, foreign;
    Text scopes, metadata;
    int64_t rowid = 0;

    friend bool operator==(const KeyColumns&, const KeyColumns&) = default;
};
KeyColumns key_columns(const Statement& statement);
void bind_key(Statement& statement, const KeyColumns& columns);

/// A KeyRow in the form of its columns; keeps what they view.
class KeyText {
  public:
    explicit KeyText(const KeyRow& row);
    KeyText(const KeyText&) = delete;
    KeyText& operator=(const KeyText&) = delete;
    [[nodiscard]] const KeyColumns& columns() const { return columns_; }

  private:
    std::string digest_, limits_, addresses_, scopes_;
    KeyColumns columns_;
};

/// `["burst=100/s","monthly=1000000/month"]`; empty for none.
std::string format_limits(const std::vector<LimitRow>& limits);
/// A row of `plans`; the error is `column: what`.
tl::expected<PlanRow, std::string> plan_of(std::string_view name, KeyColumns::Text limits);

/// What stands beside the keys, read as it is asked for and kept until forget(). A row that breaks a rule is
/// as if it were not there. Errors of SQLite are kept: see
/// take_error().
class PolicyRows {
  public:
    static Result<PolicyRows> prepare(const Database& database);

    using Fault =
        std::function<void(const std::string& table, const std::string& row, const std::string& what)>;
    /// All of it; tells of each row that breaks a rule.
    PolicySet load(const Fault& fault);
    const std::vector<std::string>& scopes();
    /// nullptr when there is none. Valid until forget().
    const PlanRow* plan(std::string_view name);
    /// False for an owner whose plan is none: what limits the owner's keys share is not known.
    bool owner_is_sound(std::string_view name);
    void forget();
    /// The first since this was asked.
    std::optional<Error> take_error() { return std::exchange(error_, std::nullopt); }

  private:
    void note(int rc);
    void load_plans(PolicySet& set, const Fault& fault);
    void load_owners(PolicySet& set, const Fault& fault);

    const Database* database_ = nullptr;
    Statement all_scopes_, all_plans_, all_owners_, one_plan_, one_owner_;
    std::optional<std::vector<std::string>> scopes_;
    boost::unordered_flat_map<std::string, std::unique_ptr<const PlanRow>> plans_;
    boost::unordered_flat_map<std::string, bool> owners_;
    bool owners_known_ = false;  // all that are not in owners_ are sound
    std::optional<Error> error_;
};

/// Makes rows of columns. Rows that agree in their terms share them.
class KeyReader {
  public:
    explicit KeyReader(PolicyRows& policies) : policies_(policies) {}

    /// The error is `column: what`, and what is wanted.
    tl::expected<KeyRow, std::string> read(const KeyColumns& columns);
    /// After policies changed.
    void forget() { known_.clear(); }

  private:
    using Terms = tl::expected<std::shared_ptr<const KeyTerms>, std::string>;
    Terms terms_of(const KeyColumns& columns);
    Terms make_terms(const KeyColumns& columns);

    PolicyRows& policies_;
    boost::unordered_flat_map<std::string, Terms> known_;
};

/// Terms of a column `scopes`; nullopt when it is no list.
std::optional<std::vector<std::string>> granted_of(std::string_view scopes);

/// What a message calls the row. An id is shown when it is one: in its place may stand a key.
std::string row_name(const KeyColumns& columns);

/// Of rows that break a rule, the first so many, and how many there were.
class RowWarnings {
  public:
    explicit RowWarnings(std::string place) : place_(std::move(place)) {}

    void add(std::string_view table, const std::string& row, const std::string& what);
    [[nodiscard]] size_t count() const { return count_; }
    std::vector<std::string> take();

  private:
    std::string place_;
    std::vector<std::string> list_;
    size_t count_ = 0;
};

}  // namespace apikeyd
