// A file that is made whole under a temporary name and then takes its own.

#pragma once

#include <string>

#include "base/owned_fd.h"
#include "base/result.h"
#include "source/file_lock.h"

namespace apikeyd {

/// Removes itself unless it has been renamed. What a kill leaves behind goes with remove_stale().
class TemporaryFile {
  public:
    TemporaryFile() = default;
    TemporaryFile(const TemporaryFile&) = delete;
    TemporaryFile& operator=(const TemporaryFile&) = delete;
    ~TemporaryFile();

    /// Beside `place`, empty, of mode 0600.
    Result<void> create(const FilePlace& place);
    [[nodiscard]] const std::string& path() const { return path_; }
    [[nodiscard]] int fd() const { return file_.get(); }

    /// Puts it in place, durably if its content is. One that is there already is replaced, or is an error.
    Result<void> rename_to(const FilePlace& place, bool replace);

  private:
    OwnedFd file_;
    std::string path_;
};

/// Removes what killed makers of this file left: what nobody holds a lock on.
void remove_stale(const FilePlace& place);

}  // namespace apikeyd
