// Changing a key set file so that whoever reads it finds the old text or the new one, whole, and so that two
// who change it at once both succeed. A file that its group may write (0660) is the group's: any member may
// change it, the lock is shared, and the file then belongs to who changed it last.
//
// A lock file beside it (`<file>.lock`, never removed) holds an open-file-description lock while the file is
// read, edited and replaced: new text under a temporary name, fsync, rename, fsync of the directory. A kill
// anywhere leaves the old text or the new; a temporary file left behind is removed by the next rewrite.

#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "source/key_set_limits.h"
#include "source/store.h"

namespace apikeyd {

struct RewriteOptions {
    uint32_t lock_wait_ms_max = 10'000;
    size_t file_bytes_max = kKeySetBytesMax;
    /// Start from this text when there is no file, and create it with mode 0600. Empty: a missing file is an
    /// error.
    std::string initial_text;
    std::function<void(const Rewrite&)> then_locked;  ///< as in ChangeOptions
};

/// From the file's text to its new text. Called once, under the lock.
using TextEdit = std::function<Result<std::string>(std::string_view old_text)>;

/// Replaces the text of the file at `path` by what `edit` makes of it; fingerprints are the texts' SHA-256.
/// When this returns without an error, the new text is on disk. Group and mode are kept, and the owner too
/// unless the group shares the file (not ACLs or hard links); a symbolic link stays and its target is
/// replaced. On an error the old text stays, unless the message says that the new one is in place but perhaps
/// not durable. Blocks for lock_wait_ms_max at most; safe from any thread and process.
Result<Rewrite> rewrite_file(const std::string& path, const TextEdit& edit,
                             const RewriteOptions& options = {});

}  // namespace apikeyd
