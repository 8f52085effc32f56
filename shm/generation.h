// Both files of one generation, as the daemon holds them.

#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>

#include "shm/cells.h"
#include "shm/segment.h"
#include "shm/table_writer.h"

namespace apikey::shm {

/// What a new generation is made of.
struct GenerationPlan {
    uint32_t generation;
    uint32_t predecessor;
    TableGeometry geometry;
    uint32_t meter_words;          ///< of each key
    uint32_t cpus;                 ///< CPUs to shard by; more may be plugged in later
    uint64_t shards_budget_bytes;  ///< cells are sharded by CPU while they stay within it
    gid_t clients_group;
    /// For the table's hashes; without one it is drawn. Never the same for two generations.
    std::optional<uint64_t> hash_seed = std::nullopt;
};

/// What the files of a generation take.
struct GenerationSizes {
    uint64_t table_bytes;
    uint64_t cells_bytes;
    uint32_t shards;  ///< copies of the cells' counters
};
GenerationSizes sizes_of(const GenerationPlan& plan);

class Generation {
  public:
    /// Creates both files under temporary names, formatted and empty. They have no final names yet: a daemon
    /// that dies leaves `build.*`, which the next one removes.
    static Result<std::unique_ptr<Generation>> create(int directory_fd, const GenerationPlan& plan);

    /// Opens `table.<g>` and `cells.<g>` and checks both headers. Cells that fail the check are left out
    /// (cells().base is nullptr): clients can write them, and what they scribble must not keep a revocation
    /// out of the table. Cells that cannot be opened only now are left out too, see cells_wait().
    static Result<std::unique_ptr<Generation>> open(int directory_fd, uint32_t generation);

    /// True while a client maps `table.<g>`, whatever its layout: the lock that says so is none of its bytes.
    /// Also when that cannot be found out.
    static bool is_mapped(int directory_fd, uint32_t generation);

    /// Gives both files their final names; the table's last, since a table without cells is nothing. On
    /// failure neither file has a name any more.
    Result<void> name_files();

    uint32_t number() const { return table_.view().generation; }
    const uint8_t* uid() const { return table_.header().uid; }
    TableWriter& table() { return table_; }
    const TableWriter& table() const { return table_; }
    const CellsView& cells() const { return cells_; }
    /// True when the cells are there and could not be opened (no descriptor, no memory): what was counted in
    /// them is still to come, by another open().
    bool cells_wait() const { return cells_wait_; }
    /// Whether a client can attach to the cells as their file is now: clients may have truncated it, or
    /// scribbled on its header.
    bool cells_attachable() const;
    uint64_t file_bytes() const { return table_file_.bytes() + cells_.bytes; }

    /// See Segment::use_huge_pages(); best before name_files(), since clients populate when they attach.
    void use_huge_pages();
    /// Of file_bytes(), what is backed by 2 MiB pages; 0 when nobody asked for them through this object.
    uint64_t huge_bytes() const { return huge_bytes_; }

    /// Gives both files to another clients' group. False, and errno, when that is not allowed.
    bool give_to_group(gid_t group) const;

    /// Takes the write lock that no client's mapping lets through. False: still in use. Held until this
    /// object ends.
    bool lock_unused();
    /// Removes both names, the table's first. Only after lock_unused().
    void unlink_files();

  private:
    Generation(int directory_fd, Segment table_file, std::optional<Segment> cells_file,
               const TableView& table, const CellsView& cells)
        : directory_fd_(directory_fd),
          table_file_(std::move(table_file)),
          cells_file_(std::move(cells_file)),
          table_(table_file_.data(), table, cells.meter_words),
          cells_(cells) {}

    int directory_fd_;
    Segment table_file_;
    std::optional<Segment> cells_file_;
    TableWriter table_;
    CellsView cells_;
    uint64_t huge_bytes_ = 0;
    bool cells_wait_ = false;
};

}  // namespace apikey::shm
