// Promises 1, 2 and 5 when the host's clock is stepped by an hour, forth and back, under a running daemon and
// its clients: no valid key is refused, a revocation is in force when the tool returns, every call is
// counted, and new generations are published, taken up and let go of as ever.
//
// Daemon, tool and this process read one clock, in which this test makes the steps (stepped_clock.cc).

#include <gtest/gtest.h>

#include <ctime>

#include "faults_fixture.h"
#include "source/rfc3339.h"
#include "stepped_clock.h"

namespace {

using namespace apikeyd::test;

int64_t now_s() {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec;
}

class ClockSteps : public Faults {
  protected:
    ~ClockSteps() override { clock_.step_to(0); }
    SteppedClock& clock_ = SteppedClock::get();
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
