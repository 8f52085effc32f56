#include "limit_tally.h"

#include <sys/mman.h>

#include <new>
#include <stdexcept>

namespace apikeyd::test {
LimitTally::LimitTally(size_t first, size_t keys, unsigned lanes)
    : first_(first),
      keys_(keys),
      lane_count_(lanes),
      bytes_(sizeof(Shared) + 64 + lanes * sizeof(Lane) + keys * sizeof lost_[0]) {
    void* memory =
        mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        throw std::runtime_error("no memory to share");
    }
    shared_ = new (memory) Shared{};
    lanes_ = reinterpret_cast<Lane*>(static_cast<char*>(memory) + (sizeof(Shared) + 63) / 64 * 64);
    lost_ = reinterpret_cast<std::atomic<uint64_t>*>(lanes_ + lanes);  // zero is the beginning of all of it
}

LimitTally::~LimitTally() {
    munmap(static_cast<void*>(shared_), bytes_);
}

void LimitTally::asking(unsigned lane, const uint32_t* keys, size_t count, uint32_t cost) {
    Lane& mine = lanes_[lane];
    uint32_t limited = 0;
    for (size_t i = 0; i < count; ++i) {
        if (is_limited(keys[i])) {
            mine.keys[limited++] = keys[i] - static_cast<uint32_t>(first_);
        }
    }
    mine.cost = cost;
    mine.asking.store(limited, std::memory_order_release);
}

void LimitTally::answered(unsigned lane, uint32_t key, uint32_t cost, apikey_code code, uint64_t before_ns,
                          uint64_t after_ns) {
    if (!is_limited(key)) {
        return;
    }
    if (code != APIKEY_VALID) {
        shared_->refused.fetch_add(1, std::memory_order_relaxed);
        return;
    }
    Lane& mine = lanes_[lane];
    const uint64_t number = mine.written.load(std::memory_order_relaxed);
    shared_->passed.fetch_add(1, std::memory_order_relaxed);
    if (number - mine.taken.load(std::memory_order_acquire) == kPassesMax) {
        lost_[key - first_].fetch_add(cost);  // an operator who pauses waits for this lane
        return;
    }
    mine.passes[number % kPassesMax] = {key - static_cast<uint32_t>(first_), cost, before_ns, after_ns};
    mine.written.store(number + 1, std::memory_order_release);
}

void LimitTally::done(unsigned lane) {
    lanes_[lane].asking.store(0, std::memory_order_release);
}

void LimitTally::lane_ended(unsigned lane) {
    Lane& ended = lanes_[lane];
    const uint32_t asking = ended.asking.exchange(0);
    for (uint32_t i = 0; i < asking; ++i) {
        lost_[ended.keys[i]].fetch_add(ended.cost);
    }
}

void LimitTally::forget_lost() {
    for (size_t key = 0; key < keys_; ++key) {
        lost_[key].store(0);
    }
}

std::vector<Pass> LimitTally::take() {
    std::vector<Pass> passes;
    for (unsigned i = 0; i < lane_count_; ++i) {
        Lane& lane = lanes_[i];
        const uint64_t written = lane.written.load(std::memory_order_acquire);
        for (uint64_t number = lane.taken.load(std::memory_order_relaxed); number < written; ++number) {
            passes.push_back(lane.passes[number % kPassesMax]);
        }
        lane.taken.store(written, std::memory_order_release);
    }
    return passes;
}

}  // namespace apikeyd::test
