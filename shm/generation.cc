#include "shm/generation.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "shm/attach.h"
#include "shm/header_checks.h"

namespace apikey::shm {
namespace {

constexpr mode_t kTableMode = 0640;
constexpr mode_t kCellsMode = 0660;
constexpr uint32_t kDirtyShift = 4;  // 16 cells a byte: a map of 1 MiB for 16 million cells
constexpr uint64_t kDenials = 1024;  // ten codes at a hundred a second, read four times a second
constexpr char kTableBuild[] = "build.table";
constexpr char kCellsBuild[] = "build.cells";

constexpr uint64_t round_up(uint64_t value, uint64_t unit) {
    return (value + unit - 1) / unit * unit;
}

/// Of the open file description: gone with the descriptor.
bool take_write_lock(int table_fd) {
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    return fcntl(table_fd, F_OFD_SETLK, &lock) == 0;
}

/// What could not be opened as a segment although it can be one.
bool can_be_segment(int directory_fd, const char* name) {
    struct stat status {};
    if (fstatat(directory_fd, name, &status, AT_SYMLINK_NOFOLLOW) != 0) {
        return errno != ENOENT;
    }
    return S_ISREG(status.st_mode) && status.st_uid == geteuid() && status.st_size != 0;
}

/// Where everything in a cells file stands.
CellsHeader cells_header(const GenerationPlan& plan) {
    CellsHeader header{};
    header.abi = kAbi;
    header.header_bytes = sizeof(CellsHeader);
    header.generation = plan.generation;
    header.predecessor = plan.predecessor;
    header.cell_count = plan.geometry.slot_count;
    header.meter_words = plan.meter_words;
    header.cell_stride = cell_stride(plan.meter_words);
    header.shard_stride = round_up(header.cell_count * header.cell_stride, kPageBytes);
    header.shards = static_cast<uint32_t>(
        std::clamp<uint64_t>(plan.shards_budget_bytes / header.shard_stride, 1, std::max(plan.cpus, 1u)));
    header.allowed_offset = offsetof(Cell, allowed);
    header.denied_offset = offsetof(Cell, denied);
    header.meters_offset = sizeof(Cell);
    header.layout_hash = layout_hash();
    header.totals_offset = sizeof(CellsHeader);
    header.totals_shards = std::max(plan.cpus, 1u);
    header.cells_offset =
        round_up(header.totals_offset + header.totals_shards * sizeof(CodeTotals), kPageBytes);
    header.owners_offset = header.cells_offset + header.shards * header.shard_stride;
    header.owner_count = plan.geometry.owner_capacity;
    header.dirty_offset = header.owners_offset + header.owner_count * sizeof(OwnerMeters);
    header.dirty_shift = kDirtyShift;
    header.dirty_bytes = ((header.cell_count - 1) >> kDirtyShift) + 1;
    header.ring_offset = round_up(header.dirty_offset + header.dirty_bytes, 64);
    header.ring_count = kDenials;
    header.file_bytes = round_up(
        header.ring_offset + sizeof(DenialRing) + header.ring_count * sizeof(DenialEntry), kPageBytes);
    header.magic = kCellsMagic;
    return header;
}

}  // namespace

GenerationSizes sizes_of(const GenerationPlan& plan) {
    const CellsHeader cells = cells_header(plan);
    return {plan.geometry.file_bytes(), cells.file_bytes, cells.shards};
}

Result<std::unique_ptr<Generation>> Generation::create(int directory_fd, const GenerationPlan& plan) {
    unlinkat(directory_fd, kTableBuild, 0);
    unlinkat(directory_fd, kCellsBuild, 0);
    CellsHeader header = cells_header(plan);
    struct {
        uint8_t uid[kUidLength];
        uint64_t seed;
    } random;
    if (getrandom(&random, sizeof random, 0) != sizeof random) {
        return fail(system_error_text("cannot draw random bytes", "table", errno));
    }
    std::memcpy(header.uid, random.uid, sizeof header.uid);

    Result<Segment> table_file = Segment::create(directory_fd, kTableBuild, plan.geometry.file_bytes(),
                                                 kTableMode, plan.clients_group);
    if (!table_file) {
        return tl::unexpected(table_file.error());
    }
    Result<Segment> cells_file =
        Segment::create(directory_fd, kCellsBuild, header.file_bytes, kCellsMode, plan.clients_group);
    if (!cells_file) {
        unlinkat(directory_fd, kTableBuild, 0);
        return tl::unexpected(cells_file.error());
    }
    TableWriter::format(table_file->data(), plan.geometry, plan.generation, plan.predecessor, random.uid,
                        plan.hash_seed.value_or(random.seed));
    std::memcpy(cells_file->data(), &header, sizeof header);

    TableView table;
    CellsView cells;
    AttachResult checked = check_table(table_file->data(), table_file->bytes(), plan.generation, &table);
    if (checked == AttachResult::kOk) {
        checked = check_cells(cells_file->data(), cells_file->bytes(), table, &cells);
    }
    if (checked != AttachResult::kOk) {
        return fail(std::string("table: ") + attach_text(checked));
    }
    return std::unique_ptr<Generation>(
        new Generation(directory_fd, std::move(*table_file), std::move(*cells_file), table, cells));
}

Result<std::unique_ptr<Generation>> Generation::open(int directory_fd, uint32_t generation) {
    char table_name[kSegmentNameBytes];
    char cells_name[kSegmentNameBytes];
    segment_name(table_name, "table", generation);
    segment_name(cells_name, "cells", generation);
    Result<Segment> table_file = Segment::open(directory_fd, table_name);
    if (!table_file) {
        return tl::unexpected(table_file.error());
    }
    TableView table;
    AttachResult checked = check_table(table_file->data(), table_file->bytes(), generation, &table);
    if (checked != AttachResult::kOk) {
        return fail(std::string(table_name) + ": " + attach_text(checked));
    }
    Result<Segment> cells_file = Segment::open(directory_fd, cells_name);
    CellsView cells;
    if (!cells_file ||
        check_cells(cells_file->data(), cells_file->bytes(), table, &cells) != AttachResult::kOk) {
        std::unique_ptr<Generation> without(
            new Generation(directory_fd, std::move(*table_file), std::nullopt, table, CellsView{}));
        without->cells_wait_ = !cells_file && can_be_segment(directory_fd, cells_name);
        return without;
    }
    return std::unique_ptr<Generation>(
        new Generation(directory_fd, std::move(*table_file), std::move(*cells_file), table, cells));
}

bool Generation::cells_attachable() const {
    struct stat status {};
    CellsView cells;
    return cells_file_ && fstat(cells_file_->fd(), &status) == 0 &&
           check_cells(cells_file_->data(), static_cast<uint64_t>(status.st_size), table_.view(), &cells) ==
               AttachResult::kOk;
}

void Generation::use_huge_pages() {
    huge_bytes_ = table_file_.use_huge_pages() + (cells_file_ ? cells_file_->use_huge_pages() : 0);
}

Result<void> Generation::name_files() {
    char cells_name[kSegmentNameBytes];
    char table_name[kSegmentNameBytes];
    segment_name(cells_name, "cells", number());
    segment_name(table_name, "table", number());
    const auto rename = [this](const char* from, const char* to) {
        return renameat2(directory_fd_, from, directory_fd_, to, RENAME_NOREPLACE) == 0;
    };
    const bool cells_named = rename(kCellsBuild, cells_name);
    if (cells_named && rename(kTableBuild, table_name)) {
        return {};
    }
    const int error = errno;
    unlinkat(directory_fd_, cells_named ? cells_name : kCellsBuild, 0);
    unlinkat(directory_fd_, kTableBuild, 0);
    return fail(system_error_text("cannot name it", cells_named ? table_name : cells_name, error));
}

bool Generation::give_to_group(gid_t group) const {
    const auto keep_owner = static_cast<uid_t>(-1);
    return fchown(table_file_.fd(), keep_owner, group) == 0 &&
           (!cells_file_ || fchown(cells_file_->fd(), keep_owner, group) == 0);
}

bool Generation::lock_unused() {
    return take_write_lock(table_file_.fd());
}

bool Generation::is_mapped(int directory_fd, uint32_t generation) {
    char name[kSegmentNameBytes];
    segment_name(name, "table", generation);
    const FileHandle table(openat(directory_fd, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
    return table ? !take_write_lock(table.get()) : errno != ENOENT;
}

void Generation::unlink_files() {
    char name[kSegmentNameBytes];
    segment_name(name, "table", number());
    unlinkat(directory_fd_, name, 0);
    segment_name(name, "cells", number());
    unlinkat(directory_fd_, name, 0);
}

}  // namespace apikey::shm
