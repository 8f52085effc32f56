// Which keys' counts are wanted, and under which owner or plan they are summed up, by the key set.

#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "source/key_row.h"

namespace apikeyd {

enum class GroupBy : uint8_t { kKey, kOwner, kPlan };

/// nullopt: whatever it is. An empty name: none.
struct KeyFilter {
    std::optional<std::string> owner = std::nullopt;
    std::optional<std::string> plan = std::nullopt;

    [[nodiscard]] bool given() const { return owner || plan; }
    [[nodiscard]] bool matches(const KeyRow& row) const {
        return (!owner || *owner == row.owner) && (!plan || *plan == terms_of(row).plan);
    }
};

/// Holds 16 bytes a key that matches, and each group's name once. Not thread-safe.
class KeyGroups {
  public:
    KeyGroups(KeyFilter filter, GroupBy by) : filter_(std::move(filter)), by_(by) {}

    /// A row of the key set; after the last one, seal().
    void add(const KeyRow& row);
    void seal();

    /// The number of the group that a key's counts belong to; nullopt: they are not wanted. Without a filter
    /// a key that left the set is with those that have no owner or plan. By key there is one group.
    [[nodiscard]] std::optional<uint32_t> find(std::string_view key_id) const;
    /// Names in byte order, each with its number below their count. The one without a name is always there.
    [[nodiscard]] const std::map<std::string, uint32_t, std::less<>>& by_name() const { return names_; }
    [[nodiscard]] bool empty() const { return keys_.empty(); }

  private:
    struct Key {
        std::array<char, kKeyIdLength> id;
        uint32_t group;

        friend bool operator<(const Key& a, const Key& b) { return a.id < b.id; }
    };

    KeyFilter filter_;
    GroupBy by_;
    std::map<std::string, uint32_t, std::less<>> names_ = {{"", 0}};
    std::vector<Key> keys_;
};

}  // namespace apikeyd
