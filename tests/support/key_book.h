// The keys that a test operates: what the key set says of each, and on the board what clients may be
// answered.

#pragma once

#include <set>
#include <string>
#include <vector>

#include "source/key_row.h"
#include "support/key_board.h"
#include "support/site.h"

namespace apikeyd::test {

struct BookedKey {
    PlainKey plain;
    bool in_set = false;
    KeyState state = KeyState::kActive;
    bool limited = false;        ///< by what `terms` says
    std::string owner = "test";  ///< whose limits it shares
    std::string terms = {};      ///< of its row, as `, plan: free`
};

/// A key's index is the same in book and board. Before a change it is loosened: anything may be answered,
/// until settle() says what must be.
class KeyBook {
  public:
    KeyBook(const Site& site, KeyBoard& board, unsigned seed) : site_(site), board_(board), random_(seed) {}

    /// Draws a key that nobody has seen; what it is answered is NOT_FOUND until it stands in the set.
    size_t draw();
    /// Adds a key that the tool has printed, and that may stand in the set or not.
    size_t book(const std::string& text);

    BookedKey& loosen(size_t key);
    /// What the key set says before its keys, in whole lines: plans and owners.
    void set_head(const std::string& head) { head_ = head; }
    /// Writes the key set. A change of `version` changes every row.
    void write(unsigned version = 0) const;
    /// For the keys that are loose: what the set says now is in force.
    void settle();
    /// For a loose key after a change that the tool may have made: what the key set's file says of it.
    void reread();

    const BookedKey& operator[](size_t key) const { return keys_[key]; }
    size_t size() const { return keys_.size(); }
    uint32_t random() { return static_cast<uint32_t>(random_() >> 4); }

  private:
    const Site& site_;
    KeyBoard& board_;
    std::minstd_rand random_;
    std::string head_;
    std::vector<BookedKey> keys_;
    std::set<size_t> loose_;
};

}  // namespace apikeyd::test
