// Rows of the source on their way into a table, packed: a hundred bytes each, and outside of the daemon's own
// memory when there are many, but for terms, which rows share. A first load of millions of keys needs them
// all at once, for how large the table is to be, and where in it each key is at home, is only known when the
// last one was read.

#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <boost/unordered/unordered_flat_set.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "shm/segment.h"
#include "source/key_row.h"

namespace apikeyd {

/// Filled by one thread, then read by one thread at a time; whoever hands it on sees to the order.
class RowSpool {
  public:
    /// `directory_fd` is where rows are kept that do not fit a small buffer: in files that have no name any
    /// more, and go with this object. Must stay open until the last append().
    explicit RowSpool(int directory_fd) : directory_fd_(directory_fd) {}
    RowSpool(const RowSpool&) = delete;
    RowSpool& operator=(const RowSpool&) = delete;

    /// Adds a row; terms that rows share stay shared. On an error nothing was added: no descriptor, or no
    /// room in the directory for the rows and for as much again, which their table will take at least.
    Result<void> append(const KeyRow& row);
    /// Those appended, also what was left out since.
    [[nodiscard]] uint64_t size() const { return size_; }

    /// From now on no row with this id is among them, and none with this digest (row_digest_bytes()).
    void leave_out(std::string_view id_or_digest) { left_out_.emplace(id_or_digest); }

    /// Goes through the rows in the order they came.
    class Cursor {
      public:
        /// `rows` must outlive it.
        explicit Cursor(const RowSpool& rows) : rows_(&rows) {}
        /// False at the end. `row` is written over, its strings' memory used again.
        bool next(KeyRow& row);

      private:
        const RowSpool* rows_;
        size_t chunk_ = 0;
        size_t at_ = 0;
    };

  private:
    /// Where rows stand, none of them in two.
    struct Chunk {
        uint8_t* base;
        size_t bytes;
        size_t used;
    };
    Result<void> make_chunk();
    uint32_t number_of(const std::shared_ptr<const KeyTerms>& terms);
    void unpack(const uint8_t* from, KeyRow& row) const;
    bool is_left_out(const KeyRow& row) const;

    int directory_fd_;
    uint64_t size_ = 0;
    std::vector<Chunk> chunks_;
    std::unique_ptr<uint8_t[]> first_;  // memory of the first, which is small
    std::vector<apikey::shm::Segment> files_;

    std::vector<std::shared_ptr<const KeyTerms>> terms_ = {nullptr};  // by the number in a row
    boost::unordered_flat_map<const KeyTerms*, uint32_t> numbers_;
    boost::unordered_flat_set<std::string> left_out_;
};

}  // namespace apikeyd
