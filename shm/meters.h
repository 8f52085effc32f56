// What a key has spent of a limit, in one word: a rate's or a quota's.
//
// Thread safety: any number of takers in any number of processes, and one mover a generation (the daemon);
// all are lock-free, since a compare-and-swap fails only where another one succeeded.
//
// Invariants
//  1. Every change is a compare-and-swap, giving back included, but for setting kMovedBit.
//  2. A word that has kMovedBit never changes again: what it held goes on in the next generation.
//  3. Of an announced generation a word of 0 was not carried over yet; once it is another it never is 0
//  again.
//  4. The clock is read anew, after the word, before a word is told to be ahead of it, and before a request
//  is refused.                                                                                (SYNC
//  meter-time)
//  5. Nobody makes a word say less who has not looked at the plan once more, after the word. (SYNC
//  meter-owner)
//  6. A rate never passes more than its burst and what its interval allows in the time between, a quota never
//  more than its maximum in its period, whatever interleaves, by a clock that is not set back; too few pass
//  where a taker is killed. A clock that is set back gains nothing at once, see see_rate() and see_quota().
//
// A rate is a GCRA (ITU-T I.371, "virtual scheduling"), a token bucket in one number: the time at which the
// bucket is full again. One of `burst` requests, each worth `interval`, is empty when that time lies a whole
// window, burst x interval, ahead.

#pragma once

#include "shm/layout.h"

namespace apikey::shm {

/// A word's highest bit: this generation's word is history.
inline constexpr uint64_t kMovedBit = uint64_t{1} << 63;

/// Set in a rate's word, not in a quota's: the highest bit of the tags. A word that held one kind is never
/// taken for the other's.
inline constexpr uint64_t kRateBit = uint64_t{1} << 62;

/// moved:1 | tag:8 | full_at:55, in units of kMeterUnit_ns, modulo 2^55 (9 years).
struct RateWord {
    static constexpr unsigned kTagShift = 55;
    static constexpr uint64_t kTagMask = 0xff;
    static constexpr uint64_t kTagFirst = 0x80;
    static constexpr uint64_t kTags = 0x80;
    static constexpr uint64_t kTimeMask = (uint64_t{1} << kTagShift) - 1;

    static constexpr uint64_t make(uint64_t tag, uint64_t full_at) {
        return tag << kTagShift | (full_at & kTimeMask);
    }
    static constexpr uint64_t tag(uint64_t word) { return word >> kTagShift & kTagMask; }
    /// How far the word's time is ahead of `now`; 0 when it has passed.
    static constexpr uint64_t ahead(uint64_t word, uint64_t now) {
        const uint64_t ahead = (word - now) & kTimeMask;
        return ahead <= kTimeMask / 2 ? ahead : 0;
    }
};

/// moved:1 | tag:14 | period:15 | used:34. Periods are numbered, modulo 2^15.
struct QuotaWord {
    static constexpr unsigned kTagShift = 49;
    static constexpr unsigned kPeriodShift = 34;
    static constexpr uint64_t kTagMask = (uint64_t{1} << 14) - 1;
    static constexpr uint64_t kTagFirst = 1;  // 0: a fresh word
    static constexpr uint64_t kTags = (uint64_t{1} << 13) - 1;
    static constexpr uint64_t kPeriodMask = (uint64_t{1} << 15) - 1;
    static constexpr uint64_t kUsedMask = (uint64_t{1} << 34) - 1;

    static constexpr uint64_t make(uint64_t tag, uint64_t period, uint64_t used) {
        return tag << kTagShift | (period & kPeriodMask) << kPeriodShift | used;
    }
    static constexpr uint64_t tag(uint64_t word) { return word >> kTagShift & kTagMask; }
    static constexpr uint64_t period(uint64_t word) { return word >> kPeriodShift & kPeriodMask; }
    static constexpr uint64_t used(uint64_t word) { return word & kUsedMask; }
    /// Periods that the word is ahead of `period`; negative: behind.
    static constexpr int32_t ahead(uint64_t word, uint64_t period) {
        const uint64_t ahead = (QuotaWord::period(word) - period) & kPeriodMask;
        return ahead <= kPeriodMask / 2 ? static_cast<int32_t>(ahead)
                                        : static_cast<int32_t>(ahead) - static_cast<int32_t>(kPeriodMask) - 1;
    }
};

static_assert(RateWord::make(RateWord::kTagFirst, 0) == kRateBit &&
              (RateWord::make(RateWord::kTagFirst + RateWord::kTags - 1, 0) & kRateBit) != 0);
static_assert((QuotaWord::make(QuotaWord::kTagFirst + QuotaWord::kTags - 1, QuotaWord::kPeriodMask,
                               QuotaWord::kUsedMask) &
               (kRateBit | kMovedBit)) == 0);

/// Of times in meter words. 55 bits of it are 9 years, and a rate of a million a second still is exact to 1%.
inline constexpr uint64_t kMeterUnit_ns = 8;

/// Units between two requests of a rate, rounded up: never more pass than it says.
constexpr uint64_t rate_interval(uint64_t requests, uint64_t seconds) {
    const uint64_t units = seconds * (1'000'000'000 / kMeterUnit_ns);
    return (units + requests - 1) / requests;
}

/// A rate as a taker needs it. Times in units of kMeterUnit_ns.
struct Rate {
    uint64_t tag;       ///< of RateWord::kTags; another in the word means that nothing was taken yet
    uint64_t interval;  ///< of one request; not 0
    uint64_t window;    ///< burst x interval, below 2^53
};
struct Quota {
    uint64_t tag;  ///< of QuotaWord::kTags
    uint64_t max;  ///< requests a period, below 2^34
};

/// How an attempt to take ended.
enum class Taken : uint8_t {
    kYes,
    kNo,
    kMoved,  ///< nothing was changed; the word goes on in the next generation
    kStale,  ///< nothing was changed; another limit has the word now
};

/// What a taker learns, and needs to give back.
struct RateTaking {
    uint64_t ahead;    ///< of the window, what is taken now
    uint64_t written;  ///< the word as it was left, when it was taken
    uint64_t restore;  ///< and what it is without this taking
};
struct QuotaTaking {
    uint64_t used;
    uint64_t period;  ///< of the word: this one's, or the next
};

namespace meters {

/// What a rate's word says at a moment.
struct RateSeen {
    uint64_t ahead;
    bool clamped;  ///< the word said more than can be
    bool fits;     ///< so does what is asked for
};

/// `clock()` tells the time now, in units; it is called when the word is ahead of what `now` explains. A
/// taker may have been halted between its look at the clock and this one at the word for as long as it
/// likes, and others have taken meanwhile: to believe its `now` would give them all of it back. Whoever wrote
/// the word had looked at the clock before, so a look after this one that still does not explain it means
/// that the clock was set back, or the word scribbled on. The bucket is empty then, by the clock as it is
/// now. Takers whose clocks lie apart gain by it: each time that the one behind has set the word back, the
/// one ahead finds a full bucket.
///
/// Nor is a request refused by a look at the clock that came before another taker's.
template <typename Clock>
RateSeen see_rate(uint64_t word, const Rate& rate, uint32_t cost, uint64_t* now, Clock clock) {
    uint64_t need = 0;
    const bool ever = !__builtin_mul_overflow(uint64_t{cost}, rate.interval, &need) && need <= rate.window;
    if (RateWord::tag(word) != rate.tag) {
        return {0, false, ever};
    }
    const uint64_t room = ever ? rate.window - need : 0;
    uint64_t ahead = RateWord::ahead(word, *now);
    if (ahead > room) [[unlikely]] {
        *now = clock();
        ahead = RateWord::ahead(word, *now);
        if (ahead > rate.window) {
            return {rate.window, true, false};
        }
    }
    return {ahead, false, ever && ahead <= room};
}

/// What a quota's word says at a moment.
struct QuotaSeen {
    uint64_t used;
    uint64_t period;
    bool clamped;
    bool fits;
};

/// A quota that was lowered may have been passed already.
inline bool fits_quota(const Quota& quota, uint64_t used, uint32_t cost) {
    return used <= quota.max && cost <= quota.max - used;
}

/// The same for a quota. A word one period ahead is another taker's, whose clock is a tick further, and is
/// charged as it stands; one further ahead becomes this period's, with what was counted. So a quota does not
/// begin again when a clock is set back, only when it comes into the next period once more.
template <typename Clock>
QuotaSeen see_quota(uint64_t word, const Quota& quota, uint32_t cost, uint64_t* period, Clock clock) {
    const auto seen = [&](uint64_t used, uint64_t of_period, bool clamped) -> QuotaSeen {
        return {used, of_period & QuotaWord::kPeriodMask, clamped, fits_quota(quota, used, cost)};
    };
    if (QuotaWord::tag(word) != quota.tag) {
        return seen(0, *period, false);
    }
    const uint64_t used = QuotaWord::used(word);
    int32_t ahead = QuotaWord::ahead(word, *period);
    if (ahead > 1 || (ahead == 0 && !fits_quota(quota, used, cost))) [[unlikely]] {
        *period = clock();
        ahead = QuotaWord::ahead(word, *period);
        if (ahead > 1) {
            return seen(used, *period, true);
        }
    }
    return ahead < 0 ? seen(0, *period, false) : seen(used, QuotaWord::period(word), false);
}

}  // namespace meters

/// For who cannot lose the word to another limit.
struct AlwaysMine {
    constexpr bool operator()() const { return true; }
};

/// Takes `cost` requests (not 0) off a rate, if they are there. `now` was read by the caller, in units; a
/// word too far ahead of it is brought back to a full window, also where nothing can be taken. Inline, since
/// most limited keys spend of nothing else: a call would cost a third of it.
///
/// `mine()` tells whether the word still is this limit's. A key or an owner that gets another plan, or other
/// figures, has its words taken over. Who was halted since it read the plan would take them back, and what
/// was spent of the new one be forgotten; it is to look for the plan again. So `mine()` is asked before a
/// word is made to say less than it does: one with another tag, one that is clamped, a quota's whose period
/// is over. To take upon what another plan's takers have left adds to it, whatever the two have in common by
/// chance.
template <typename Clock, typename Mine = AlwaysMine>
[[gnu::always_inline]] inline Taken take_rate(Word& word, const Rate& rate, uint32_t cost, uint64_t now,
                                              Clock clock, RateTaking* taking, Mine mine = {}) {
    for (;;) {
        // SYNC meter-time: acquire, so that a look at the clock after this one is no earlier than the
        // writer's was. SYNC meter-moved: and that who finds the word moved finds that generation announced.
        uint64_t seen = word.load(std::memory_order_acquire);
        if ((seen & kMovedBit) != 0) [[unlikely]] {
            return Taken::kMoved;
        }
        // SYNC meter-owner: the acquire above; who took the word over had read the new plan before, so a look
        // after it finds that one, too.
        if (RateWord::tag(seen) != rate.tag && seen != 0 && !mine()) [[unlikely]] {
            return Taken::kStale;
        }
        const meters::RateSeen before = meters::see_rate(seen, rate, cost, &now, clock);
        const uint64_t ahead = before.ahead + (before.fits ? cost * rate.interval : 0);
        taking->ahead = ahead;
        if (!before.fits) {
            if (!before.clamped) {
                return Taken::kNo;
            }
            if (!mine()) [[unlikely]] {  // SYNC meter-owner
                return Taken::kStale;
            }
        }
        taking->restore = RateWord::make(rate.tag, now + before.ahead);
        taking->written = RateWord::make(rate.tag, now + ahead);
        // SYNC meter-time: release. All other changes of the word are read-modify-writes, too, so whoever
        // acquires what one of them left acquires this as well.
        const uint64_t left = taking->written;
        if (word.compare_exchange_weak(seen, left, std::memory_order_release, std::memory_order_relaxed)) {
            return before.fits ? Taken::kYes : Taken::kNo;
        }
    }
}

/// Takes `cost` off a quota of this `period`, if they are there. `clock()` tells the period now, `mine()` as
/// for a rate.
template <typename Clock, typename Mine = AlwaysMine>
Taken take_quota(Word& word, const Quota& quota, uint32_t cost, uint64_t period, Clock clock,
                 QuotaTaking* taking, Mine mine = {}) {
    for (;;) {
        uint64_t seen = word.load(std::memory_order_acquire);  // SYNC meter-time, meter-moved
        if ((seen & kMovedBit) != 0) [[unlikely]] {
            return Taken::kMoved;
        }
        if (QuotaWord::tag(seen) != quota.tag && seen != 0 && !mine()) [[unlikely]] {  // SYNC meter-owner
            return Taken::kStale;
        }
        const meters::QuotaSeen before = meters::see_quota(seen, quota, cost, &period, clock);
        taking->used = before.used + (before.fits ? cost : 0);
        taking->period = before.period;
        if (!before.fits && !before.clamped) {
            return Taken::kNo;
        }
        if (before.period != QuotaWord::period(seen) && seen != 0 && !mine())
            [[unlikely]] {  // SYNC meter-owner
            return Taken::kStale;
        }
        const uint64_t left = QuotaWord::make(quota.tag, before.period, taking->used);
        // SYNC meter-time: release, as in take_rate().
        if (word.compare_exchange_weak(seen, left, std::memory_order_release, std::memory_order_relaxed)) {
            return before.fits ? Taken::kYes : Taken::kNo;
        }
    }
}

/// Gives back what was taken off a rate, if nobody took since: then the word becomes what it was. Else it
/// stays taken. To take it off what others made of the word would be wrong: by then this request's part may
/// have run off with time, and theirs would be given back for it. False: the word has moved.
inline bool give_back_rate(Word& word, const RateTaking& taking) {
    uint64_t seen = taking.written;
    // Relaxed: what takers released before goes on through this change (SYNC meter-time), and a word that has
    // moved sends the caller to look for the next one, with an acquire of its own.
    return word.compare_exchange_strong(seen, taking.restore, std::memory_order_relaxed,
                                        std::memory_order_relaxed) ||
           (seen & kMovedBit) == 0;
}

/// Gives back what was taken off a quota, unless its period is over. False: the word has moved.
inline bool give_back_quota(Word& word, const Quota& quota, const QuotaTaking& taking, uint32_t cost) {
    uint64_t seen = word.load(std::memory_order_relaxed);  // relaxed, all: as in give_back_rate()
    while ((seen & kMovedBit) == 0) {
        if (QuotaWord::tag(seen) != quota.tag || QuotaWord::period(seen) != taking.period ||
            QuotaWord::used(seen) < cost) {
            return true;
        }
        if (word.compare_exchange_weak(seen, seen - cost, std::memory_order_relaxed,
                                       std::memory_order_relaxed)) {
            return true;
        }
    }
    return false;
}

/// Whether a request of this cost would be passed, and what is taken now. Changes nothing, but that a word
/// too far ahead is brought back as by take_rate(): who is refused here takes from nothing, and it would be
/// so for as long as the word is ahead.
template <typename Clock, typename Mine = AlwaysMine>
Taken look_at_rate(Word& word, const Rate& rate, uint32_t cost, uint64_t now, Clock clock, uint64_t* ahead,
                   Mine mine = {}) {
    uint64_t seen = word.load(std::memory_order_acquire);  // SYNC meter-time, meter-moved
    if ((seen & kMovedBit) != 0) [[unlikely]] {
        return Taken::kMoved;
    }
    const meters::RateSeen found = meters::see_rate(seen, rate, cost, &now, clock);
    *ahead = found.ahead;
    if (found.clamped) [[unlikely]] {
        if (!mine()) {  // SYNC meter-owner
            return Taken::kStale;
        }
        // Relaxed: no look at the clock counts on it, since nothing was taken. Who changed the word has done
        // it.
        word.compare_exchange_strong(seen, RateWord::make(rate.tag, now + found.ahead),
                                     std::memory_order_relaxed, std::memory_order_relaxed);
    }
    return found.fits ? Taken::kYes : Taken::kNo;
}
template <typename Clock, typename Mine = AlwaysMine>
Taken look_at_quota(Word& word, const Quota& quota, uint32_t cost, uint64_t period, Clock clock,
                    uint64_t* used, Mine mine = {}) {
    uint64_t seen = word.load(std::memory_order_acquire);  // SYNC meter-time, meter-moved
    if ((seen & kMovedBit) != 0) [[unlikely]] {
        return Taken::kMoved;
    }
    const meters::QuotaSeen found = meters::see_quota(seen, quota, cost, &period, clock);
    *used = found.used;
    if (found.clamped) [[unlikely]] {
        if (!mine()) {  // SYNC meter-owner
            return Taken::kStale;
        }
        // Relaxed, as for a rate.
        word.compare_exchange_strong(seen, QuotaWord::make(quota.tag, found.period, found.used),
                                     std::memory_order_relaxed, std::memory_order_relaxed);
    }
    return found.fits ? Taken::kYes : Taken::kNo;
}

/// Carries a word over to the announced generation that follows its own, for whoever gets there first: the
/// daemon, or a client that needs it. Afterwards `from` is history, and `to` is what it was, or what others
/// have made of that since. Only while `to`'s generation is not superseded itself: what it then holds has
/// gone on.
inline void carry_over(Word& from, Word& to) {
    // SYNC meter-moved: from here on nobody takes from `from`. Acquire, for meter-time; release, so that the
    // announcement is seen by who meets the mark.
    const uint64_t left = from.fetch_or(kMovedBit, std::memory_order_acq_rel) & ~kMovedBit;
    if (left != 0) {
        uint64_t none = 0;
        // SYNC meter-time: release, of what was acquired above.
        to.compare_exchange_strong(none, left, std::memory_order_release, std::memory_order_relaxed);
    }
}

}  // namespace apikey::shm
