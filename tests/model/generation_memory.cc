#include "tests/model/generation_memory.h"

#include <fcntl.h>
#include <pthread.h>

#include <cerrno>
#include <cstdlib>
#include <ctime>
#include <filesystem>

#include "base/clock.h"

namespace apikey::model {
namespace {

constexpr time_t kFirstSecond = 1'800'000'000;
constexpr long kStep_ms = 20;  // so that what is due in ten milliseconds is due at the next look
long clock_steps = 0;
void (*key_destructor)(void*) = nullptr;
bool setspecific_fails = false;

shm::ControlWriter make_control() {
    char name[] = "/dev/shm/apikeyd-model-XXXXXX";
    expect(mkdtemp(name) != nullptr, "there is a directory");
    const shm::FileHandle directory(open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    auto made = shm::ControlWriter::open(directory.get(), getegid());
    std::filesystem::remove_all(name);
    expect(made.has_value(), "there is a control");
    return std::move(*made);
}

}  // namespace

void GenerationMemory::create(uint32_t generation) {
    cells_.clear();
    table_.format(generation);
    refused_ = false;
    lock_.store(0);
    named_.store(1);
}

shm::CellsView GenerationMemory::cells_view(uint8_t* base) {
    shm::CellsView view;
    view.base = base;
    view.bytes = kCellsBytes;
    view.totals = reinterpret_cast<shm::CodeTotals*>(base);
    view.totals_shards = 1;
    view.dirty = reinterpret_cast<shm::ByteWord*>(base + sizeof(shm::CodeTotals));
    view.dirty_bytes = 1;
    view.dirty_shift = 7;
    view.cells = base + kCellsOffset;
    view.cell_count = table_.view().slot_count();
    view.cell_stride = shm::cell_stride(TableMemory::kMeterWords);
    view.shards = 1;
    view.meter_words = TableMemory::kMeterWords;
    view.owners = reinterpret_cast<shm::OwnerMeters*>(base + kOwnersOffset);
    view.owner_count = table_.view().owner_count;
    view.ring = reinterpret_cast<shm::DenialRing*>(base + kRingOffset);
    view.denials = reinterpret_cast<shm::DenialEntry*>(view.ring + 1);
    return view;
}

void GenerationMemory::count(shm::CellSums* sums, uint64_t* answers) {
    const shm::CellsView cells = cells_view(cells_.data());
    for (uint64_t index = 0; index < cells.cell_count; ++index) {
        if (shm::Meta::state(table_.view().slots[index].meta.load(std::memory_order_relaxed)) !=
            shm::SlotState::kEmpty) {
            const shm::CellSums sum = shm::sum_cell(cells, index);
            sums->allowed += sum.allowed;
            sums->denied += sum.denied;
        }
    }
    for (uint32_t code = 0; code < shm::kCodesMax; ++code) {
        *answers += shm::sum_code(cells, code);
    }
}

shm::Word& GenerationMemory::meter(const KeyRow& row, uint32_t word) {
    const shm::Found found =
        find_slot(table_.view(), apikeyd::row_hash(row, table_.view().hash_seed), apikeyd::row_digest(row));
    return cells_view(cells_.data()).meter(found.index, word);
}

shm::Word& GenerationMemory::owner_meter(uint32_t owner) {
    return cells_view(cells_.data()).owners[owner].words[0];
}

bool GenerationMemory::harvest(shm::CellSums* sums, uint64_t* answers) {
    int free = 0;
    if (!lock_.compare_exchange_strong(free, -1)) {
        return false;
    }
    count(sums, answers);
    named_.store(0);
    lock_.store(0);  // the descriptor is closed
    return true;
}

shm::AttachResult GenerationMemory::attach(const shm::Control& control, shm::GenerationMapping* out) {
    plain_store(out, Where::current());
    if (std::exchange(refused_, false)) {
        return shm::AttachResult::kNoDescriptors;
    }
    if (named_.load() == 0) {
        return shm::AttachResult::kSuperseded;
    }
    int readers = lock_.load();
    do {
        if (readers < 0) {
            return shm::AttachResult::kSuperseded;
        }
    } while (!lock_.compare_exchange_strong(readers, readers + 1));
    if (!current_or_next(control, number())) {
        lock_.fetch_add(-1);
        return shm::AttachResult::kSuperseded;
    }
    out->table = table_.view_of_a_server();
    out->cells = cells_view(cells_.alias());
    return shm::AttachResult::kOk;
}

void GenerationMemory::detach(shm::GenerationMapping* mapping) {
    plain_store(mapping, Where::current());
    end_alias(mapping->cells.base);
    end_alias(mapping->table.base);
    lock_.fetch_add(-1);
    *mapping = {};
}

void fail_setspecific() {
    setspecific_fails = true;
}

void end_of_thread(void* value) {
    if (value != nullptr) {
        key_destructor(value);
    }
}

InstanceMemory& InstanceMemory::get() {
    static InstanceMemory instance{{}, make_control()};
    return instance;
}

void InstanceMemory::reset() {
    auto& words = const_cast<shm::Control&>(control.control());
    clock_steps = 0;
    words.current_next.store(0);
    control.set_state(shm::ControlState::kServing);
    control.beat(apikeyd::realtime_now_ns());
}

}  // namespace apikey::model

// In place of the system's.
extern "C" {

/// Every look at the clock is a step later.
int clock_gettime(clockid_t, timespec* now) noexcept {
    const long ms = apikey::model::clock_steps++ * apikey::model::kStep_ms;
    *now = {apikey::model::kFirstSecond + ms / 1000, ms % 1000 * 1'000'000};
    return 0;
}

/// There is one key, the client's; a simulated thread's end is end_of_thread().
int pthread_key_create(pthread_key_t* key, void (*destructor)(void*)) noexcept {
    apikey::model::key_destructor = destructor;
    *key = 0;
    return 0;
}
int pthread_setspecific(pthread_key_t, const void*) noexcept {
    return std::exchange(apikey::model::setspecific_fails, false) ? ENOMEM : 0;
}
}

namespace apikey::shm {

AttachResult attach_control(const AttachOptions&, ControlMapping* out) {
    out->control = &model::InstanceMemory::get().control.control();
    return AttachResult::kOk;
}

void detach_control(ControlMapping* mapping) {
    *mapping = {};
}

AttachResult attach_generation(const AttachOptions&, const ControlMapping& control, uint32_t generation,
                               GenerationMapping* out) {
    return model::InstanceMemory::get().generation(generation).attach(*control.control, out);
}

void detach_generation(GenerationMapping* mapping) {
    if (mapping->table.base != nullptr) {
        model::InstanceMemory::get().generation(mapping->table.generation).detach(mapping);
    }
}

}  // namespace apikey::shm
