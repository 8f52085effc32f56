// A client that truncates cells does not kill the daemon, whatever else the daemon guards or guarded.

#include "core/bus_guard.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <optional>

#include "support/child.h"

namespace apikeyd {
namespace {

constexpr size_t kBytes = 8192;

/// A mapping whose file lost its bytes: every touch is a SIGBUS.
void* truncated_mapping() {
    const int fd = memfd_create("cells", MFD_CLOEXEC);
    void* base = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, kBytes) == 0) {
        base = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    if (base == MAP_FAILED || ftruncate(fd, 0) != 0) {
        _exit(99);
    }
    close(fd);
    return base;
}

int touch(void* base) {
    auto* bytes = static_cast<volatile char*>(base);
    bytes[0] = 1;
    bytes[kBytes - 1] = 2;
    return bytes[0] + bytes[kBytes - 1] == 3 ? 0 : 1;
}

TEST(BusGuard, AGuardedAreaOutlivesItsFile) {
    EXPECT_EQ(apikey::test::in_child([] {
                  install_bus_guard();
                  void* base = truncated_mapping();
                  const BusGuardedArea area(base, kBytes);
                  return touch(base);
              }),
              0);
}

TEST(BusGuard, AnAreaOfNothingTakesNobodysPlace) {
    EXPECT_EQ(apikey::test::in_child([] {
                  install_bus_guard();
                  std::optional<BusGuardedArea> nothing;
                  nothing.emplace(nullptr, 0);
                  void* base = truncated_mapping();
                  const BusGuardedArea area(base, kBytes);
                  nothing.reset();
                  return touch(base);
              }),
              0);
}

TEST(BusGuard, WhatIsNotGuardedEndsTheProcess) {
    EXPECT_EQ(apikey::test::in_child([] {
                  signal(SIGBUS, SIG_DFL);  // a sanitizer's handler has its own way to end
                  install_bus_guard();
                  return touch(truncated_mapping());
              }),
              128 + SIGBUS);
}

}  // namespace
}  // namespace apikeyd
