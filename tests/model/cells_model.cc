// Two threads that count, and the daemon's sweep.
//
// Promises: whatever the sweep has not seen is marked for the next one; sums only grow, and end as the number
// of what was counted.

#include <array>

#include "shm/cells.h"
#include "tests/model/simulation.h"

namespace apikey::model {
namespace {

constexpr uint64_t kCells = 2;
constexpr unsigned kSweeper = 2;
constexpr unsigned kSweeps = 2;

class Cells : public Scenario {
  public:
    void before() override {
        view_.base = reinterpret_cast<uint8_t*>(cells_.data());
        view_.cells = view_.base;
        view_.cell_count = kCells;
        view_.cell_stride = sizeof(shm::Cell);
        view_.shards = 1;
        view_.shard_stride = sizeof cells_;
        view_.dirty = &dirty_;
        view_.dirty_bytes = 1;
        view_.dirty_shift = 1;
    }

    void thread(unsigned number) override {
        if (number == kSweeper) {
            for (unsigned i = 0; i < kSweeps; ++i) {
                shm::sweep_dirty(view_, [this](uint64_t first, uint64_t last) { note(first, last); });
            }
            return;
        }
        shm::count_key(view_, number, 0, true);
        shm::count_key(view_, 0, 0, false);
    }

    void after() override {
        for (uint64_t cell = 0; cell < kCells; ++cell) {
            const shm::CellSums sums = shm::sum_cell(view_, cell);
            const bool seen = sums.allowed == swept_[cell].allowed && sums.denied == swept_[cell].denied;
            expect(seen || dirty_.load() != 0, "what the sweep has not seen is marked");
            expect(sums.allowed == 1 && sums.denied == (cell == 0 ? 2 : 0), "nothing is lost");
        }
    }

  private:
    void note(uint64_t first, uint64_t last) {
        for (uint64_t cell = first; cell < last; ++cell) {
            const shm::CellSums sums = shm::sum_cell(view_, cell);
            expect(sums.allowed >= swept_[cell].allowed && sums.denied >= swept_[cell].denied,
                   "counts only grow");
            swept_[cell] = sums;
        }
    }

    std::array<shm::Cell, kCells> cells_{};
    shm::ByteWord dirty_{0};
    shm::CellsView view_;
    std::array<shm::CellSums, kCells> swept_{};
};

}  // namespace
}  // namespace apikey::model

int main(int argc, char** argv) {
    return apikey::model::simulate<apikey::model::Cells>(argc, argv, 3);
}
