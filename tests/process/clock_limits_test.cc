// Limits when the clock or the meters cannot be trusted: the host's clock is stepped by an hour while keys
// are spent, one process has a clock an hour behind, another one scribbles on all meter words. What passes
// stays bounded, nobody crashes, and afterwards limits are what they were.
//
// By a clock that goes back a rate passes nothing more: its meter is brought to a full window of the new
// time. By one that goes on an hour it passes a burst, as it would after an hour. A quota's period that has
// begun does not begin again.

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <ctime>
#include <deque>
#include <new>
#include <random>
#include <thread>
#include <vector>

#include "shm/attach.h"
#include "shm/meters.h"
#include "stepped_clock.h"
#include "support/child.h"
#include "support/daemon_process.h"
#include "support/site.h"

namespace {

using namespace apikeyd::test;
using apikey::test::Child;
namespace shm = apikey::shm;

constexpr uint64_t kRate_s = 200;
constexpr uint64_t kBurst = 100;
constexpr uint64_t kQuota = 1000;     // an hour
constexpr uint64_t kTogether = 1500;  // of all keys of the owner
constexpr unsigned kLanesMax = 8;

enum KeyNumber : unsigned { kRated, kRationed, kBoth, kOfOwner, kKeysAsked };

/// What the lanes of all processes were answered.
struct Shared {
    std::atomic<unsigned> ready;
    std::atomic<bool> go;
    std::atomic<bool> stop;
    struct Lane {
        std::atomic<bool> stop;
        std::atomic<uint64_t> valid[kKeysAsked];
        std::atomic<uint64_t> refused[kKeysAsked];
        std::atomic<uint64_t> others;
    } lanes[kLanesMax];
};

struct Sum {
    uint64_t valid = 0;
    uint64_t refused = 0;
};

/// Goes on with the ticks of the clock that rates are metered by, and is never set.
uint64_t coarse_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

class ClockLimits : public testing::Test {
  protected:
    ClockLimits() : site_("flush_interval_ms: 50\nheartbeat_interval_ms: 50\n"), daemon_(site_.config()) {
        std::minstd_rand random(7);
        for (int i = 0; i < 4000; ++i) {
            keys_.push_back(draw_key(random));
        }
        void* memory =
            mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        shared_ = memory != MAP_FAILED ? new (memory) Shared : nullptr;
        step_to(0);
    }
    ~ClockLimits() override {
        children_.clear();
        if (HasFailure()) {
            std::puts(site_.last_words().c_str());
        }
        munmap(static_cast<void*>(shared_), sizeof(Shared));
        clock_.step_to(0);
    }

    /// From the middle of an hour, so that none begins unless the test says so.
    void step_to(int64_t seconds) { clock_.step_to(middle_s_ + seconds); }

    void write(size_t others) const {
        const std::string rate =
            "{name: fast, rate: " + std::to_string(kRate_s) + "/s, burst: " + std::to_string(kBurst) + "}";
        const std::string quota = "{name: hourly, quota: " + std::to_string(kQuota) + "/hour}";
        const std::string faster = "{name: faster, rate: 5000/s, burst: 500}";
        std::string rows = keys_[kRated].row(", plan: rated") + keys_[kRationed].row(", plan: rationed");
        for (const KeyNumber key : {kBoth, kOfOwner}) {
            rows += keys_[key].row(", plan: both", "team");
        }
        for (size_t i = kKeysAsked; i < kKeysAsked + others; ++i) {
            rows += keys_[i].row();
        }
        site_.write("keys.yaml",
                    "plans:\n  - {name: rated, limits: [" + rate + "]}\n  - {name: rationed, limits: [" +
                        quota + "]}\n  - {name: both, limits: [" + faster + ", " + quota +
                        "]}\n  - {name: team, limits: [{name: together, quota: " + std::to_string(kTogether) +
                        "/hour}]}\nowners: [{name: team, plan: team}]\nkeys:\n" + rows);
    }
    void start() {
        write(10);
        daemon_.start();
        daemon_.wait_ready();
        site_.await_applied();
    }

    /// Presents these keys by turns until told to stop.
    void serve(unsigned lane, const std::vector<KeyNumber>& asked, useconds_t between_us) const {
        apikey_client* client = site_.open_client();
        Shared::Lane& mine = shared_->lanes[lane];
        shared_->ready.fetch_add(1);
        while (!shared_->go.load()) {
            usleep(100);
        }
        for (size_t i = 0; !shared_->stop.load() && !mine.stop.load(); ++i) {
            const KeyNumber key = asked[i % asked.size()];
            const std::string& text = keys_[key].text;
            apikey_verdict verdict;
            apikey_validate(client, text.data(), text.size(), &verdict);
            if (verdict.code == APIKEY_VALID) {
                mine.valid[key].fetch_add(1);
            } else if (verdict.code == APIKEY_RATE_LIMITED || verdict.code == APIKEY_USAGE_EXCEEDED) {
                mine.refused[key].fetch_add(1);
            } else {
                mine.others.fetch_add(1);
            }
            usleep(between_us);
        }
        apikey_close(client);
    }
    /// A process of two threads.
    void start_process(unsigned lane, const std::vector<KeyNumber>& asked, int64_t own_step_s = 0,
                       useconds_t between_us = 20) {
        children_.emplace_back([=, this] {
            stepped_clock_own_ns.store(own_step_s * 1'000'000'000);
            std::thread other([&] { serve(lane + 1, asked, between_us); });
            serve(lane, asked, between_us);
            other.join();
            return 0;
        });
        lanes_ += 2;
    }
    void let_go() {
        ASSERT_TRUE(await([&] { return shared_->ready.load() == lanes_; }));
        began_ns_ = coarse_ns();
        shared_->go.store(true);
    }
    void stop_all() {
        shared_->stop.store(true);
        for (Child& child : children_) {
            EXPECT_EQ(child.wait(), 0);
        }
        children_.clear();
        for (const Shared::Lane& lane : shared_->lanes) {
            EXPECT_EQ(lane.others.load(), 0u);
        }
    }
    Sum sum(KeyNumber key, unsigned from = 0, unsigned to = kLanesMax) const {
        Sum sum;
        for (unsigned lane = from; lane < to; ++lane) {
            sum.valid += shared_->lanes[lane].valid[key].load();
            sum.refused += shared_->lanes[lane].refused[key].load();
        }
        return sum;
    }
    /// The rated key goes on to pass, and is refused in between; the rationed one is refused by everybody.
    void await_spent() const {
        const Sum rated = sum(kRated);
        const Sum rationed = sum(kRationed);
        ASSERT_TRUE(await([&] { return sum(kRated).valid >= rated.valid + kBurst + 20; }))
            << "nothing passes";
        ASSERT_TRUE(await([&] { return sum(kRated).refused >= rated.refused + 20; })) << "nothing is refused";
        ASSERT_TRUE(await([&] { return sum(kRationed).refused >= rationed.refused + 100; }));
    }
    /// What the rate lets pass since `began_ns_`, in so many pieces of the clock's way.
    uint64_t rate_allows(unsigned pieces) const {
        timespec tick{};
        clock_getres(CLOCK_MONOTONIC_COARSE, &tick);
        const uint64_t passed_ns = coarse_ns() - began_ns_ + pieces * static_cast<uint64_t>(tick.tv_nsec);
        return kRate_s * passed_ns / 1'000'000'000 + 1;
    }
    uint64_t passes(KeyNumber key, apikey_code until) const {
        apikey_client* client = site_.open_client();
        apikey_verdict verdict;
        uint64_t passed = 0;
        const bool refused = await([&] {
            while (apikey_validate(client, keys_[key].text.data(), keys_[key].text.size(), &verdict) ==
                   APIKEY_VALID) {
                ++passed;
            }
            return verdict.code == until;
        });
        EXPECT_TRUE(refused) << apikey_code_name(verdict.code);
        apikey_close(client);
        return passed;
    }

    SteppedClock& clock_ = SteppedClock::get();
    int64_t middle_s_ = kHour_s / 2 - time(nullptr) % kHour_s;
    Site site_;
    DaemonProcess daemon_;
    std::vector<PlainKey> keys_;
    Shared* shared_;
    std::deque<Child> children_;
    unsigned lanes_ = 0;
    uint64_t began_ns_ = 0;
};

TEST_F(ClockLimits, AStepOfTheHostsClockPassesABurstOrAQuotaOnlyWhereTimeGoesOn) {
    start();
    start_process(0, {kRated, kRationed});
    start_process(2, {kRated, kRationed});
    let_go();
    struct Step {
        int64_t to_s;
        unsigned bursts;   ///< that may have passed by then
        uint64_t periods;  ///< that have begun
    };
    // Two hours back is further than a period: that one may begin again, for an hour goes on there.
    static constexpr Step kSteps[] = {
        {0, 1, 1},       {-kHour_s, 1, 1}, {0, 2, 1},           {kHour_s, 3, 2},     {0, 3, 2},
        {kHour_s, 4, 2}, {-kHour_s, 4, 2}, {2 * kHour_s, 5, 3}, {3 * kHour_s, 6, 4},
    };
    unsigned pieces = 0;
    for (const Step& step : kSteps) {
        SCOPED_TRACE(step.to_s);
        step_to(step.to_s);
        await_spent();
        ++pieces;
        // A call that was on its way when the clock was stepped back has one to itself.
        const uint64_t passed = sum(kRated).valid;
        EXPECT_LE(passed, step.bursts * kBurst + rate_allows(pieces) + pieces * lanes_);
        EXPECT_EQ(sum(kRationed).valid, step.periods * kQuota);
    }
    stop_all();
    EXPECT_EQ(daemon_.terminate(), 0);
}

TEST_F(ClockLimits, AProcessWhoseClockIsAnHourBehindSpendsTheSameQuota) {
    start();
    start_process(0, {kRated, kRationed});
    start_process(2, {kRated, kRationed}, -kHour_s, 5000);
    let_go();
    ASSERT_TRUE(await([&] { return sum(kRated, 0, 2).valid > 10 * kBurst; }));
    ASSERT_TRUE(
        await([&] { return sum(kRationed, 0, 2).refused > 100 && sum(kRationed, 2, 4).refused > 10; }));
    EXPECT_EQ(sum(kRationed).valid, kQuota);
    // Each look of the one that is behind may set the rate back by an hour, but not more: it passes no more
    // by itself than the rate says, and the other no more than a burst until the next look.
    const Sum behind = sum(kRated, 2, 4);
    const Sum ahead = sum(kRated, 0, 2);
    const Sum looks = sum(kRated, 2, 4);
    EXPECT_LE(behind.valid, kBurst + rate_allows(1) + lanes_);
    EXPECT_LE(ahead.valid, (looks.valid + looks.refused + lanes_) * kBurst + rate_allows(1) + lanes_);
    // Alone, the rate is what it was.
    shared_->lanes[2].stop.store(true);
    shared_->lanes[3].stop.store(true);
    EXPECT_EQ(children_.back().wait(), 0);
    children_.pop_back();
    began_ns_ = coarse_ns();
    const uint64_t before = sum(kRated).valid;
    ASSERT_TRUE(await([&] { return sum(kRated).valid > before + 3 * kBurst; }));
    EXPECT_LE(sum(kRated).valid - before, kBurst + rate_allows(1) + 2);
    stop_all();
    EXPECT_EQ(sum(kRationed).valid, kQuota);
    EXPECT_EQ(daemon_.terminate(), 0);
}

/// Writes into every meter word of the generation that is current, again and again, what comes: noise, the
/// owner's own tag with any time and count, the mark of a moved word.
int scribble(const Site& site, const std::atomic<bool>& stop, std::atomic<uint64_t>& rounds) {
    std::mt19937_64 random(11);
    const std::string directory = site.run() + "/default";
    const shm::AttachOptions options{directory.c_str(), shm::kAnyOwner};
    const auto spoil = [&](shm::Word& word) {
        constexpr uint64_t kTags = uint64_t{0xff} << shm::RateWord::kTagShift;
        const uint64_t noise = random();
        const uint64_t kept = word.load() & kTags;
        word.store(noise % 4 == 0 ? noise : noise % 4 == 1 ? kept | (noise >> 9) : kept | (noise & ~kTags));
    };
    while (!stop.load()) {
        shm::ControlMapping control;
        shm::GenerationMapping mapping;
        if (shm::attach_control(options, &control) != shm::AttachResult::kOk) {
            return 1;
        }
        const uint32_t current = shm::current_of(control.control->current_next.load());
        if (shm::attach_generation(options, control, current, &mapping) == shm::AttachResult::kOk) {
            const shm::CellsView& cells = mapping.cells;
            while (!stop.load() && shm::current_of(control.control->current_next.load()) == current) {
                for (uint64_t index = 0; index < cells.cell_count; ++index) {
                    for (uint32_t word = 0; word < cells.meter_words; ++word) {
                        spoil(cells.meter(index, word));
                    }
                }
                for (uint64_t owner = 0; owner < cells.owner_count; ++owner) {
                    for (shm::Word& word : cells.owners[owner].words) {
                        spoil(word);
                    }
                }
                rounds.fetch_add(1);
                usleep(50);
            }
            shm::detach_generation(&mapping);
        }
        shm::detach_control(&control);
    }
    return 0;
}

TEST_F(ClockLimits, MetersThatAreScribbledOnAreBoundedAndComeRightAfterAQuietTime) {
    start();
    start_process(0, {kRated, kRationed, kBoth, kOfOwner});
    start_process(2, {kOfOwner, kBoth, kRated});
    let_go();
    ASSERT_TRUE(await([&] { return sum(kRated).valid != 0; }));
    std::atomic<uint64_t>& rounds = shared_->lanes[kLanesMax - 1].valid[kOfOwner];
    const std::atomic<bool>& stop = shared_->lanes[kLanesMax - 1].stop;
    Child scribbler([&] { return scribble(site_, stop, rounds); });
    uint32_t generation = site_.await_applied();
    for (const size_t others : {1000u, 2400u, 3900u}) {  // the table grows, and its meters move
        const uint64_t round = rounds.load();
        ASSERT_TRUE(await([&] { return rounds.load() >= round + 200; }));
        write(others);
        const uint32_t next = site_.await_applied();
        EXPECT_NE(next, generation);
        generation = next;
    }
    daemon_.kill9();
    daemon_.start();
    daemon_.wait_ready();
    const uint64_t round = rounds.load();
    ASSERT_TRUE(await([&] { return rounds.load() >= round + 200; }));
    shared_->lanes[kLanesMax - 1].stop.store(true);
    EXPECT_EQ(scribbler.wait(), 0);
    const Sum rated = sum(kRated);
    std::printf("%llu rounds; the rated key passed %llu times and was refused %llu times\n",
                static_cast<unsigned long long>(rounds.load()), static_cast<unsigned long long>(rated.valid),
                static_cast<unsigned long long>(rated.refused));
    stop_all();
    // A meter can be made to say that all of a period is spent, and that of the next. Later ones it cannot
    // reach.
    step_to(3 * kHour_s);
    EXPECT_EQ(passes(kRationed, APIKEY_USAGE_EXCEEDED), kQuota);
    EXPECT_EQ(passes(kBoth, APIKEY_USAGE_EXCEEDED), kQuota);
    EXPECT_EQ(passes(kOfOwner, APIKEY_USAGE_EXCEEDED), kTogether - kQuota);
    began_ns_ = coarse_ns();
    const uint64_t passed = passes(kRated, APIKEY_RATE_LIMITED);
    EXPECT_GE(passed, kBurst);
    EXPECT_LE(passed, kBurst + rate_allows(1));
    EXPECT_EQ(daemon_.terminate(), 0);
}

}  // namespace
