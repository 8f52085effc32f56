// The only thing that stores into a published table. One writer at a time, for the file's whole life: the
// daemon that holds the instance lock. Readers run at the same time, in any process; see table_reader.h for
// the invariants that this class keeps.

#pragma once

#include <boost/unordered/unordered_flat_set.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "shm/details_writer.h"
#include "shm/policy_writer.h"

namespace apikey::shm {

/// Sizes of a generation, decided before its files are created.
struct TableGeometry {
    uint64_t slot_count;
    uint64_t details_bytes;
    uint64_t policy_capacity;  ///< these with entry 0, which says nothing
    uint64_t plan_capacity;
    uint64_t owner_capacity;
    uint64_t scope_capacity;

    /// What the policies of a table need. Plans and owners with a plan, besides entry 0.
    struct Policies {
        uint64_t policies = 0;
        uint64_t plans = 0;
        uint64_t owners = 0;
    };
    /// Room for `keys` keys whose details take `details_bytes` (see detail_bytes()), and for a quarter more
    /// of everything.
    static TableGeometry for_keys(uint64_t keys, uint64_t details_bytes, const Policies& policies);
    uint64_t file_bytes() const;
    uint64_t slots_offset() const { return kPageBytes; }
    uint64_t seeds_offset() const { return slots_offset() + slot_count * sizeof(Slot); }
    uint64_t seed_count() const { return slot_count / kSlotsPerLine / kGroupLines; }
    uint64_t policies_offset() const {
        return (seeds_offset() + seed_count() + sizeof(Policy) - 1) / sizeof(Policy) * sizeof(Policy);
    }
    uint64_t plans_offset() const { return policies_offset() + policy_capacity * sizeof(Policy); }
    uint64_t owners_offset() const { return plans_offset() + plan_capacity * sizeof(PlanSlot); }
    uint64_t scopes_offset() const { return owners_offset() + owner_capacity * sizeof(OwnerSlot); }
    uint64_t details_offset() const { return scopes_offset() + scope_capacity * sizeof(ScopeName); }
};

/// Share of slots in use at which a table is full, and at which a new one is built. Percent.
inline constexpr uint64_t kLoadMax = 75;
inline constexpr uint64_t kLoadBuilt = 60;
/// Lines a probe looks at before it gives up; an insert that needs more asks for a new generation.
inline constexpr uint32_t kProbeLinesMax = 64;

/// The words of a key that stand in its details.
struct DetailText {
    std::string_view id = {};
    std::string_view owner = {};
    std::string_view name = {};
    std::string_view metadata = {};
    uint32_t created_s = 0;
    bool foreign = false;
};

class TableWriter {
  public:
    /// Writes the header of an empty table into `base` (zeroed, geometry.file_bytes() long). Nobody else may
    /// have mapped the file yet.
    static void format(void* base, const TableGeometry& geometry, uint32_t generation, uint32_t predecessor,
                       const uint8_t (&uid)[kUidLength], uint64_t hash_seed);

    /// Takes over a table that check_table() accepted, empty or full. `base` must stay mapped read-write.
    /// `meter_words` are those of each key in the cells.
    TableWriter(void* base, const TableView& view, uint32_t meter_words = 0);
    TableWriter(const TableWriter&) = delete;
    TableWriter& operator=(const TableWriter&) = delete;

    /// Makes room at home for keys with these hashes (see group_seeds.h), and for none in particular where it
    /// is not called. Only while no slot was ever used: a seed says where its group's keys are found.
    /// By so many threads.
    void spread(std::vector<uint64_t> hashes, unsigned threads = 1);

    const TableView& view() const { return view_; }
    const TableHeader& header() const { return view_.header(); }
    /// Plans, owners, scopes, and the policies that metas name.
    PolicyWriter& policies() { return policies_; }
    const PolicyWriter& policies() const { return policies_; }

    /// Bytes that a key's details take at most, its owner's entry included.
    static uint64_t detail_bytes(const DetailText& text);
    /// Of these, what the owner's entry takes; keys of one owner share it.
    static uint64_t owner_bytes(std::string_view owner);
    /// True when `keys` more keys with details of `details_bytes` fit.
    bool has_room(uint64_t keys, uint64_t details_bytes) const;
    /// Dead slots have passed a quarter of the table: worth a new generation.
    bool mostly_dead() const;

    /// The number of an environment's name, adding it when new; nullopt when all are taken. "" is 0.
    std::optional<uint32_t> environment(std::string_view name);
    /// Appends details; 0 when there is no room. The entry is unreachable until a slot names it.
    uint32_t append_detail(const DetailText& text);
    /// True when the details behind a reference say exactly this.
    bool same_detail(uint32_t reference, const DetailText& text) const;

    enum class Publish { kDone, kNoRoom };
    /// Adds a key, or revives its dead slot. The key must not be in the table alive.
    Publish publish(uint64_t hash, const DigestKey& key, uint64_t meta, uint32_t detail, bool foreign);
    /// Changes a slot that is in use. What tightens is in force, in every process, when this returns.
    void set_meta(uint64_t index, uint64_t meta);
    void set_detail(uint64_t index, uint32_t detail);

    /// Looks at every slot: state, policy, environment, details, and that readers find it where it is. False
    /// when anything does not hold; then the table is not to be adopted. Repairs nothing but the counts.
    bool scan();

  private:
    // A name's place in the details stands for the name, which is there.
    struct NameHash {
        using is_transparent = void;
        const TableView* view;
        size_t operator()(std::string_view name) const { return std::hash<std::string_view>()(name); }
        size_t operator()(uint32_t reference) const { return (*this)(read_name(*view, reference).string()); }
    };
    struct NameEqual {
        using is_transparent = void;
        const TableView* view;
        bool operator()(uint32_t a, uint32_t b) const { return a == b; }
        bool operator()(std::string_view name, uint32_t reference) const {
            return name == read_name(*view, reference).string();
        }
        bool operator()(uint32_t reference, std::string_view name) const { return (*this)(name, reference); }
    };

    bool scan_slot(uint64_t index, uint64_t meta, DetailView* detail);
    TableHeader& mutable_header() { return *reinterpret_cast<TableHeader*>(base_); }
    Slot& slot(uint64_t index) { return const_cast<Slot&>(view_.slots[index]); }
    bool is_foreign(uint64_t index) const;
    void count_change(uint64_t old_meta, uint64_t new_meta, bool foreign);
    uint32_t intern_owner(std::string_view name);

    uint8_t* base_;
    TableView view_;
    DetailsWriter details_;
    PolicyWriter policies_;
    boost::unordered_flat_set<uint32_t, NameHash, NameEqual>
        owners_;  // NameEntries by their names, of what this writer appended or scanned
};

}  // namespace apikey::shm
