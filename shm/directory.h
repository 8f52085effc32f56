// The directory of one instance: made with safe modes, locked by one daemon at a time, listed at start.

#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "shm/segment.h"

namespace apikey::shm {

class Directory {
  public:
    /// Makes `<base>/<instance>` where it is missing (0750, `clients_group`; the base 0755), checks owner,
    /// mode and type of what is there, and takes the instance lock for the life of this object. Fails when
    /// another daemon holds it, naming the pid for people. `instance` is a plain name.
    static Result<Directory> open_and_lock(const std::string& base, const std::string& instance,
                                           gid_t clients_group);

    /// Looks whether open_and_lock() would find or could make the directories, as this user. Changes nothing;
    /// tells nothing of the lock.
    static Result<void> check(const std::string& base, const std::string& instance);

    int fd() const { return directory_.get(); }
    const std::string& path() const { return path_; }

    /// Generation numbers of the `table.<g>` files, ascending. Removes leftovers of an unfinished build.
    Result<std::vector<uint32_t>> generations();

    /// True while the path still names this directory, `control` in it is `control_fd`'s file, and `lock`
    /// ours.
    bool still_named(int control_fd) const;

  private:
    Directory(std::string path, FileHandle directory, FileHandle lock)
        : path_(std::move(path)), directory_(std::move(directory)), lock_(std::move(lock)) {}

    std::string path_;
    FileHandle directory_;
    FileHandle lock_;
};

}  // namespace apikey::shm
