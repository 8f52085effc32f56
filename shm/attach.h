// Attaching to a segment that somebody else wrote, and trusting nothing in it.
//
// Everything is checked against what fstat says: type, owner and mode here; sizes, magic, ABI, layout hash,
// every offset and length by header_checks.h. Each way to fail has its own name and text.
//
// Used by the client (plain mmap; Boost.Interprocess throws and would pull in libstdc++) and by tools that
// look at a live segment. Allocates nothing, holds no descriptor afterwards, never throws.

#pragma once

#include <sys/types.h>

#include "shm/attach_result.h"
#include "shm/cells.h"
#include "shm/layout.h"
#include "shm/table_reader.h"

namespace apikey::shm {

/// What the caller demands of the directory.
struct AttachOptions {
    const char* directory;  ///< <base>/<instance>
    uid_t expected_owner;   ///< kAnyOwner: whoever owns the directory
};
inline constexpr uid_t kAnyOwner = static_cast<uid_t>(-1);

/// A mapped control file.
struct ControlMapping {
    const Control* control = nullptr;
    dev_t device = 0;
    ino_t inode = 0;
};

/// A mapped generation. The table's mapping carries the read lock that tells the daemon it is in use.
struct GenerationMapping {
    TableView table;
    CellsView cells;
};

/// True while clients may attach to this generation. To be asked with the read lock in hand: that the daemon
/// has locked the file before, and so superseded it, is seen for the lock's sake. Relaxed, both; that the
/// file is complete is known from the load that named it (attach_node() of the client).
inline bool current_or_next(const Control& control, uint32_t generation) {
    const uint64_t word = control.current_next.load(std::memory_order_relaxed);
    return control.state.load(std::memory_order_relaxed) !=
               static_cast<uint32_t>(ControlState::kSuperseded) &&
           (current_of(word) == generation || next_of(word) == generation);
}

/// Maps `control`. On success `*out` is complete; else it is untouched.
AttachResult attach_control(const AttachOptions& options, ControlMapping* out);
void detach_control(ControlMapping* mapping);

/// Maps generation `generation` of the directory `control` came from, and populates its page tables.
/// kSuperseded: it is neither current nor next any more, or is being harvested, or another file stands under
/// control's name; read control again. Cells that may not be written leave `out->cells.base` nullptr: still
/// kOk.
AttachResult attach_generation(const AttachOptions& options, const ControlMapping& control,
                               uint32_t generation, GenerationMapping* out);
/// Maps a generation for one that only looks: the cells, too, can only be read (`out->cells` points to memory
/// that nothing may be stored in), and no lock is taken, so that the daemon's work never waits for the
/// looker. Any generation whose files stand in the directory can be looked at, superseded ones as well; when
/// the daemon unlinks them, the mapping stays, and has what was counted last. kSuperseded: there is none of
/// this number (any more). Needs no more rights than to read.
AttachResult observe_generation(const AttachOptions& options, uint32_t generation, GenerationMapping* out);
/// Unmaps; the cells first, since the table's lock tells that both are in use.
void detach_generation(GenerationMapping* mapping);

/// `<directory>/<name>.<generation>` without allocation; the buffer holds kSegmentNameBytes.
inline constexpr size_t kSegmentNameBytes = 24;
void segment_name(char* out, const char* name, uint32_t generation);

}  // namespace apikey::shm
