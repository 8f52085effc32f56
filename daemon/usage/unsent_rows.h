// What of the usage store's hours the database of a fleet does not have. Private to daemon/usage.
//
// Keys' hours are marked when rows leave `recent` (recent_rows.h), once a minute: a flush writes no more for
// it. Hours of codes are few, and only the last ones change: of them it is known from which one on.

#pragma once

#include <cstdint>
#include <limits>
#include <optional>

#include "sqlite/database.h"
#include "usage/usage_batch.h"

namespace apikeyd {

/// Prepared statements; what Statement's header says of a Database holds. Functions answer SQLITE_OK or an
/// extended error code.
class UnsentRows {
  public:
    UnsentRows() = default;
    static Result<UnsentRows> prepare(const Database& database);

    /// Called first, in no transaction. Not `wanted`: nothing is marked, and if it is wanted once again, all
    /// is to be sent. `mark_min`: of who had the store open before; a batch of theirs may be on its way.
    int open(bool wanted, int64_t mark_min);

    /// What hours that change now are marked with; nullopt: nobody wants them marked.
    [[nodiscard]] std::optional<int64_t> mark() const { return mark_; }
    /// Some code was counted in the hour of `now_s`; inside the flush's transaction.
    int note_code(int64_t now_s);
    /// After a transaction that was not committed, or of which it is not known.
    void rolled_back() {
        codes_known_from_s_ = std::numeric_limits<int64_t>::max();
        code_changes_noted_ = 0;
        is_reset_ = false;
    }
    /// In each flush, inside its transaction: forgets marks up to the hour that begins then, of which nothing
    /// is left to be sent; where nobody wants any, all of them. By what was forgotten and not by the clock,
    /// which may be set ahead for a while.
    int tidy(std::optional<int64_t> forgotten_hour_s);

    /// The next batch, of at most so many keys' hours. Changes nothing in the store.
    int take(size_t keys_max, int64_t now_s, UsageBatch& batch);
    /// Inside a transaction: this one is there. Does nothing where another store than the batch's stands in
    /// this one's place, or it was noted.
    int note_sent(const UsageBatch& batch, uint64_t number);
    /// Inside a transaction: all is to be sent, and the last batch is called so.
    int begin_anew(const UsageBatch& batch, uint64_t number);

  private:
    struct Sending {
        UsageUid uid{};
        uint64_t batch = 0;
        std::optional<KeyHourPlace> resent_to = std::nullopt;
        int64_t codes_from_s = 0;
    };
    int read(Sending& sending);
    int take_changed(size_t keys_max, UsageBatch& batch);
    int take_unseen(size_t keys_max, const KeyHourPlace& from, UsageBatch& batch);
    int take_codes(int64_t from_s, UsageBatch& batch);

    Statement highest_mark_;
    Statement read_;
    Statement lower_codes_;
    Statement forget_to_;
    Statement changed_;
    Statement unseen_;
    Statement codes_end_;
    Statement codes_;
    Statement note_;
    Statement delete_changed_;
    Statement reset_;
    Statement delete_all_;

    std::optional<int64_t> mark_;
    bool is_reset_ = false;
    uint64_t code_changes_ = 1;        ///< counted since the store was opened
    uint64_t code_changes_noted_ = 0;  ///< of these are sent; at first nobody knows what was
    int64_t codes_known_from_s_ = std::numeric_limits<int64_t>::max();  ///< not before this is unsent
    int64_t codes_lowest_s_ = std::numeric_limits<int64_t>::max();      ///< changed since the last take()
    int64_t codes_taken_s_ = -1;  ///< the minute in which codes were sent last
};

}  // namespace apikeyd
