// The only thing that stores into `control`.

#pragma once

#include <sys/types.h>

#include "shm/layout.h"
#include "shm/segment.h"

namespace apikey::shm {

class ControlWriter {
  public:
    /// Reuses the file in place when it is whole and of this ABI and boot; else makes a new one, renames it
    /// over and then marks the old one superseded, so that its readers look again.
    static Result<ControlWriter> open(int directory_fd, gid_t clients_group);

    uint32_t current() const { return current_of(control().current_next.load(std::memory_order_relaxed)); }
    uint32_t next() const { return next_of(control().current_next.load(std::memory_order_relaxed)); }
    const Control& control() const { return *reinterpret_cast<const Control*>(segment_.data()); }
    int fd() const { return segment_.fd(); }

    /// `generation` is complete under its names and will become current, whoever is daemon.
    void announce(uint32_t generation);
    /// The announced generation is current from here on.
    void publish();

    void set_state(ControlState state);
    void beat(uint64_t now_ns);
    void set_started(uint64_t pid, uint64_t now_ns);
    /// One more load or change of the source is in force.
    void applied(uint64_t fingerprint, uint64_t now_ns);
    /// A load that was refused, and one that found nothing new after such.
    void refused();
    void accepted();
    void flushed(uint64_t now_ns);

  private:
    explicit ControlWriter(Segment segment) : segment_(std::move(segment)) {}
    Control& words() { return *reinterpret_cast<Control*>(segment_.data()); }

    Segment segment_;
};

}  // namespace apikey::shm
