#include "core/meter_mover.h"

#include <algorithm>
#include <boost/unordered/unordered_flat_map.hpp>
#include <string_view>

#include "shm/index_hash.h"
#include "shm/meters.h"

namespace apikeyd {

using apikey::shm::carry_over;
using apikey::shm::CellsView;
using apikey::shm::DetailView;
using apikey::shm::kMovedBit;
using apikey::shm::kNoSlot;
using apikey::shm::Slot;
using apikey::shm::TableView;
using apikey::shm::Word;

namespace {

/// Where the key of a slot, dead or alive, stands in the other table; kNoSlot when it does not.
uint64_t place_in(const TableView& to, const Slot& slot, const DetailView& detail) {
    if (!detail.foreign && detail.id_bytes != apikey::shm::kIdLength) {
        return kNoSlot;
    }
    const auto* digest = reinterpret_cast<const uint8_t*>(slot.digest);
    const uint64_t hash = detail.foreign ? apikey::shm::index_hash_digest(digest, to.hash_seed)
                                         : apikey::shm::index_hash_id(detail.id, to.hash_seed);
    return find_slot(to, hash, {{slot.digest[0], slot.digest[1]}, slot.tag}).index;
}

/// `to` is nullptr where the word goes on nowhere.
void move_word(Word& from, Word* to) {
    if (to != nullptr) {
        carry_over(from, *to);
    } else {
        from.fetch_or(kMovedBit, std::memory_order_acq_rel);  // SYNC meter-moved
    }
}

void move_keys(const Metered& from, const Metered& to) {
    const CellsView& old_cells = from.cells;
    const CellsView& new_cells = to.cells;
    const TableView& old_table = from.table;
    for (uint64_t index = 0; index < old_table.slot_count(); ++index) {
        uint64_t meta = 0;
        DetailView detail;
        // No slot of `from` leaves empty any more: additions go to `to` alone.
        if (!see_slot(old_table, index, &meta, &detail)) {
            continue;
        }
        const uint64_t place =
            new_cells.base != nullptr ? place_in(to.table, old_table.slots[index], detail) : kNoSlot;
        for (uint32_t word = 0; word < old_cells.meter_words; ++word) {
            const bool goes_on = place != kNoSlot && word < new_cells.meter_words;
            move_word(old_cells.meter(index, word), goes_on ? &new_cells.meter(place, word) : nullptr);
        }
    }
}

std::string_view owner_name(const TableView& table, uint64_t number) {
    return read_name(table, table.owners[number].name).string();
}

void move_owners(const Metered& from, const Metered& to) {
    const TableView& old_table = from.table;
    const TableView& new_table = to.table;
    const auto owners_of = [](const TableView& table) {
        // SYNC owner-named: acquire, for the names.
        return std::min(table.header().owners_used.load(std::memory_order_acquire), table.owner_count);
    };
    boost::unordered_flat_map<std::string_view, uint64_t> places;
    for (uint64_t number = 1; to.cells.base != nullptr && number < owners_of(new_table); ++number) {
        places.emplace(owner_name(new_table, number), number);
    }
    for (uint64_t number = 1; number < owners_of(old_table); ++number) {
        const auto place = places.find(owner_name(old_table, number));
        for (uint32_t word = 0; word < apikey::shm::kMeterWordsMax; ++word) {
            move_word(from.cells.owners[number].words[word],
                      place != places.end() ? &to.cells.owners[place->second].words[word] : nullptr);
        }
    }
}

}  // namespace

bool has_meters(const Metered& from) {
    return from.cells.base != nullptr && (from.cells.meter_words != 0 || from.table.header().owners_used.load(
                                                                             std::memory_order_relaxed) > 1);
}

void move_meters(const Metered& from, const Metered& to) {
    if (has_meters(from)) {
        move_keys(from, to);
        move_owners(from, to);
    }
}

}  // namespace apikeyd
