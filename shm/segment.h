// A file of shared memory, created or opened by the daemon and mapped through Boost.Interprocess.
//
// Space is reserved before a byte is mapped, so a full tmpfs is an error here and not a SIGBUS later. Files
// are created under a fresh name with an explicit mode, whatever the umask, and are never resized.

#pragma once

#include <sys/types.h>

#include <boost/interprocess/mapped_region.hpp>
#include <cstdint>
#include <string>

#include "shm/result.h"

namespace apikey::shm {

/// An open descriptor; closes it at its end.
class FileHandle {
  public:
    FileHandle() = default;
    explicit FileHandle(int fd) : fd_(fd) {}
    FileHandle(FileHandle&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    FileHandle& operator=(FileHandle&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~FileHandle();
    int get() const { return fd_; }
    explicit operator bool() const { return fd_ >= 0; }

    /// What Boost.Interprocess asks of something it maps.
    boost::interprocess::mapping_handle_t get_mapping_handle() const { return {fd_, false}; }

  private:
    int fd_ = -1;
};

/// `operation name: strerror(error)`, with a hint where one is known.
std::string system_error_text(const std::string& operation, const std::string& name, int error);

/// A mapped file. Movable; unmaps and closes at its end. Not thread-safe.
class Segment {
  public:
    /// Creates `name` in `directory_fd` with exactly `bytes` reserved and zeroed. `mode` and `group` are set
    /// whatever the umask (group -1: as the system gives it). Fails when the name exists; leaves nothing
    /// behind on failure.
    static Result<Segment> create(int directory_fd, const std::string& name, uint64_t bytes, mode_t mode,
                                  gid_t group);

    /// Opens and maps the whole of `name` read-write. Refuses links, other types, and owners but the own
    /// user.
    static Result<Segment> open(int directory_fd, const std::string& name);

    /// Has the kernel back the file by 2 MiB pages, as far as it can: a look-up among millions of keys then
    /// misses the translation cache less. Works where tmpfs does not use them by itself. Call it when the
    /// file has been written: pages that never were are slow to collapse. Mappings made later profit. Returns
    /// the bytes that are backed so; 0 is no error.
    uint64_t use_huge_pages() const;

    uint8_t* data() const { return static_cast<uint8_t*>(region_.get_address()); }
    uint64_t bytes() const { return region_.get_size(); }
    int fd() const { return file_.get(); }

  private:
    Segment(FileHandle file, boost::interprocess::mapped_region region)
        : file_(std::move(file)), region_(std::move(region)) {}
    static Result<Segment> map(FileHandle file, const std::string& name, uint64_t bytes);

    FileHandle file_;
    boost::interprocess::mapped_region region_;
};

}  // namespace apikey::shm
