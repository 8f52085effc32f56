// Counting: sums over shards, the dirty map, and that no count goes unseen by a sweep.

#include "shm/cells.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace apikey::shm;

/// Cells in ordinary memory, 16 a dirty byte.
class CellsMemory {
  public:
    CellsMemory(uint64_t cells, uint32_t shards)
        : bytes_(shards * cells * sizeof(Cell) + cells + 2 * sizeof(CodeTotals)),
          base_(static_cast<uint8_t*>(std::aligned_alloc(64, (bytes_ + 63) / 64 * 64)), std::free) {
        std::memset(base_.get(), 0, bytes_);
        view.base = base_.get();
        view.bytes = bytes_;
        view.totals = reinterpret_cast<CodeTotals*>(base_.get());
        view.totals_shards = 2;
        view.cells = base_.get() + 2 * sizeof(CodeTotals);
        view.cell_count = cells;
        view.cell_stride = sizeof(Cell);
        view.shards = shards;
        view.shard_stride = cells * sizeof(Cell);
        view.dirty = reinterpret_cast<ByteWord*>(view.cells + shards * view.shard_stride);
        view.dirty_shift = 4;
        view.dirty_bytes = (cells + 15) / 16;
    }
    CellsView view;

  private:
    uint64_t bytes_;
    std::unique_ptr<uint8_t, void (*)(void*)> base_;
};

using Runs = std::vector<std::pair<uint64_t, uint64_t>>;

Runs sweep(const CellsView& view) {
    Runs runs;
    sweep_dirty(view, [&](uint64_t first, uint64_t last) { runs.emplace_back(first, last); });
    return runs;
}

TEST(Cells, AKeysCountIsTheSumOverTheShards) {
    CellsMemory memory(40, 4);
    for (uint32_t cpu = 0; cpu < 4; ++cpu) {
        for (uint32_t i = 0; i <= cpu; ++i) {
            count_key(memory.view, 17, cpu, true);
        }
        count_key(memory.view, 17, cpu, false);
    }
    EXPECT_EQ(sum_cell(memory.view, 17).allowed, 10u);
    EXPECT_EQ(sum_cell(memory.view, 17).denied, 4u);
    EXPECT_EQ(sum_cell(memory.view, 16).allowed, 0u);
    EXPECT_EQ(sum_cell(memory.view, 18).allowed, 0u);
    EXPECT_EQ(memory.view.cell(17, 2).allowed.load(), 3u);
}

TEST(Cells, ACpuBeyondTheShardsStillCounts) {
    CellsMemory memory(16, 3);
    count_key(memory.view, 0, 200, true);
    count_code(memory.view, 5, 200);
    EXPECT_EQ(sum_cell(memory.view, 0).allowed, 1u);
    EXPECT_EQ(sum_code(memory.view, 5), 1u);
    EXPECT_EQ(shard_of(2, 3), 2u);
    EXPECT_EQ(shard_of(200, 3), 2u);
}

TEST(Cells, CodesAreCountedApart) {
    CellsMemory memory(16, 1);
    for (uint32_t code = 0; code < kCodesMax; ++code) {
        for (uint32_t i = 0; i < code; ++i) {
            count_code(memory.view, code, i);
        }
    }
    for (uint32_t code = 0; code < kCodesMax; ++code) {
        EXPECT_EQ(sum_code(memory.view, code), code);
    }
    EXPECT_EQ(sweep(memory.view), Runs{}) << "codes belong to no key";
}

TEST(Cells, ASweepVisitsWhatWasMarkedOnce) {
    CellsMemory memory(40, 2);
    EXPECT_EQ(sweep(memory.view), Runs{});
    count_key(memory.view, 3, 0, true);
    count_key(memory.view, 15, 1, false);
    count_key(memory.view, 39, 0, true);
    EXPECT_EQ(sweep(memory.view), (Runs{{0, 16}, {32, 40}})) << "the last run ends with the cells";
    EXPECT_EQ(sweep(memory.view), Runs{});
    count_key(memory.view, 16, 0, true);
    EXPECT_EQ(sweep(memory.view), (Runs{{16, 32}}));
}

TEST(Cells, AFailedFlushMarksAgain) {
    CellsMemory memory(40, 1);
    mark_dirty(memory.view, 20);
    EXPECT_EQ(sweep(memory.view), (Runs{{16, 32}}));
    EXPECT_EQ(sweep(memory.view), Runs{});
}

TEST(Cells, NoCountIsLostBetweenAddersAndASweeper) {
    constexpr uint64_t kCells = 64;
    constexpr unsigned kAdders = 3;
    constexpr uint64_t kAdds = 60000;
    CellsMemory memory(kCells, 2);
    std::vector<uint64_t> seen(kCells);  // as the last sweep that visited the cell read it
    std::atomic<unsigned> running{kAdders};
    const auto visit = [&](uint64_t first, uint64_t last) {
        for (uint64_t index = first; index < last; ++index) {
            const CellSums sums = sum_cell(memory.view, index);
            EXPECT_GE(sums.allowed + sums.denied, seen[index]) << "counts only grow";
            seen[index] = sums.allowed + sums.denied;
        }
    };
    std::vector<std::thread> adders;
    for (unsigned adder = 0; adder < kAdders; ++adder) {
        adders.emplace_back([&, adder] {
            for (uint64_t i = 0; i < kAdds; ++i) {
                count_key(memory.view, (i * 7 + adder) % kCells, adder, i % 4 != 0);
            }
            running.fetch_sub(1);
        });
    }
    while (running.load() != 0) {
        sweep_dirty(memory.view, visit);
    }
    for (std::thread& adder : adders) {
        adder.join();
    }
    sweep_dirty(memory.view, visit);
    uint64_t total = 0;
    for (uint64_t index = 0; index < kCells; ++index) {
        total += seen[index];
        EXPECT_EQ(seen[index], sum_cell(memory.view, index).allowed + sum_cell(memory.view, index).denied)
            << "cell " << index << " was added to after the last sweep that saw its mark";
    }
    EXPECT_EQ(total, kAdders * kAdds);
}

}  // namespace
