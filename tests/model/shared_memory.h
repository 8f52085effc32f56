// Memory that can be mapped more than once, as a segment is by the daemon and by each server.

#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "tests/model/simulation.h"

namespace apikey::model {

/// Made once and used for every run: mapping takes longer than most runs.
class SharedMemory {
  public:
    explicit SharedMemory(size_t bytes) : fd_(memfd_create("model", MFD_CLOEXEC)), bytes_(bytes) {
        expect(fd_ >= 0 && ftruncate(fd_, static_cast<off_t>(bytes)) == 0, "there is memory");
        data_ = map();
    }
    ~SharedMemory() {
        for (uint8_t* alias : aliases_) {
            munmap(alias, bytes_);
        }
        munmap(data_, bytes_);
        close(fd_);
    }
    SharedMemory(const SharedMemory&) = delete;
    SharedMemory& operator=(const SharedMemory&) = delete;

    /// As new, before a run.
    void clear() {
        std::memset(data_, 0, bytes_);
        aliases_used_ = 0;
    }
    /// As its maker has it.
    uint8_t* data() const { return data_; }
    size_t bytes() const { return bytes_; }
    /// As one server more has it, until it calls end_alias(). It stays readable, for the simulation to tell
    /// who reads it after that.
    uint8_t* alias() {
        if (aliases_used_ == aliases_.size()) {
            aliases_.push_back(map());
        }
        uint8_t* alias = aliases_[aliases_used_++];
        begin_alias(alias, data_, bytes_);
        return alias;
    }

  private:
    uint8_t* map() const {
        void* mapped = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
        expect(mapped != MAP_FAILED, "there is room to map it");
        return static_cast<uint8_t*>(mapped);
    }

    int fd_;
    size_t bytes_;
    uint8_t* data_;
    std::vector<uint8_t*> aliases_;
    size_t aliases_used_ = 0;
};

}  // namespace apikey::model
