// The only thing that stores into the policies of a published table: scopes, plans, owners, and the entries
// that metas name. See policy_reader.h for the invariants that this class keeps.

#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <boost/unordered/unordered_flat_set.hpp>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "shm/details_writer.h"
#include "shm/policy_reader.h"

namespace apikey::shm {

/// What a key may do, before the table has a number for it.
struct PolicyText {
    std::span<const std::string> scopes = {};  ///< names that are granted
    std::string_view plan = {};                ///< "": none
    std::string_view owner = {};  ///< whose limits the key shares, when the table knows a plan for it
    std::span<const AddressRange> addresses = {};
    std::span<const Limit> overrides = {};  ///< tag and word are the table's to choose

    /// Of the key itself.
    bool says_nothing() const {
        return scopes.empty() && plan.empty() && addresses.empty() && overrides.empty();
    }
};

/// For the table's one writer. Everything here is looked for before it is appended.
class PolicyWriter {
  public:
    /// Reads what the table has. `meter_words` are those of each key in the cells.
    PolicyWriter(void* base, const TableView& view, uint32_t meter_words);

    /// The number of the policy that says this; nullopt when there is no room for it, or when its plan was
    /// never set.
    std::optional<uint32_t> policy(const PolicyText& text);
    /// The bit of a scope's name; nullopt when all are taken.
    std::optional<uint32_t> scope(std::string_view name);
    /// Changes a plan for all who have it, by one store; tag and word are chosen here. False: there is no
    /// room, of details, plans or meter words.
    ///
    /// Meters go on from one generation to the next word by word: a table that nobody reads yet is told in
    /// `before` what the plan is in the one before, and a limit that is there keeps its word.
    bool set_plan(std::string_view name, std::span<const Limit> limits,
                  const ListReader<Limit>* before = nullptr);
    /// For a plan that this table cannot say: its keys are looked for in the current one.
    void set_plan_elsewhere(std::string_view name);
    /// The plan whose limits all keys of an owner share, by one store; "": none. False: there is no room, and
    /// until there is, none for policies of the owner's keys either.
    bool set_owner(std::string_view name, std::string_view plan);
    /// The owner's number; 0: it never had a plan here.
    uint32_t owner(std::string_view name) const;
    /// Whether all that is appended lies where the header says, so that the table may be adopted.
    bool whole() const;

    /// Bytes of details that these take at most.
    static uint64_t policy_bytes(const PolicyText& text);
    static uint64_t plan_bytes(std::string_view name, size_t limits);

  private:
    using Numbers = boost::unordered_flat_map<std::string, uint32_t>;
    TableHeader& header() { return *reinterpret_cast<TableHeader*>(base_); }
    template <typename Entry>
    Entry& entry(const Entry* of_view, uint64_t number) {
        return const_cast<Entry*>(of_view)[number];
    }
    std::optional<uint32_t> known_plan(std::string_view name) const;
    std::optional<uint32_t> plan(std::string_view name);
    template <typename Element>
    uint32_t append_list(std::span<const Element> elements, uint32_t words_used);
    template <typename Element>
    std::optional<uint32_t> intern_list(std::span<const Element> elements);
    template <typename Element>
    void note_list(uint32_t reference);
    void note_policy(uint32_t number, const Policy& policy);
    bool place_owner(std::string_view name, std::string_view plan);
    bool choose_words(std::vector<Limit>& limits, const ListReader<Limit>& before,
                      uint32_t* words_used) const;

    uint8_t* base_;
    TableView view_;
    DetailsWriter details_;
    uint32_t meter_words_;
    Numbers scopes_;
    Numbers plans_;
    Numbers owners_;
    boost::unordered_flat_set<std::string> owners_without_room_;
    // By a hash of what they say; compared before they are taken for the same.
    boost::unordered_flat_map<uint64_t, uint32_t> lists_;
    boost::unordered_flat_map<uint64_t, uint32_t> policies_;
};

}  // namespace apikey::shm
