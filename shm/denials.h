// The ring of denials in a generation's cells: what clients tell the daemon's log, and may lose.
//
// Thread safety: any number of writers in any number of processes; one DenialReader (the daemon).
//
// A writer takes a number and stores its entry's words in the number's place, whatever stands there: it waits
// for nobody, and no more than the words' atomicity is asked of memory (all relaxed). Each word carries the
// number's round, and a number is one writer's alone, so words that agree with the number asked for are all
// of its entry. A writer that is killed leaves an entry that is never whole; one that is halted and goes on
// rounds later spoils an entry and forges none. The rounds of two writers would have to lie 2^32 apart.
//
// Others keep a state beside an entry's words and order both: folly's LockFreeRingBuffer, whose writer waits
// for the one a round before it, and the kernel's printk_ringbuffer, where one that is halted stops the tail.
// Here a writer may be killed by others, and words of 64 bits have room for both.
//
// Invariants
//  1. A denial is in its code's total before it takes a number: what the log does not tell one by one it
//  tells as a number, from the totals.
//  2. Above the room that the daemon gave to a code, nothing is written.
//  3. Everything here can be written by clients: the daemon takes no index, length or address from it, and
//     reads no more entries at a time than the ring has.

#pragma once

#include <cstring>

#include "shm/cells.h"

namespace apikey::shm {

/// Takes room for one denial of `code` (< kCodesMax). False: none is wanted. Then it costs one load.
inline bool take_denial_room(const CellsView& view, uint32_t code) {
    Word& room = view.ring->room[code];
    const auto is_left = [](uint64_t seen) { return static_cast<int64_t>(seen) > 0; };
    return is_left(room.load(std::memory_order_relaxed)) &&
           is_left(room.fetch_add(~uint64_t{0}, std::memory_order_relaxed));
}

/// Where the entry of this number stands, and its round in the upper halves.
inline DenialEntry& denial_entry(const CellsView& view, uint64_t number) {
    return view.denials[number & ((uint64_t{1} << view.denial_bits) - 1)];
}
inline uint64_t denial_round(const CellsView& view, uint64_t number) {
    return ((number >> view.denial_bits) + 1) << 32;
}

/// After take_denial_room().
inline void write_denial(const CellsView& view, const Denial& denial) {
    const uint64_t number = view.ring->begun.fetch_add(1, std::memory_order_relaxed);
    DenialEntry& entry = denial_entry(view, number);
    const uint64_t round = denial_round(view, number);
    uint32_t halves[kDenialWords];
    std::memcpy(halves, &denial, sizeof halves);
    for (size_t i = 0; i < kDenialWords; ++i) {
        entry.words[i].store(round | halves[i], std::memory_order_relaxed);
    }
}

/// False when the entry of this number is not whole: not yet, not any more, or never.
inline bool read_denial(const CellsView& view, uint64_t number, Denial* out) {
    const DenialEntry& entry = denial_entry(view, number);
    const uint64_t round = denial_round(view, number);
    uint32_t halves[kDenialWords];
    for (size_t i = 0; i < kDenialWords; ++i) {
        const uint64_t word = entry.words[i].load(std::memory_order_relaxed);
        if ((word ^ round) >> 32 != 0) {
            return false;
        }
        halves[i] = static_cast<uint32_t>(word);
    }
    std::memcpy(out, halves, sizeof halves);
    return true;
}

/// By the daemon: so many entries of each code may be begun from now on, whatever was left.
inline void set_denial_room(const CellsView& view, uint64_t room) {
    for (Word& of_code : view.ring->room) {
        of_code.store(room, std::memory_order_relaxed);
    }
}

/// By the daemon, in this order, since it may be killed in between: what a ring says that has room is for the
/// next one.
inline void open_denials(const CellsView& view, uint64_t room) {
    view.ring->open.store(1, std::memory_order_relaxed);
    set_denial_room(view, room);
}
inline void close_denials(const CellsView& view) {
    set_denial_room(view, 0);
    view.ring->open.store(0, std::memory_order_relaxed);
}

/// Goes through a ring from one number on. Not thread-safe.
class DenialReader {
  public:
    DenialReader(const CellsView& view, uint64_t next) : view_(view), next_(next), begun_(next) {}

    /// Calls `visit(const Denial&)` for each entry that is whole, in the order of their numbers; next() is
    /// behind it then. One that is not whole is waited for until the next call, and passed over then.
    template <typename Visit>
    void drain(Visit visit) {
        // Relaxed, as the words: an entry that is not seen yet is seen at the next call.
        const uint64_t begun = view_.ring->begun.load(std::memory_order_relaxed);
        const uint64_t entries = uint64_t{1} << view_.denial_bits;
        if (begun - next_ > entries) {
            next_ = begun > next_ ? begun - entries : begun;  // overtaken, or set back by somebody's scribble
        }
        while (next_ != begun) {
            Denial denial;
            const bool whole = read_denial(view_, next_, &denial);
            if (!whole && next_ >= begun_) {
                break;
            }
            ++next_;
            if (whole) {
                visit(denial);
            }
        }
        begun_ = begun;
    }
    /// All before it were visited, or are lost.
    uint64_t next() const { return next_; }

  private:
    CellsView view_;
    uint64_t next_;
    uint64_t begun_;  // at the last call
};

}  // namespace apikey::shm
