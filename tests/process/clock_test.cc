// Promises 1, 2 and 5 when the host's clock is stepped by an hour, forth and back, under a running daemon and
// its clients: no valid key is refused, a revocation is in force when the tool returns, every call is
// counted, and new generations are published, taken up and let go of as ever.
//
// Daemon, tool and this process read one clock, in which this test makes the steps (stepped_clock.cc).

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <ctime>

#include "faults_fixture.h"
#include "source/rfc3339.h"

namespace {

using namespace apikeyd::test;

constexpr int64_t kHour_s = 3600;

int64_t now_s() {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec;
}

/// The step of this process's clock, and of those that it starts while this lives.
class Clock {
  public:
    Clock() {
        char name[] = "/dev/shm/apikeyd-clock-XXXXXX";
        fd_ = mkstemp(name);
        path_ = name;
        EXPECT_EQ(ftruncate(fd_, sizeof(int64_t)), 0);
        void* page = mmap(nullptr, sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
        EXPECT_NE(page, MAP_FAILED);
        step_ns_ = static_cast<std::atomic<int64_t>*>(page);
        setenv("APIKEYD_TEST_CLOCK", name, 1);
        setenv("LD_PRELOAD", getenv("STEPPED_CLOCK"), 1);
    }
    ~Clock() {
        unsetenv("LD_PRELOAD");
        munmap(step_ns_, sizeof(int64_t));
        close(fd_);
        unlink(path_.c_str());
    }
    Clock(const Clock&) = delete;
    Clock& operator=(const Clock&) = delete;
    void step_to(int64_t seconds) { step_ns_->store(seconds * 1000000000); }

  private:
    int fd_;
    std::string path_;
    std::atomic<int64_t>* step_ns_;
};

class ClockSteps : public Faults {
  protected:
    Clock clock_;
};

TEST_F(ClockSteps, OfAnHourForthAndBackRefuseNothingAndHoldNothingUp) {
    constexpr size_t kExpiring = 1;
    const int64_t started_s = now_s();
    more_[kExpiring] = ", expires: " + apikeyd::format_rfc3339(started_s + kHour_s / 2);
    write_keys();
    start();
    apikey_client* client = site_.open_client(500);
    apikey_client* kept = site_.open_client(500);  // its housekeeping comes before each step, and not again
    size_t next_revoked = 2;
    uint32_t generation = site_.await_applied();
    for (const int64_t step_s : {kHour_s, int64_t{0}, -kHour_s, int64_t{0}}) {
        SCOPED_TRACE(step_s);
        ASSERT_EQ(apikey_refresh(kept), APIKEY_OK);
        clock_.step_to(step_s);
        EXPECT_GE(now_s(), started_s + step_s);
        EXPECT_LT(now_s(), started_s + step_s + kHour_s / 2) << "this process reads the clock";
        EXPECT_EQ(code(client, 0), APIKEY_VALID);
        EXPECT_EQ(code(kept, 0), APIKEY_VALID);
        EXPECT_EQ(code(client, kExpiring), step_s > 0 ? APIKEY_EXPIRED : APIKEY_VALID);
        EXPECT_TRUE(await([&] { return ask(client, 0).flags == 0 && ask(kept, 0).flags == 0; }))
            << "the daemon reads another clock";
        EXPECT_EQ(revoke(next_revoked), 0);
        EXPECT_EQ(code(client, next_revoked), APIKEY_REVOKED);
        EXPECT_EQ(code(kept, next_revoked), APIKEY_REVOKED);
        ++next_revoked;
        const uint32_t before = generation;
        generation = next_generation();
        EXPECT_GT(generation, before);
        EXPECT_TRUE(await([&] {
            EXPECT_EQ(code(client, 0), APIKEY_VALID);
            EXPECT_EQ(code(kept, 0), APIKEY_VALID);
            return !there(table_name(before));
        })) << "somebody keeps the old generation";
    }
    expect_all_counted();
    apikey_close(client);
    apikey_close(kept);
    EXPECT_EQ(daemon_.terminate(), 0);
}

}  // namespace
