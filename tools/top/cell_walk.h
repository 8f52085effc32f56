// Walks the cells of a generation: who was counted since the last walk, and which limits are nearly used up.
//
// Nothing is written to what is mapped, which may be read-only. Not thread-safe; clients count meanwhile.

#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "shm/attach.h"
#include "tools/top/model.h"

namespace apikeyd::top {

/// The counters of all cells as the last walk found them. Memory that holds zeroes is not touched, so what is
/// used of it grows with the keys that were ever counted, not with the table.
class CellBaseline {
  public:
    /// All zero. Throws std::bad_alloc.
    explicit CellBaseline(uint64_t cells);

    /// Calls `visit(index, grown)` for each cell that grew, and remembers it. A counter that fell is taken as
    /// it is now.
    template <typename Visit>
    void advance(const apikey::shm::CellsView& cells, Visit visit) {
        for (uint64_t index = 0; index < cells.cell_count; ++index) {
            const apikey::shm::CellSums now = sum_cell(cells, index);
            apikey::shm::CellSums& before = sums_[index];
            if (now.allowed == before.allowed && now.denied == before.denied) [[likely]] {
                continue;
            }
            const apikey::shm::CellSums grown{now.allowed > before.allowed ? now.allowed - before.allowed : 0,
                                              now.denied > before.denied ? now.denied - before.denied : 0};
            before = now;
            visit(index, grown);
        }
    }

  private:
    struct Free {
        void operator()(void* memory) const { free(memory); }
    };
    std::unique_ptr<apikey::shm::CellSums[], Free> sums_;
};

/// Adds the `count` busiest keys of a generation since the last walk to `activity`, whose `seconds` are since
/// then. With 0 seconds nothing is added: the baseline only becomes what is counted now.
void walk_counts(const apikey::shm::GenerationMapping& generation, CellBaseline* baseline, Sort sort,
                 size_t count, Activity* activity);

/// Adds the limits of keys and owners of which more than kNearShare is used, by the meters of this
/// generation; what has moved to another one is found there. `now_ns` is CLOCK_REALTIME.
void walk_limits(const apikey::shm::GenerationMapping& generation, uint64_t now_ns, size_t count,
                 Activity* activity);

/// Marks of cells that were counted since the daemon's last sweep, times the cells that share one.
uint64_t unflushed_max(const apikey::shm::CellsView& cells);

}  // namespace apikeyd::top
