// Changes waiting to be made, at most one for each key: its latest state.
//
// Rows of a load, which may be millions, stay packed; what changed singly comes behind them.

#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/change.h"
#include "core/row_spool.h"
#include "core/table_rows.h"

namespace apikeyd {

/// Not thread-safe. Two changes are of one key when id and digest agree.
class ChangeSet {
  public:
    ChangeSet() = default;
    ChangeSet(ChangeSet&&) = default;
    ChangeSet& operator=(ChangeSet&&) = default;
    /// A load's rows, and `changes` behind them.
    explicit ChangeSet(const std::vector<Change>& changes, std::shared_ptr<RowSpool> rows = nullptr) {
        for (const Change& change : changes) {
            put(change);
        }
        rows_ = std::move(rows);
    }

    /// Puts `change` in the place of an earlier one of the same key; false when there is none. What a load's
    /// rows say of its id, or of its digest, is left out: the change itself is in the live table, or waits
    /// behind them.
    bool replace(const Change& change) {
        if (rows_ != nullptr) {
            rows_->leave_out(change.row.id);
            rows_->leave_out(row_digest_bytes(change.row));
        }
        const auto known = places_.find(key_of(change));
        if (known == places_.end()) {
            return false;
        }
        changes_[known->second] = change;
        return true;
    }
    /// The same, and at the end when there is none.
    void put(const Change& change) {
        if (!replace(change)) {
            places_.emplace(key_of(change), changes_.size());
            changes_.push_back(change);
        }
    }

    /// In the order they came. `ahead` is told of each row of a load some rows before `visit` is.
    template <typename Visit, typename Ahead>
    void for_each(Visit visit, Ahead ahead) const {
        if (rows_ != nullptr) {
            std::vector<Change> batch(kAhead, {Change::Kind::kUpsert, {}});
            size_t count = kAhead;
            for (RowSpool::Cursor cursor(*rows_); count == kAhead;) {
                for (count = 0; count < kAhead && cursor.next(batch[count].row); ++count) {
                    ahead(std::as_const(batch[count]));
                }
                std::for_each_n(batch.cbegin(), count, visit);
            }
        }
        std::for_each(changes_.begin(), changes_.end(), visit);
    }
    template <typename Visit>
    void for_each(Visit visit) const {
        for_each(visit, [](const Change&) {});
    }
    bool empty() const { return size() == 0; }
    /// Of a load's rows also those that were left out since.
    size_t size() const { return (rows_ != nullptr ? rows_->size() : 0) + changes_.size(); }

  private:
    static constexpr size_t kAhead = 16;

    static std::string key_of(const Change& change) {
        std::string key(reinterpret_cast<const char*>(change.row.digest.data()), change.row.digest.size());
        return key.append(change.row.id);
    }

    std::shared_ptr<RowSpool> rows_;
    std::vector<Change> changes_;
    std::unordered_map<std::string, size_t> places_;
};

}  // namespace apikeyd
