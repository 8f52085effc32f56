// Whether the bytes of a segment are what its header says they are. Geometry is copied into a view once and
// never read again, so a segment that changes under its reader can make him answer wrongly, but not reach
// outside the mapping.
//
// `bytes` is the true size of the file, as fstat says. Allocates nothing, never throws.

#pragma once

#include "shm/attach_result.h"
#include "shm/cells.h"
#include "shm/layout.h"
#include "shm/table_reader.h"

namespace apikey::shm {

AttachResult check_control(const void* base, uint64_t bytes);
AttachResult check_table(const void* base, uint64_t bytes, uint32_t generation, TableView* out);
/// `table` must be checked already; cells must be parallel to it.
AttachResult check_cells(void* base, uint64_t bytes, const TableView& table, CellsView* out);

}  // namespace apikey::shm
