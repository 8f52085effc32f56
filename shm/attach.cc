#include "shm/attach.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

namespace apikey::shm {
namespace {

constexpr uint32_t kProbeLinesLimit = 1u << 16;
constexpr uint32_t kShardsLimit = 1u << 12;

AttachResult result_of_errno(int error) {
    switch (error) {
        case ENOENT:
            return AttachResult::kWaiting;
        case EACCES:
        case EPERM:
            return AttachResult::kNotPermitted;
        case ENOTDIR:
        case ELOOP:
            return AttachResult::kNotADirectory;
        case EMFILE:
        case ENFILE:
            return AttachResult::kNoDescriptors;
        case ENOMEM:
        case EAGAIN:
            return AttachResult::kNoMemory;
        default:
            return AttachResult::kIoError;
    }
}

/// The same for a file in the directory: what cannot be opened for its type is no segment.
AttachResult result_of_file_errno(int error) {
    return error == ELOOP || error == EISDIR || error == ENXIO ? AttachResult::kNotARegularFile
                                                               : result_of_errno(error);
}

/// A descriptor for the length of one attach.
class Descriptor {
  public:
    explicit Descriptor(int fd) : fd_(fd) {}
    ~Descriptor() {
        if (fd_ >= 0) {
            close(fd_);
        }
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    int get() const { return fd_; }

  private:
    int fd_;
};

int open_at(int directory, const char* path, int flags) {
    int fd;
    do {
        fd = openat(directory, path, flags | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

/// Opens the directory and says who owns it. The owner is trusted, so nobody else may be able to write there.
AttachResult open_directory(const AttachOptions& options, int* fd, uid_t* owner) {
    *fd = open_at(AT_FDCWD, options.directory, O_RDONLY | O_DIRECTORY);
    if (*fd < 0) {
        return result_of_errno(errno);
    }
    struct stat status;
    if (fstat(*fd, &status) != 0) {
        return AttachResult::kIoError;
    }
    if (options.expected_owner != kAnyOwner && status.st_uid != options.expected_owner) {
        return AttachResult::kForeignOwner;
    }
    if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        return AttachResult::kUnsafeMode;
    }
    *owner = status.st_uid;
    return AttachResult::kOk;
}

/// Type, owner and mode of an opened segment; `forbidden` are the mode bits that must be clear.
AttachResult check_file(int fd, uid_t owner, mode_t forbidden, struct stat* status) {
    if (fstat(fd, status) != 0) {
        return AttachResult::kIoError;
    }
    if (!S_ISREG(status->st_mode)) {
        return AttachResult::kNotARegularFile;
    }
    if (status->st_uid != owner) {
        return AttachResult::kForeignOwner;
    }
    if ((status->st_mode & forbidden) != 0) {
        return AttachResult::kUnsafeMode;
    }
    return AttachResult::kOk;
}

/// Maps a whole file; at a 2 MiB boundary when it is large enough to be backed by huge pages.
void* map_file(int fd, uint64_t bytes, int protection) {
    if (bytes < kHugePageBytes) {
        return mmap(nullptr, bytes, protection, MAP_SHARED, fd, 0);
    }
    const uint64_t reserved = bytes + kHugePageBytes;
    void* area = mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED) {
        return area;
    }
    const auto start = reinterpret_cast<uintptr_t>(area);
    const uintptr_t aligned = (start + kHugePageBytes - 1) & ~(kHugePageBytes - 1);
    void* mapped = mmap(reinterpret_cast<void*>(aligned), bytes, protection, MAP_SHARED | MAP_FIXED, fd, 0);
    if (mapped == MAP_FAILED) {
        munmap(area, reserved);
        return mapped;
    }
    const uintptr_t end = (aligned + bytes + kPageBytes - 1) & ~(kPageBytes - 1);
    if (aligned > start) {
        munmap(area, aligned - start);
    }
    if (start + reserved > end) {
        munmap(reinterpret_cast<void*>(end), start + reserved - end);
    }
    return mapped;
}

bool fits(uint64_t offset, uint64_t length, uint64_t bytes) {
    return offset <= bytes && length <= bytes - offset;
}

/// count x stride bytes at offset, without overflow.
bool fits_array(uint64_t offset, uint64_t count, uint64_t stride, uint64_t bytes) {
    return stride != 0 && count <= bytes / stride && fits(offset, count * stride, bytes);
}

bool current_or_next(const Control& control, uint32_t generation) {
    const uint64_t word = control.current_next.load(std::memory_order_seq_cst);
    return control.state.load(std::memory_order_seq_cst) !=
               static_cast<uint32_t>(ControlState::kSuperseded) &&
           (current_of(word) == generation || next_of(word) == generation);
}

AttachResult attach_cells(int directory, uid_t owner, GenerationMapping* mapping) {
    char name[kSegmentNameBytes];
    segment_name(name, "cells", mapping->table.generation);
    Descriptor file(open_at(directory, name, O_RDWR));
    if (file.get() < 0) {
        // Not allowed to write: validate without counting. Anything else is told.
        return errno == EACCES || errno == EPERM || errno == EROFS ? AttachResult::kOk
                                                                   : result_of_file_errno(errno);
    }
    struct stat status;
    AttachResult result = check_file(file.get(), owner, S_IWOTH, &status);
    if (result != AttachResult::kOk) {
        return result;
    }
    const auto bytes = static_cast<uint64_t>(status.st_size);
    if (bytes < sizeof(CellsHeader)) {
        return AttachResult::kTruncated;
    }
    void* base = map_file(file.get(), bytes, PROT_READ | PROT_WRITE);
    if (base == MAP_FAILED) {
        return result_of_errno(errno);
    }
    result = check_cells(base, bytes, mapping->table, &mapping->cells);
    if (result != AttachResult::kOk) {
        munmap(base, bytes);
        mapping->cells = CellsView{};
        return result;
    }
    madvise(base, bytes, MADV_POPULATE_WRITE);  // a convenience: page faults later are slower, not wrong
    return AttachResult::kOk;
}

}  // namespace

const char* attach_text(AttachResult result) {
    switch (result) {
        case AttachResult::kOk:
            return "attached";
        case AttachResult::kWaiting:
            return "no table yet: start apikeyd for this instance, or check the directory's path";
        case AttachResult::kNotPermitted:
            return "permission denied: add this process's user to the clients' group of the instance";
        case AttachResult::kNotADirectory:
            return "the instance's path is not a directory (links are not followed)";
        case AttachResult::kForeignOwner:
            return "owned by somebody else than expected: not trusted";
        case AttachResult::kUnsafeMode:
            return "writable by somebody who must not write it: not trusted";
        case AttachResult::kNotARegularFile:
            return "a segment is not a regular file: not trusted";
        case AttachResult::kTruncated:
            return "a segment is shorter than its header says";
        case AttachResult::kBadMagic:
            return "not a segment of apikeyd";
        case AttachResult::kAbiMismatch:
            return "the daemon speaks another version of the shared memory: upgrade libapikey or apikeyd";
        case AttachResult::kLayoutMismatch:
            return "the daemon was built with another layout of the shared memory: use builds of one version";
        case AttachResult::kBadGeometry:
            return "a segment's offsets and sizes do not fit: not trusted";
        case AttachResult::kSuperseded:
            return "the generation was replaced meanwhile; looking again";
        case AttachResult::kNoDescriptors:
            return "no file descriptor free (EMFILE); validation goes on where it was attached";
        case AttachResult::kNoMemory:
            return "no memory or address space for the mapping";
        case AttachResult::kIoError:
            return "an unexpected error of the operating system";
    }
    return "unknown";
}

void segment_name(char* out, const char* name, uint32_t generation) {
    while (*name != '\0') {
        *out++ = *name++;
    }
    *out++ = '.';
    char digits[10];
    unsigned count = 0;
    do {
        digits[count++] = static_cast<char>('0' + generation % 10);
        generation /= 10;
    } while (generation != 0);
    while (count != 0) {
        *out++ = digits[--count];
    }
    *out = '\0';
}

AttachResult check_control(const void* base, uint64_t bytes) {
    if (bytes < sizeof(Control)) {
        return AttachResult::kTruncated;
    }
    const auto& control = *static_cast<const Control*>(base);
    if (control.magic != kControlMagic) {
        return AttachResult::kBadMagic;
    }
    if (control.abi != kAbi) {
        return AttachResult::kAbiMismatch;
    }
    return control.layout_hash == layout_hash() ? AttachResult::kOk : AttachResult::kLayoutMismatch;
}

AttachResult check_table(const void* base, uint64_t bytes, uint32_t generation, TableView* out) {
    if (bytes < sizeof(TableHeader)) {
        return AttachResult::kTruncated;
    }
    const auto& header = *static_cast<const TableHeader*>(base);
    if (header.magic != kTableMagic) {
        return AttachResult::kBadMagic;
    }
    if (header.abi != kAbi) {
        return AttachResult::kAbiMismatch;
    }
    if (header.layout_hash != layout_hash()) {
        return AttachResult::kLayoutMismatch;
    }
    if (header.file_bytes != bytes) {
        return header.file_bytes > bytes ? AttachResult::kTruncated : AttachResult::kBadGeometry;
    }
    // Loaded once; what is checked below is what the view keeps.
    const uint64_t slots_offset = header.slots_offset;
    const uint64_t slot_count = header.slot_count;
    const uint64_t details_offset = header.details_offset;
    const uint64_t details_bytes = header.details_bytes;
    const uint32_t probe_lines_max = header.probe_lines_max;
    const bool shape_ok =
        header.header_bytes == sizeof(TableHeader) && header.generation == generation &&
        header.slot_stride == sizeof(Slot) && header.digest_offset == offsetof(Slot, digest) &&
        header.digest_length == sizeof(Slot::digest) && header.meta_offset == offsetof(Slot, meta);
    const bool slots_ok = slot_count >= kSlotsPerLine && slot_count % (kSlotsPerLine * kGroupLines) == 0 &&
                          slots_offset >= sizeof(TableHeader) && slots_offset % 64 == 0 &&
                          fits_array(slots_offset, slot_count, sizeof(Slot), bytes) && probe_lines_max >= 1 &&
                          probe_lines_max <= kProbeLinesLimit &&
                          probe_lines_max <= slot_count / kSlotsPerLine;
    // The areas stand in this order and do not overlap: a writer that adopts the file appends to the details
    // and must not reach the slots.
    const uint64_t slots_end = slots_offset + slot_count * sizeof(Slot);  // fits, so it does not overflow
    const uint64_t seeds_offset = header.seeds_offset;
    const uint64_t seed_count = header.seed_count;
    const bool seeds_ok = seed_count == slot_count / kSlotsPerLine / kGroupLines &&
                          seeds_offset >= slots_end && fits(seeds_offset, seed_count, bytes);
    const uint64_t policies_offset = header.policies_offset;
    const uint64_t policy_capacity = header.policy_capacity;
    const bool policies_ok = policies_offset % sizeof(uint64_t) == 0 && policy_capacity >= 1 &&
                             policies_offset >= seeds_offset + seed_count &&
                             fits_array(policies_offset, policy_capacity, sizeof(Policy), bytes);
    const bool rest_ok = details_offset % kDetailUnit == 0 &&
                         details_offset >= policies_offset + policy_capacity * sizeof(Policy) &&
                         fits(details_offset, details_bytes, bytes) &&
                         fits(header.scopes_offset, header.scopes_bytes, bytes);
    if (!shape_ok || !slots_ok || !seeds_ok || !policies_ok || !rest_ok) {
        return AttachResult::kBadGeometry;
    }
    out->base = static_cast<const uint8_t*>(base);
    out->bytes = bytes;
    out->slots = reinterpret_cast<const Slot*>(out->base + slots_offset);
    out->group_seeds = out->base + seeds_offset;
    out->group_count = seed_count;
    out->hash_seed = header.hash_seed;
    out->probe_lines_max = probe_lines_max;
    out->generation = generation;
    out->details = out->base + details_offset;
    out->details_bytes = details_bytes;
    return AttachResult::kOk;
}

AttachResult check_cells(void* base, uint64_t bytes, const TableView& table, CellsView* out) {
    if (bytes < sizeof(CellsHeader)) {
        return AttachResult::kTruncated;
    }
    CellsHeader header;  // clients can write this page: a copy is checked, and the copy is used
    __builtin_memcpy(&header, base, sizeof header);
    if (header.magic != kCellsMagic) {
        return AttachResult::kBadMagic;
    }
    if (header.abi != kAbi) {
        return AttachResult::kAbiMismatch;
    }
    if (header.layout_hash != layout_hash()) {
        return AttachResult::kLayoutMismatch;
    }
    if (header.file_bytes != bytes) {
        return header.file_bytes > bytes ? AttachResult::kTruncated : AttachResult::kBadGeometry;
    }
    const bool same_generation = header.generation == table.generation &&
                                 header.cell_count == table.slot_count() &&
                                 __builtin_memcmp(header.uid, table.header().uid, kUidLength) == 0;
    const bool stride_ok = header.cell_stride == 16 || header.cell_stride == 32 || header.cell_stride == 64;
    const bool cells_ok =
        stride_ok && header.header_bytes == sizeof(CellsHeader) && header.cells_offset % 64 == 0 &&
        header.cells_offset >= sizeof(CellsHeader) && header.allowed_offset == offsetof(Cell, allowed) &&
        header.denied_offset == offsetof(Cell, denied) && header.meters_offset == sizeof(Cell) &&
        header.meter_words <= (header.cell_stride - sizeof(Cell)) / sizeof(Word) && header.shards >= 1 &&
        header.shards <= kShardsLimit && header.shard_stride % 64 == 0 &&
        header.cell_count <= header.shard_stride / header.cell_stride &&
        fits_array(header.cells_offset, header.shards, header.shard_stride, bytes);
    const bool totals_ok = header.totals_shards >= 1 && header.totals_shards <= kShardsLimit &&
                           header.totals_offset % 64 == 0 && header.totals_offset >= sizeof(CellsHeader) &&
                           fits_array(header.totals_offset, header.totals_shards, sizeof(CodeTotals), bytes);
    // Header, totals, cells, dirty map: in this order and without overlapping, or counting one would change
    // another.
    const bool rest_ok =
        totals_ok && cells_ok &&
        header.totals_offset + header.totals_shards * sizeof(CodeTotals) <= header.cells_offset &&
        header.dirty_offset >= header.cells_offset + header.shards * header.shard_stride &&
        header.dirty_shift < 32 &&
        header.dirty_bytes == ((header.cell_count - 1) >> header.dirty_shift) + 1 &&
        fits(header.dirty_offset, header.dirty_bytes, bytes);
    if (!same_generation || !rest_ok) {
        return AttachResult::kBadGeometry;
    }
    out->base = static_cast<uint8_t*>(base);
    out->bytes = bytes;
    out->cells = out->base + header.cells_offset;
    out->cell_count = header.cell_count;
    out->cell_stride = header.cell_stride;
    out->shards = header.shards;
    out->shard_stride = header.shard_stride;
    out->dirty = reinterpret_cast<ByteWord*>(out->base + header.dirty_offset);
    out->dirty_bytes = header.dirty_bytes;
    out->dirty_shift = header.dirty_shift;
    out->totals_shards = header.totals_shards;
    out->totals = reinterpret_cast<CodeTotals*>(out->base + header.totals_offset);
    return AttachResult::kOk;
}

AttachResult attach_control(const AttachOptions& options, ControlMapping* out) {
    int directory_fd = -1;
    uid_t owner = 0;
    AttachResult result = open_directory(options, &directory_fd, &owner);
    Descriptor directory(directory_fd);
    if (result != AttachResult::kOk) {
        return result;
    }
    Descriptor file(open_at(directory.get(), "control", O_RDONLY));
    if (file.get() < 0) {
        return result_of_file_errno(errno);
    }
    struct stat status;
    result = check_file(file.get(), owner, S_IWGRP | S_IWOTH, &status);
    if (result != AttachResult::kOk) {
        return result;
    }
    if (static_cast<uint64_t>(status.st_size) < sizeof(Control)) {
        return AttachResult::kTruncated;
    }
    void* base = mmap(nullptr, sizeof(Control), PROT_READ, MAP_SHARED | MAP_POPULATE, file.get(), 0);
    if (base == MAP_FAILED) {
        return result_of_errno(errno);
    }
    result = check_control(base, sizeof(Control));
    if (result != AttachResult::kOk) {
        munmap(base, sizeof(Control));
        return result;
    }
    out->control = static_cast<const Control*>(base);
    out->device = status.st_dev;
    out->inode = status.st_ino;
    return AttachResult::kOk;
}

void detach_control(ControlMapping* mapping) {
    if (mapping->control != nullptr) {
        munmap(const_cast<Control*>(mapping->control), sizeof(Control));
        *mapping = ControlMapping{};
    }
}

AttachResult attach_generation(const AttachOptions& options, const Control& control, uint32_t generation,
                               GenerationMapping* out) {
    int directory_fd = -1;
    uid_t owner = 0;
    AttachResult result = open_directory(options, &directory_fd, &owner);
    Descriptor directory(directory_fd);
    if (result != AttachResult::kOk) {
        return result;
    }
    char name[kSegmentNameBytes];
    segment_name(name, "table", generation);
    Descriptor file(open_at(directory.get(), name, O_RDONLY));
    if (file.get() < 0) {
        return errno == ENOENT ? AttachResult::kSuperseded : result_of_file_errno(errno);
    }
    struct stat status;
    result = check_file(file.get(), owner, S_IWGRP | S_IWOTH, &status);
    if (result != AttachResult::kOk) {
        return result;
    }
    // The lock belongs to the open file description, which the mapping keeps alive until munmap or death.
    // Taken before the second look at control: either the daemon's write lock came first, and we see that the
    // generation is superseded, or ours did, and the daemon finds it in use.
    struct flock lock {};
    lock.l_type = F_RDLCK;
    lock.l_whence = SEEK_SET;
    if (fcntl(file.get(), F_OFD_SETLK, &lock) != 0) {
        return errno == EAGAIN || errno == EACCES ? AttachResult::kSuperseded : AttachResult::kIoError;
    }
    if (!current_or_next(control, generation)) {
        return AttachResult::kSuperseded;
    }
    const auto bytes = static_cast<uint64_t>(status.st_size);
    if (bytes < sizeof(TableHeader)) {
        return AttachResult::kTruncated;
    }
    void* base = map_file(file.get(), bytes, PROT_READ);
    if (base == MAP_FAILED) {
        return result_of_errno(errno);
    }
    GenerationMapping mapping;
    result = check_table(base, bytes, generation, &mapping.table);
    if (result == AttachResult::kOk) {
        result = attach_cells(directory.get(), owner, &mapping);
    }
    if (result != AttachResult::kOk) {
        munmap(base, bytes);
        return result == AttachResult::kWaiting ? AttachResult::kSuperseded : result;
    }
    madvise(base, bytes, MADV_POPULATE_READ);
    *out = mapping;
    return AttachResult::kOk;
}

void detach_generation(GenerationMapping* mapping) {
    if (mapping->cells.base != nullptr) {
        munmap(mapping->cells.base, mapping->cells.bytes);
    }
    if (mapping->table.base != nullptr) {
        munmap(const_cast<uint8_t*>(mapping->table.base), mapping->table.bytes);
    }
    *mapping = GenerationMapping{};
}

}  // namespace apikey::shm
