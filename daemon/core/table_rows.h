// Rows of the source as slots of a table, and back.

#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "core/change.h"
#include "shm/table_writer.h"

namespace apikeyd {

/// Where a row's slot is looked for in a table with this seed.
uint64_t row_hash(const KeyRow& row, uint64_t seed);
apikey::shm::DigestKey row_digest(const KeyRow& row);
/// The part of the digest that two keys never share, as bytes. A view into `row`.
std::string_view row_digest_bytes(const KeyRow& row);
/// Views into `row`.
apikey::shm::DetailText row_detail(const KeyRow& row);
/// The meta word that says what `row` says, with the table's numbers for its policy and environment.
uint64_t row_meta(const KeyRow& row, uint32_t policy, uint32_t environment);

/// A slot's row as the table has it; nullopt for an empty or dead slot. Of the digest only the first 20 bytes
/// are known.
std::optional<KeyRow> row_of_slot(const apikey::shm::TableView& table, uint64_t index);

/// The rows of the same key that stand in another form, or under another id, and not dead. Walks the table.
std::vector<KeyRow> rows_of_other_form(const apikey::shm::TableView& table, const KeyRow& row);

/// What the table has of the row's key; nullopt when that is not there, or dead.
std::optional<KeyRow> row_in(const apikey::shm::TableView& table, const KeyRow& row);

/// True when the row's key is in the table, and not dead.
bool is_in(const apikey::shm::TableView& table, const KeyRow& row);

/// Whether the table's cells already carry counts under another id for the same digest.
enum class Cells : uint8_t {
    kInUse,  ///< an id may not change under a digest: what was counted belongs to the old one
    kFresh,
};

/// Makes one change in one table. The only place that turns rows into stores. False: what tightens is in
/// force; the rest needs room that this table has not, and so a new generation.
[[nodiscard]] bool apply_change(apikey::shm::TableWriter& table, const Change& change, Cells cells);

/// The same for a superseded table: the key's state, expiry and policy as the change says, no key added,
/// details left. A policy that there is no room for has the key looked for in the current table. So has any
/// where `said_in_next` is false: this is the current table, another was announced, and that one has no room
/// for the change.
void apply_change_to_superseded(apikey::shm::TableWriter& table, const Change& change,
                                bool said_in_next = true);

}  // namespace apikeyd
