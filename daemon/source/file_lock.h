// The lock of who changes a key set: an open-file-description lock on a file beside it (`<file>.lock`, never
// removed). It goes with its descriptor, whatever becomes of the process. A file that its group may write is
// the group's, and its lock too.

#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>

#include "base/owned_fd.h"
#include "base/result.h"

namespace apikeyd {

/// Where a file stands: no symbolic link in it (when the file exists), so that two names of one file share a
/// lock.
struct FilePlace {
    std::string directory;
    std::string name;
    std::string path;  ///< directory/name
};

/// The error begins with `path`. No file at the end of it is none.
Result<FilePlace> resolve_file(const std::string& path);

/// True for a file that its group may change as well as its owner.
bool is_group_shared(const struct stat& status);

/// The lock file, made when there is none (mode 0600; 0660 for a shared file) and locked until it is closed.
/// Blocks for wait_ms_max at most; the error then names who holds it.
Result<OwnedFd> take_file_lock(const FilePlace& place, uint32_t wait_ms_max);

}  // namespace apikeyd
