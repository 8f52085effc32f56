// The details' end, from which everything that is written once is taken.

#pragma once

#include <cstdint>
#include <string_view>

#include "shm/table_reader.h"

namespace apikey::shm {

/// For the table's one writer.
class DetailsWriter {
  public:
    DetailsWriter(void* base, const TableView& view)
        : header_(static_cast<TableHeader*>(base)),
          details_(static_cast<uint8_t*>(base) + (view.details - view.base)),
          bytes_(view.details_bytes) {}

    /// Takes `bytes`, rounded up to units, and returns their reference; 0 when there is no room. The mark is
    /// moved first: a writer killed in between leaves bytes that nobody names, never an entry that the next
    /// one overwrites.
    uint32_t append(uint64_t bytes) {
        const uint64_t used = header_->details_used.load(std::memory_order_relaxed);
        const uint64_t rounded = round_up(bytes);
        if (used + rounded > bytes_) {
            return 0;
        }
        header_->details_used.store(used + rounded, std::memory_order_relaxed);
        return static_cast<uint32_t>(used / kDetailUnit);
    }
    uint32_t append_name(std::string_view name) {
        const uint32_t reference = append(name_bytes(name));
        if (reference != 0) {
            const NameEntry entry{static_cast<uint32_t>(name.size()), 0};
            write_plain(at(reference), &entry, sizeof entry);
            write_plain(at(reference) + sizeof entry, name.data(), name.size());
        }
        return reference;
    }
    /// Of what append() returned.
    uint8_t* at(uint32_t reference) const { return details_ + uint64_t{reference} * kDetailUnit; }

    /// What a name takes.
    static uint64_t name_bytes(std::string_view name) { return round_up(sizeof(NameEntry) + name.size()); }

  private:
    static constexpr uint64_t round_up(uint64_t bytes) {
        return (bytes + kDetailUnit - 1) / kDetailUnit * kDetailUnit;
    }

    TableHeader* header_;
    uint8_t* details_;
    uint64_t bytes_;
};

}  // namespace apikey::shm
