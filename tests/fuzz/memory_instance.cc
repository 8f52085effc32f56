#include "memory_instance.h"

#include <ctime>

#include "shm/attach.h"
#include "shm/header_checks.h"
#include "shm/sha256_kernels.h"

namespace apikey::fuzz {
namespace {

MemoryInstance* g_instance = nullptr;

}  // namespace

MemoryInstance::MemoryInstance(uint32_t current, uint32_t next, std::vector<MemoryGeneration> generations)
    : generations_(std::move(generations)) {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    control_.magic = shm::kControlMagic;
    control_.abi = shm::kAbi;
    control_.layout_hash = shm::layout_hash();
    control_.state.store(static_cast<uint32_t>(shm::ControlState::kServing));
    control_.current_next.store(shm::make_current_next(current, next));
    control_.heartbeat_ns.store(static_cast<uint64_t>(now.tv_sec) * 1'000'000'000);
    g_instance = this;
}

MemoryInstance::~MemoryInstance() {
    g_instance = nullptr;
}

const MemoryGeneration* MemoryInstance::find(uint32_t generation) const {
    for (const MemoryGeneration& one : generations_) {
        if (one.number == generation) {
            return &one;
        }
    }
    return nullptr;
}

}  // namespace apikey::fuzz

namespace apikey::shm {

/// The machine's own kernel would want flags of its own to be compiled.
const Sha256Kernel& sha256_kernel() {
    return kSha256Portable;
}

AttachResult attach_control(const AttachOptions& /*options*/, ControlMapping* out) {
    if (fuzz::g_instance == nullptr) {
        return AttachResult::kWaiting;
    }
    const Control& control = fuzz::g_instance->control();
    const AttachResult result = check_control(&control, sizeof control);
    if (result == AttachResult::kOk) {
        out->control = &control;
    }
    return result;
}

void detach_control(ControlMapping* mapping) {
    *mapping = ControlMapping{};
}

AttachResult attach_generation(const AttachOptions& /*options*/, const ControlMapping& control,
                               uint32_t generation, GenerationMapping* out) {
    const fuzz::MemoryGeneration* files =
        fuzz::g_instance != nullptr ? fuzz::g_instance->find(generation) : nullptr;
    if (files == nullptr || !current_or_next(*control.control, generation)) {
        return AttachResult::kSuperseded;
    }
    GenerationMapping mapping;
    AttachResult result =
        check_table(files->table->data(), files->table->bytes(), generation, &mapping.table);
    if (result == AttachResult::kOk && files->cells != nullptr) {
        result = check_cells(files->cells->data(), files->cells->bytes(), mapping.table, &mapping.cells);
    }
    if (result == AttachResult::kOk) {
        *out = mapping;
    }
    return result;
}

void detach_generation(GenerationMapping* mapping) {
    *mapping = GenerationMapping{};
}

}  // namespace apikey::shm
