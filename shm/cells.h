// Counting: what readers add to and the daemon sums up.
//
// Thread safety: any number of adders in any number of processes; one sweeper (the daemon).
//
// Invariants
//  1. Counters only grow, by atomic adds. A key's count is a pure function of memory: the sum over the
//  shards.
//  2. A cell that was added to after the sweeper read it is marked dirty, or will be by the adder that is on
//  its
//     way.                                                                      (SYNC cell-dirty)
//  3. Everything here can be written by clients: the daemon takes no index, length or address from it.

#pragma once

#include "shm/layout.h"

namespace apikey::shm {

/// Checked geometry of mapped cells. Plain data; the mapping must outlive it. `base` is nullptr where the
/// process may not write them: nothing is counted then, and verdicts say so.
struct CellsView {
    uint8_t* base = nullptr;
    uint64_t bytes = 0;
    uint8_t* cells = nullptr;
    uint64_t cell_count = 0;
    uint32_t cell_stride = 0;
    uint32_t shards = 0;
    uint64_t shard_stride = 0;
    ByteWord* dirty = nullptr;
    uint64_t dirty_bytes = 0;
    uint32_t dirty_shift = 0;
    uint32_t totals_shards = 0;
    CodeTotals* totals = nullptr;
    uint32_t meter_words = 0;
    OwnerMeters* owners = nullptr;
    uint64_t owner_count = 0;
    DenialRing* ring = nullptr;
    DenialEntry* denials = nullptr;
    uint32_t denial_bits = 0;  ///< 2^denial_bits entries

    /// `index` < cell_count and `shard` < shards must hold; both come from checked geometry, never from
    /// memory.
    Cell& cell(uint64_t index, uint32_t shard) const {
        return *reinterpret_cast<Cell*>(cells + shard * shard_stride + index * cell_stride);
    }
    /// A key's meter word; `word` < meter_words must hold as well.
    Word& meter(uint64_t index, uint32_t word) const {
        return reinterpret_cast<Word*>(cells + index * cell_stride + sizeof(Cell))[word];
    }
};

/// A CPU's number brought into [0, shards). CPUs can be hot-plugged, so a number may lie beyond what was
/// counted. `shards` is at least 1 wherever there are cells.
inline uint32_t shard_of(uint32_t cpu, uint32_t shards) {
    return cpu < shards ? cpu : cpu % shards;  // NOLINT(clang-analyzer-core.DivideZero)
}

/// Counts one decision about the key in slot `index`.
inline void count_key(const CellsView& view, uint64_t index, uint32_t cpu, bool allowed) {
    Cell& cell = view.cell(index, shard_of(cpu, view.shards));
    (allowed ? cell.allowed : cell.denied).fetch_add(1, std::memory_order_seq_cst);
    // SYNC cell-dirty: add, this load, and the sweeper's exchange(0) and loads are seq_cst, so in their one
    // order either this load comes before the exchange - then the add does too, and the sweeper reads it - or
    // it sees the cleared byte and sets it again. With plain or relaxed operations marks were lost. The mark
    // itself is relaxed: an exchange that takes it away comes after this load, which saw none.
    ByteWord& dirty = view.dirty[index >> view.dirty_shift];
    if (dirty.load(std::memory_order_seq_cst) == 0) {
        dirty.store(1, std::memory_order_relaxed);
    }
}

/// Counts `answers` answers under their verdict code (< kCodesMax).
inline void count_code(const CellsView& view, uint32_t code, uint32_t cpu, uint64_t answers = 1) {
    view.totals[shard_of(cpu, view.totals_shards)].by_code[code].fetch_add(answers,
                                                                           std::memory_order_relaxed);
}

/// A key's counters at one moment.
struct CellSums {
    uint64_t allowed = 0;
    uint64_t denied = 0;
};

inline CellSums sum_cell(const CellsView& view, uint64_t index) {
    CellSums sums;
    for (uint32_t shard = 0; shard < view.shards; ++shard) {
        const Cell& cell = view.cell(index, shard);
        sums.allowed += cell.allowed.load(std::memory_order_seq_cst);  // SYNC cell-dirty
        sums.denied += cell.denied.load(std::memory_order_seq_cst);
    }
    return sums;
}

inline uint64_t sum_code(const CellsView& view, uint32_t code) {
    uint64_t sum = 0;
    for (uint32_t shard = 0; shard < view.totals_shards; ++shard) {
        sum += view.totals[shard].by_code[code].load(std::memory_order_relaxed);
    }
    return sum;
}

/// Calls `visit(first, last)` for each run of cells [first, last) marked since the last call, and clears the
/// marks first. The caller reads the cells with sum_cell(). Only the daemon calls this.
template <typename Visit>
void sweep_dirty(const CellsView& view, Visit visit) {
    const uint64_t step = uint64_t{1} << view.dirty_shift;
    for (uint64_t byte = 0; byte < view.dirty_bytes; ++byte) {
        // A look first: most bytes are clean, and an exchange would take the line away from the adders.
        if (view.dirty[byte].load(std::memory_order_relaxed) == 0) {
            continue;
        }
        view.dirty[byte].exchange(0, std::memory_order_seq_cst);  // SYNC cell-dirty
        const uint64_t first = byte * step;
        const uint64_t last = first + step < view.cell_count ? first + step : view.cell_count;
        visit(first, last);
    }
}

/// Marks the cells around `index` again, after a flush that failed. Only the sweeper calls this.
inline void mark_dirty(const CellsView& view, uint64_t index) {
    view.dirty[index >> view.dirty_shift].store(1, std::memory_order_relaxed);
}

}  // namespace apikey::shm
