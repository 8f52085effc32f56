// The usage store's rows of what keys were counted lately, and what becomes of them. Private to daemon/usage.
//
// A flush adds to these rows only. fold() moves those of past minutes to where they stay, so many at a time
// that no flush is long. Totals and baselines have a row for every key that was ever used, scattered by id
// and digest: a key that is in use costs a visit there once a minute, not at each flush.

#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <cstring>
#include <optional>

#include "sqlite/database.h"
#include "usage/usage_store.h"

namespace apikeyd {

/// How much of a cell's sums the store has.
struct Baseline {
    uint64_t allowed = 0;
    uint64_t denied = 0;
};

/// Prepared statements; what Statement's header says of a Database holds. All calls are made inside a
/// transaction of the caller's and answer SQLITE_OK or an extended error code.
class RecentRows {
  public:
    RecentRows() = default;
    static Result<RecentRows> prepare(const Database& database);

    /// The first call in a transaction that reads baselines.
    int begin();
    /// After a transaction that was not committed, or of which it is not known.
    void rolled_back();

    int read_baseline(const GenerationUid& uid, const KeyDigest& digest, Baseline& baseline);
    /// Adds the difference between the cell's sums and `before`, its baseline, to the minute of `now_s`; the
    /// baseline rises to these sums, which are not below it and at most 2^63 - 1.
    int add(const GenerationUid& uid, const KeyCount& key, const Baseline& before, int64_t now_s);

    /// Hours of keys whose rows are moved from now on are marked as unsent with this; nullopt: with nothing.
    void set_mark(std::optional<int64_t> mark) { mark_ = mark; }

    /// Moves rows of minutes that are not that of `now_s`, in a flush that changed so many keys. Flushes of
    /// one minute move at least as many rows as they add.
    int fold(uint64_t keys_changed, int64_t now_s);
    /// Moves all rows of a generation, whose baselines nobody needs any more.
    int fold_generation(const GenerationUid& uid);

  private:
    struct Cell {
        GenerationUid uid{};
        KeyDigest digest{};
        friend bool operator==(const Cell&, const Cell&) = default;
    };
    struct CellHash {
        using is_avalanching = void;  // a digest is a part of a SHA-256
        size_t operator()(const Cell& cell) const {
            size_t hash = 0;
            std::memcpy(&hash, cell.digest.data(), sizeof(hash));
            return hash;
        }
    };
    /// Rows of the cells from `first` to `last`, both included, and of all minutes but one.
    struct Range {
        Cell first;
        Cell last;
        int64_t but_start_s;
    };

    int find(const Range& from, uint64_t skip, Cell& found, bool& is_found);
    int move(const Range& range, bool with_baselines);
    void remember(const Cell& cell, const Baseline& baseline);

    Statement data_version_;
    Statement baseline_;
    Statement add_;
    Statement find_;
    Statement move_to_totals_;
    Statement move_to_baselines_;
    Statement move_to_rollups_;
    Statement move_to_unsent_;
    Statement delete_;

    /// Of some cells what baseline_ would read.
    boost::unordered_flat_map<Cell, Baseline, CellHash> remembered_;
    int64_t version_ = -1;  ///< of the database when that was true
    Cell folded_to_;        ///< in the pass over all rows
    bool in_pass_ = false;
    std::optional<int64_t> mark_;
    int64_t pass_start_s_ = -1;  ///< the minute in which the last pass began; -1: none did
};

}  // namespace apikeyd
