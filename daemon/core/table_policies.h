// Scopes, plans, owners and terms of the source as policies of a table, and back.

#pragma once

#include <boost/unordered/unordered_flat_set.hpp>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "shm/table_writer.h"
#include "source/key_row.h"

namespace apikeyd {

/// What a row may do, as a table is told it. `row` must outlive it.
class RowPolicy {
  public:
    explicit RowPolicy(const KeyRow& row);
    apikey::shm::PolicyText text() const;

  private:
    const KeyRow& row_;
    std::vector<apikey::shm::AddressRange> addresses_;
    std::vector<apikey::shm::Limit> overrides_;
};

/// The name of a plan by its number; empty for 0, and for what is none. A view into the table.
std::string_view plan_name(const apikey::shm::TableView& table, uint32_t plan);
/// The terms that a policy of a table says; nullptr for none.
std::shared_ptr<const KeyTerms> terms_of_policy(const apikey::shm::TableView& table,
                                                const apikey::shm::Policy& policy);

/// Scopes, plans and owners of a table, all of them or as many as there is room for; false when there was
/// not room for all. An owner's plan is taken away when `set` has none for it.
///
/// `from` is for a table that nobody reads yet: the one that its meters will be carried over from.
bool set_policies(apikey::shm::TableWriter& table, const PolicySet& set,
                  const apikey::shm::TableView* from = nullptr);
/// The same for a superseded table: what it has no room for is looked for in the current one. `next` is for
/// the current table once another was announced: that one, in which `set` is in force already. Limits get the
/// meter words that they have there, since these go on in the words of the same numbers; a plan for which
/// that cannot be, or that is not so there, is looked for in `next`.
void set_policies_in_superseded(apikey::shm::TableWriter& table, const PolicySet& set,
                                const apikey::shm::TableView* next = nullptr);

/// What a table says; for one that another daemon left.
PolicySet policies_of(const apikey::shm::TableView& table);
/// `set` and those plans of `names` that it lacks and `table` says.
PolicySet with_plans_of(const apikey::shm::TableView& table, PolicySet set,
                        const boost::unordered_flat_set<std::string_view>& names);

/// Meter words that a key needs under any of the plans, whose limits keep those that they have in `from`
/// (nullptr: there is none).
uint32_t meter_words_of(const PolicySet& set, const apikey::shm::TableView* from = nullptr);
/// Room that `set` takes; details in bytes.
apikey::shm::TableGeometry::Policies entries_of(const PolicySet& set);
uint64_t details_bytes_of(const PolicySet& set);

}  // namespace apikeyd
