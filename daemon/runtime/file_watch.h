// Notices that the content behind one path may have changed.

#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "base/owned_fd.h"
#include "base/result.h"
#include "runtime/loop.h"

namespace apikeyd {

struct FileWatchOptions {
    std::int64_t debounce_ms;  ///< from the first sign of a change to changed(): what comes in between is one
    std::int64_t poll_ms;      ///< how often the file's stat is compared, for file systems that tell nothing
    bool use_inotify = true;   ///< false: polling alone
    bool writes = false;       ///< tell of each write, not when the writer closes the file
};

/// Watches a path, not a file: the directories that hold the file and each symbolic link on the way to it, by
/// inotify. So it sees writes in place, editors that rename a new file over the old one, links that are
/// switched (a Kubernetes ConfigMap: keys.yaml -> ..data/keys.yaml, ..data -> ..2026_x, replaced by rename),
/// directories that are deleted, moved and made again, and a file that is not there yet. Besides, it compares
/// device, inode, size and times every poll_ms: network file systems do not tell of other hosts' writes, and
/// inotify may be out of watches.
///
/// It reads no content and tells too often rather than too seldom: callers compare the content (by hash).
/// Belongs to the loop's thread, which a stat() of a dead network mount holds up. The loop outlives it.
class FileWatch {
  public:
    /// `changed` is not called for what is there at creation: create the watch first, then read the file. It
    /// must not destroy the watch. `path` need not exist; a relative one is taken from the working directory
    /// of now. Where inotify cannot be had, polling goes on alone and inotify_problem() says why.
    static Result<std::unique_ptr<FileWatch>> create(Loop& loop, const std::string& path,
                                                     FileWatchOptions options, std::function<void()> changed);

    ~FileWatch();
    FileWatch(const FileWatch&) = delete;
    FileWatch& operator=(const FileWatch&) = delete;

    /// Empty, or why changes are found by polling only. May change after any event.
    const std::string& inotify_problem() const { return problem_; }

  private:
    class Rebuild;

    /// What stat() of the path says; error_number is 0 or why it says nothing.
    struct Signature {
        int error_number = 0;
        dev_t device = 0;
        ino_t inode = 0;
        off_t size_bytes = 0;
        std::int64_t modified_ns = 0;
        std::int64_t status_changed_ns = 0;
        bool operator==(const Signature&) const = default;
    };

    FileWatch(Loop& loop, std::string path, FileWatchOptions options, std::function<void()> changed);
    Result<void> open_inotify();
    void read_events();
    bool tells_of_change(int directory_watch, std::uint32_t mask, const std::string& name);
    void poll();
    void schedule(bool found_by_poll);
    void report();
    void rebuild();
    Signature look() const;

    Loop& loop_;
    const std::string path_;
    const FileWatchOptions options_;
    std::function<void()> changed_;
    std::string problem_;

    OwnedFd inotify_;
    WatchId watch_;
    TimerId poll_timer_;
    TimerId debounce_timer_;
    bool scheduled_ = false;
    bool found_by_poll_ = false;
    bool look_again_ = false;
    Signature reported_;
    std::map<int, std::set<std::string>>
        names_by_watch_;  // inotify's watch -> entries that matter in the directory
};

}  // namespace apikeyd
