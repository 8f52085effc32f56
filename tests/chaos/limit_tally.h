// What limited keys were answered: memory that chaos shares with its clients. Lanes write what passed, with
// the clock as they read it, and the operator reads that behind them.
//
// One operator, and each lane one thread at a time. A killed lane leaves what it was asking: so much may have
// been spent that nobody knows of.

#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "support/key_board.h"

namespace apikeyd::test {

/// A request that passed.
struct Pass {
    uint32_t key;  ///< of the limited ones, from 0
    uint32_t cost;
    uint64_t before_ns;  ///< CLOCK_REALTIME
    uint64_t after_ns;
};

class LimitTally : public LimitWitness {
  public:
    /// `first` is the first limited key's number on the board.
    LimitTally(size_t first, size_t keys, unsigned lanes);
    ~LimitTally();
    LimitTally(const LimitTally&) = delete;
    LimitTally& operator=(const LimitTally&) = delete;

    void asking(unsigned lane, const uint32_t* keys, size_t count, uint32_t cost) override;
    void answered(unsigned lane, uint32_t key, uint32_t cost, apikey_code code, uint64_t before_ns,
                  uint64_t after_ns) override;
    void done(unsigned lane) override;

    // The operator's side.
    /// After the end of a lane's thread, by whatever means.
    void lane_ended(unsigned lane);
    /// What was written since, of all lanes, in no order.
    std::vector<Pass> take();
    /// Requests that may have been spent of a key beyond what was written.
    uint64_t lost(size_t key) const { return lost_[key].load(); }
    void forget_lost();
    uint64_t passed() const { return shared_->passed.load(); }
    uint64_t refused() const { return shared_->refused.load(); }

  private:
    static constexpr size_t kPassesMax = 32768;  // of a lane, between two looks of the operator
    struct Shared {
        std::atomic<uint64_t> passed;
        std::atomic<uint64_t> refused;
    };
    struct alignas(64) Lane {
        std::atomic<uint64_t> written;
        std::atomic<uint64_t> taken;
        std::atomic<uint32_t> asking;  ///< how many of `keys` may be spent and not written
        uint32_t keys[kBatchMax];
        uint32_t cost;
        Pass passes[kPassesMax];
    };

    bool is_limited(uint32_t key) const { return key >= first_ && key - first_ < keys_; }

    size_t first_;
    size_t keys_;
    unsigned lane_count_;
    size_t bytes_;
    Shared* shared_;
    Lane* lanes_;
    std::atomic<uint64_t>* lost_;  ///< by key
};

}  // namespace apikeyd::test
