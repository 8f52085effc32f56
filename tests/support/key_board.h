// What clients may be answered for each key, and what they were: memory that a test shares with the processes
// which it forks to validate. One operator says what to expect, any number of lanes call and tally; a lane is
// a thread of some process.
//
// A call is judged only when the expectation was the same before and after it, and a killed lane leaves what
// it was asking, so that one call of it may be counted or not.

#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "apikey/apikey.h"
#include "shm/key_form.h"
#include "support/site.h"

namespace apikeyd::test {

enum class Expect : uint32_t {
    kEither,
    kValid,
    kNotValid,
    kLimited,  ///< VALID, or refused by a limit, which no other key ever is
};

inline constexpr size_t kBatchMax = 16;

struct Violation {
    uint32_t key;
    apikey_code code;
    Expect expected;
    uint32_t lane;
    uint64_t at_ns;  ///< CLOCK_MONOTONIC
};

/// Told what is asked and answered, by the lanes.
class LimitWitness {
  public:
    virtual ~LimitWitness() = default;
    /// Before a call, which may be the lane's last: so much may be spent of these keys.
    virtual void asking(unsigned lane, const uint32_t* keys, size_t count, uint32_t cost) = 0;
    /// The clock (CLOCK_REALTIME) was read before and after the call, which read it in between.
    virtual void answered(unsigned lane, uint32_t key, uint32_t cost, apikey_code code, uint64_t before_ns,
                          uint64_t after_ns) = 0;
    virtual void done(unsigned lane) = 0;
};

class KeyBoard {
  public:
    /// `limits` may be nullptr, and must outlive the board.
    KeyBoard(size_t keys_max, unsigned lanes, LimitWitness* limits = nullptr);
    ~KeyBoard();
    KeyBoard(const KeyBoard&) = delete;
    KeyBoard& operator=(const KeyBoard&) = delete;

    // The operator's side.
    size_t add(std::string_view text, Expect expect);
    void expect(size_t key, Expect expect);
    /// Has clients ask for this one often: what they read may be an old generation yet.
    void note_revoked(size_t key);
    bool full() const { return size() == keys_max_; }
    /// While it is so, UNAVAILABLE is no violation: the clients' own files were spoilt.
    void allow_unavailable(bool allowed) { shared_->unavailable_allowed.store(allowed); }
    /// Returns when no lane is in a call; none begins one before resume(). False: patience ended.
    bool pause();
    void resume() { shared_->paused.store(false); }
    void stop() { shared_->stopped.store(true); }
    /// After the end of a lane's thread, by whatever means.
    void lane_ended(unsigned lane);

    // A lane's side.
    size_t size() const { return shared_->size.load(std::memory_order_acquire); }
    /// A key that was revoked lately, for any number.
    size_t revoked_lately(size_t number) const;
    bool stopped() const { return shared_->stopped.load(std::memory_order_relaxed); }
    /// Before each call: waits while the board is paused.
    void before_call(unsigned lane);
    void leave(unsigned lane) { lanes_[lane].state.store(kIdle); }
    /// Validates these keys in one batch, or one alone by a single call; judges and tallies.
    void call(unsigned lane, apikey_client* client, const size_t* keys, size_t count);
    /// The same for a request that asks for more.
    apikey_code call_one(unsigned lane, apikey_client* client, size_t key, const apikey_request& request);

    // What came of it.
    uint64_t validations(unsigned lane) const { return lanes_[lane].validations.load(); }
    uint64_t validations() const;
    uint64_t violations() const { return shared_->violations.load(); }
    /// The first ones, up to some number.
    std::vector<Violation> first_violations() const;
    /// The store's totals against the tallies: a line for each key and code that differs, the first few.
    std::vector<std::string> differences(const Totals& told) const;
    /// From here on only what is made more is compared.
    void take_as_right(const Totals& told);

  private:
    enum LaneState : uint32_t { kIdle, kCalling, kPaused };
    static constexpr size_t kFirstMax = 16;
    static constexpr size_t kLately = 16;

    struct Shared {
        std::atomic<size_t> size;
        std::atomic<bool> stopped;
        std::atomic<bool> paused;
        std::atomic<bool> unavailable_allowed;
        std::atomic<uint64_t> violations;
        std::atomic<size_t> told;  ///< how many of `first` are complete, in any order
        Violation first[kFirstMax];
        std::atomic<uint64_t> codes[16];
        std::atomic<uint64_t> revoked;
        std::atomic<uint32_t> lately[kLately];
    };
    struct alignas(64) Lane {
        std::atomic<uint32_t> state;
        std::atomic<uint32_t> asking;  ///< how many of `keys` may be counted and not tallied
        uint32_t keys[kBatchMax];
        std::atomic<uint64_t> validations;
    };
    /// The text is written before the size says that it is there.
    struct Key {
        std::atomic<uint32_t> expected;  ///< changes << 2 | Expect
        uint32_t length;
        char text[apikey::shm::kNativeKeyLengthMax];
        std::atomic<uint64_t> allowed;
        std::atomic<uint64_t> denied;
    };
    /// What is compared with what the store tells: made <= told - forgiven <= made + killed.
    struct Margin {
        uint64_t killed = 0;
        int64_t forgiven_allowed = 0;
        int64_t forgiven_denied = 0;
    };

    /// A call of a lane: what was expected before it.
    struct Call {
        uint32_t expected[kBatchMax];
        uint32_t cost;
        uint64_t before_ns;
    };
    void begin_call(unsigned lane, const size_t* keys, size_t count, uint32_t cost, Call* call);
    void end_call(unsigned lane, size_t count, const Call& call, const apikey_verdict* verdicts);
    void judge(unsigned lane, uint32_t key, uint32_t before, apikey_code code);
    std::string id(size_t key) const;

    size_t keys_max_;
    unsigned lane_count_;
    LimitWitness* limits_;
    size_t bytes_;
    Shared* shared_;
    Lane* lanes_;
    Key* keys_;
    std::vector<Margin> margins_;  ///< by key
    uint64_t killed_ = 0;          ///< of all keys
    int64_t forgiven_codes_[16] = {};
};

}  // namespace apikeyd::test
