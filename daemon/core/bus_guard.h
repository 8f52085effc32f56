// Survives a client that truncates cells: the files' one writable part for clients is the daemon's only way
// to die by SIGBUS, and tmpfs files cannot be sealed against it.

#pragma once

#include <cstddef>

namespace apikeyd {

/// Installs the handler, once per process. A SIGBUS outside guarded areas ends the process as it would
/// without.
void install_bus_guard();

/// While it lives, a fault in [base, base + bytes) puts zero pages there instead of killing the daemon.
/// A base of nullptr guards nothing. At most 4096 areas at once, more generations than memory holds; further
/// ones go unguarded.
class BusGuardedArea {
  public:
    BusGuardedArea(void* base, size_t bytes);
    ~BusGuardedArea();
    BusGuardedArea(const BusGuardedArea&) = delete;
    BusGuardedArea& operator=(const BusGuardedArea&) = delete;

  private:
    int slot_;
};

}  // namespace apikeyd
