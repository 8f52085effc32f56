// Rows of the key store's tables in the form of their columns, whatever database has them: what they say, and
// how a row is written. Private to the key store.

#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "source/key_row.h"
#include "source/policy_rows.h"

namespace apikeyd {

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

/// What stands beside the keys, as rows of keys are judged by it. A row of it that breaks a rule is as if it
/// were not there.
class RowPolicies {
  public:
    virtual ~RowPolicies() = default;
    virtual const std::vector<std::string>& scopes() = 0;
    /// nullptr when there is none.
    virtual const PlanRow* plan(std::string_view name) = 0;
    /// False for an owner whose plan is none: what limits the owner's keys share is not known.
    virtual bool owner_is_sound(std::string_view name) = 0;
};

/// Makes rows of columns. Rows that agree in their terms share them.
class KeyReader {
  public:
    /// Keeps `policies`.
    explicit KeyReader(RowPolicies& policies) : policies_(policies) {}

    /// The error is `column: what`, and what is wanted.
    tl::expected<KeyRow, std::string> read(const KeyColumns& columns);
    /// After policies changed.
    void forget() { known_.clear(); }

  private:
    using Terms = tl::expected<std::shared_ptr<const KeyTerms>, std::string>;
    Terms terms_of(const KeyColumns& columns);
    Terms make_terms(const KeyColumns& columns);

    RowPolicies& policies_;
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
