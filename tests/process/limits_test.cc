// Exactness across processes, with a real daemon: no more passes a rate than its burst and what the time
// allows, and a quota is spent to the last request, whatever becomes of the table and of the daemon
// meanwhile; after a reboot it goes on from the last flush.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <deque>
#include <filesystem>
#include <fstream>
#include <new>
#include <thread>
#include <vector>

#include "shm/layout.h"
#include "shm/meters.h"
#include "support/child.h"
#include "support/daemon_process.h"
#include "support/site.h"

namespace {

using namespace apikeyd::test;
using apikey::test::Child;

constexpr uint64_t kRate_s = 1000;
constexpr uint64_t kShortBurst = 50;  // a window too short for the coarse clock
constexpr uint64_t kLongBurst = 200;
constexpr unsigned kSeconds = 10;
constexpr uint64_t kQuota = 100'000;
constexpr uint64_t kOwnQuota = 1000;
constexpr uint64_t kSharedQuota = 1500;
constexpr unsigned kPassesMax = 40'000;  // of one thread in all seconds

uint64_t clock_ns(clockid_t clock) {
    timespec now{};
    clock_gettime(clock, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

/// The clock that the key is metered by as it was before and after a call that passed.
struct Passed {
    uint64_t before_ns;
    uint64_t after_ns;
};

struct Shared {
    std::atomic<unsigned> ready;
    std::atomic<bool> go;
    std::atomic<bool> stop;
    std::atomic<uint64_t> valid;
    std::atomic<uint64_t> refused;
    std::atomic<uint64_t> others;  ///< any other answer
    struct Thread {
        unsigned count;
        Passed passed[kPassesMax];
    } threads[4];
};

/// Shared with children.
Shared* make_shared_area() {
    void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory != MAP_FAILED ? new (memory) Shared : nullptr;
}

class Limits : public testing::Test {
  protected:
    Limits() : site_("flush_interval_ms: 50\nheartbeat_interval_ms: 50\n"), daemon_(site_.config()) {
        std::minstd_rand random(7);
        for (int i = 0; i < 4000; ++i) {
            keys_.push_back(draw_key(random));
        }
    }
    ~Limits() override {
        if (HasFailure()) {
            std::puts(site_.last_words().c_str());
        }
        munmap(static_cast<void*>(shared_), sizeof(Shared));
    }

    /// The limited key is the first; so many others make the table larger.
    void write(const std::string& limits, size_t others) const {
        std::string rows = keys_[0].row(", plan: limited");
        for (size_t i = 1; i <= others; ++i) {
            rows += keys_[i].row();
        }
        site_.write("keys.yaml", "plans:\n  - name: limited\n    limits: [" + limits + "]\nkeys:\n" + rows);
    }

    /// Presents the key until it was refused so often, or nothing seems to refuse it; `valid` has what passed
    /// of this quota.
    void spend(const char* quota, uint64_t refusals_max) const {
        apikey_client* client = site_.open_client();
        const std::string& key = keys_[0].text;
        shared_->ready.fetch_add(1);
        uint64_t refusals = 0;
        for (uint64_t requests = 0; refusals < refusals_max && requests < 100 * kQuota; ++requests) {
            apikey_limits limits{};
            limits.size = sizeof limits;
            apikey_request request{};
            request.size = sizeof request;
            request.cost = 1;
            request.limits = &limits;
            apikey_verdict verdict;
            apikey_validate_request(client, key.data(), key.size(), &request, &verdict);
            const apikey_code code = verdict.code;
            refusals += code == APIKEY_USAGE_EXCEEDED ? 1 : 0;
            shared_->valid.fetch_add(code == APIKEY_VALID && std::strcmp(limits.quota.name, quota) == 0);
            shared_->others.fetch_add(
                (code != APIKEY_VALID && code != APIKEY_USAGE_EXCEEDED) ||
                (code == APIKEY_VALID && (limits.quota.retry_after_ms | limits.rate.retry_after_ms) != 0));
        }
        apikey_close(client);
    }

    /// Presents the limited key until it is told to stop, or refused so often that nothing is left.
    int serve(unsigned thread, uint64_t refusals_max) const {
        apikey_client* client = site_.open_client();
        const std::string& key = keys_[0].text;
        Shared::Thread& mine = shared_->threads[thread];
        shared_->ready.fetch_add(1);
        while (!shared_->go.load()) {
            usleep(100);
        }
        uint64_t refusals = 0;
        while (!shared_->stop.load(std::memory_order_relaxed) && refusals < refusals_max) {
            apikey_verdict verdict;
            const uint64_t before_ns = clock_ns(clock_);
            apikey_validate(client, key.data(), key.size(), &verdict);
            if (verdict.code == APIKEY_VALID) {
                shared_->valid.fetch_add(1, std::memory_order_relaxed);
                if (mine.count < kPassesMax) {
                    mine.passed[mine.count++] = {before_ns, clock_ns(clock_)};
                }
            } else if (verdict.code == APIKEY_RATE_LIMITED || verdict.code == APIKEY_USAGE_EXCEEDED) {
                shared_->refused.fetch_add(1, std::memory_order_relaxed);
                ++refusals;
            } else {
                shared_->others.fetch_add(1);
            }
        }
        apikey_close(client);
        return 0;
    }

    /// What passes in 10 seconds of 2 processes with 2 threads each, none of which ever waits.
    void expect_the_burst_and_what_the_time_allows(uint64_t burst);
    void expect_a_quota_spent_to_the_last_by_another_plan(bool of_owner);

    /// Two keys with a quota of kOwnQuota each, and with one of kSharedQuota together.
    void write_shared() const {
        std::string rows;
        for (size_t i = 0; i < 2; ++i) {
            rows += keys_[i].row(", plan: limited");
        }
        const auto plan = [](const char* name, uint64_t quota) {
            return std::string("  - {name: ") + name +
                   ", limits: [{name: monthly, quota: " + std::to_string(quota) + "/month}]}\n";
        };
        site_.write("keys.yaml", "plans:\n" + plan("limited", kOwnQuota) + plan("shared", kSharedQuota) +
                                     "owners: [{name: test, plan: shared}]\nkeys:\n" + rows);
    }

    /// A server with so many requests of this key.
    Child present(size_t key, uint64_t times) {
        return Child([this, key, times] {
            apikey_client* client = site_.open_client();
            const std::string& text = keys_[key].text;
            for (uint64_t i = 0; i < times; ++i) {
                apikey_verdict verdict;
                apikey_validate(client, text.data(), text.size(), &verdict);
                shared_->valid.fetch_add(verdict.code == APIKEY_VALID ? 1 : 0);
                shared_->others.fetch_add(
                    verdict.code != APIKEY_VALID && verdict.code != APIKEY_USAGE_EXCEEDED ? 1 : 0);
            }
            apikey_close(client);
            return 0;
        });
    }
    /// What it passes.
    uint64_t passes(size_t key, uint64_t times) {
        const uint64_t before = shared_->valid.load();
        Child server = present(key, times);
        EXPECT_EQ(server.wait(), 0);
        return shared_->valid.load() - before;
    }

    /// Returns the generation.
    uint32_t start() {
        daemon_.start();
        daemon_.wait_ready();
        return site_.await_applied();
    }

    /// Into a header, while no daemon runs.
    void scribble(const std::string& kind, size_t offset, uint32_t generation) const {
        std::fstream file(site_.segment(kind + "." + std::to_string(generation)),
                          std::ios::in | std::ios::out | std::ios::binary);
        const uint64_t nonsense = 1;
        file.seekp(static_cast<std::streamoff>(offset));
        file.write(reinterpret_cast<const char*>(&nonsense), sizeof nonsense);
        ASSERT_TRUE(file.flush());
    }

    /// Servers have ended and the daemon, too.
    void reboot() {
        std::filesystem::remove_all(site_.run());
        start();
    }

    Site site_;
    DaemonProcess daemon_;
    std::vector<PlainKey> keys_;
    Shared* shared_ = make_shared_area();
    clockid_t clock_ = CLOCK_REALTIME_COARSE;
};

void Limits::expect_the_burst_and_what_the_time_allows(uint64_t burst) {
    write("{name: fast, rate: " + std::to_string(kRate_s) + "/s, burst: " + std::to_string(burst) + "}", 10);
    start();
    std::deque<Child> children;
    for (unsigned process = 0; process < 2; ++process) {
        children.emplace_back([&, process] {
            std::thread other([&] { serve(2 * process + 1, UINT64_MAX); });
            serve(2 * process, UINT64_MAX);
            other.join();
            return 0;
        });
    }
    ASSERT_TRUE(await([&] { return shared_->ready.load() == 4; }));
    shared_->go.store(true);
    sleep(kSeconds);
    shared_->stop.store(true);
    for (Child& child : children) {
        EXPECT_EQ(child.wait(), 0);
    }
    std::vector<Passed> passed;
    for (const Shared::Thread& thread : shared_->threads) {
        ASSERT_LT(thread.count, kPassesMax);
        passed.insert(passed.end(), thread.passed, thread.passed + thread.count);
    }
    EXPECT_EQ(shared_->others.load(), 0u);
    EXPECT_GT(shared_->refused.load(), 0u);
    // Any window that begins where one call did and ends where another did: the clock values that the calls
    // read, less what they are rounded down by, lie in it.
    std::sort(passed.begin(), passed.end(),
              [](const Passed& a, const Passed& b) { return a.after_ns < b.after_ns; });
    uint64_t closest = UINT64_MAX;
    for (size_t to = 0; to < passed.size(); ++to) {
        uint64_t from_ns = passed[to].before_ns;
        for (size_t from = to + 1; from-- > 0;) {
            from_ns = std::min(from_ns, passed[from].before_ns);
            const uint64_t window_ns = passed[to].after_ns - from_ns + apikey::shm::kMeterUnit_ns;
            const uint64_t allowed = burst + kRate_s * window_ns / 1'000'000'000;
            if (to - from + 1 > allowed) {  // millions of times: not by a macro
                FAIL() << to - from + 1 << " in " << window_ns << " ns, which allow " << allowed;
            }
            closest = std::min(closest, allowed - (to - from + 1));
        }
    }
    std::printf("%zu passed in %u s, %llu refused; the closest window had %llu more to give\n", passed.size(),
                kSeconds, static_cast<unsigned long long>(shared_->refused.load()),
                static_cast<unsigned long long>(closest));
    EXPECT_GT(passed.size(), burst) << "what is refused now passes later";
    EXPECT_EQ(daemon_.terminate(), 0);
}

TEST_F(Limits, NoMorePassesThanTheBurstAndWhatTheTimeAllows) {
    expect_the_burst_and_what_the_time_allows(kLongBurst);
}

TEST_F(Limits, NoMorePassesThanAShortBurstAndWhatTheTimeAllowsByTheFineClock) {
    clock_ = CLOCK_REALTIME;
    expect_the_burst_and_what_the_time_allows(kShortBurst);
}

TEST_F(Limits, AQuotaIsSpentToTheLastWhileTheTableGrowsAndTheDaemonIsKilled) {
    const std::string limits = "{name: monthly, quota: " + std::to_string(kQuota) + "/month}";
    write(limits, 10);
    daemon_.start();
    daemon_.wait_ready();
    uint32_t generation = site_.await_applied();
    std::deque<Child> children;
    for (unsigned process = 0; process < 4; ++process) {
        children.emplace_back([&, process] { return serve(process, 2000); });
    }
    ASSERT_TRUE(await([&] { return shared_->ready.load() == 4; }));
    shared_->go.store(true);
    unsigned switches = 0;
    for (const size_t others : {1000u, 2400u}) {
        ASSERT_TRUE(await([&] { return shared_->valid.load() > kQuota / 5 * (switches + 1); }));
        write(limits, others);
        const uint32_t now = site_.await_applied();
        switches += now != generation ? 1 : 0;
        generation = now;
        daemon_.kill9();
        daemon_.start();
        daemon_.wait_ready();
    }
    EXPECT_EQ(switches, 2u);
    for (Child& child : children) {
        EXPECT_EQ(child.wait(), 0);
    }
    EXPECT_EQ(shared_->valid.load(), kQuota);
    EXPECT_EQ(shared_->others.load(), 0u);
    const Totals totals = site_.totals();
    EXPECT_EQ(totals.by_id.at(keys_[0].id).allowed, kQuota);
    EXPECT_EQ(totals.by_code.at("USAGE_EXCEEDED"), shared_->refused.load());
    EXPECT_EQ(daemon_.terminate(), 0);
}

// Many a thread is halted between its look at the plan and its take of the word that both plans have.
void Limits::expect_a_quota_spent_to_the_last_by_another_plan(bool of_owner) {
    constexpr unsigned kThreads = 8;
    const auto write_plan = [&](const std::string& plan) {
        site_.write("keys.yaml",
                    "plans:\n  - {name: ample, limits: [{name: ample, quota: 10000000000/month}]}\n"
                    "  - {name: scarce, limits: [{name: scarce, quota: " +
                        std::to_string(kQuota) + "/month}]}\n" +
                        (of_owner ? "owners: [{name: test, plan: " + plan + "}]\n" : "") + "keys:\n" +
                        keys_[0].row(of_owner ? "" : ", plan: " + plan));
    };
    write_plan("ample");
    start();
    std::deque<Child> children;
    for (unsigned process = 0; process < 2; ++process) {
        children.emplace_back([&] {
            std::vector<std::thread> threads;
            for (unsigned i = 0; i < kThreads; ++i) {
                threads.emplace_back([&] { spend("scarce", 500); });
            }
            for (std::thread& thread : threads) {
                thread.join();
            }
            return 0;
        });
    }
    ASSERT_TRUE(await([&] { return shared_->ready.load() == 2 * kThreads; }));
    write_plan("scarce");
    site_.await_applied();
    for (Child& child : children) {
        EXPECT_EQ(child.wait(), 0);
    }
    EXPECT_EQ(shared_->valid.load(), kQuota);
    EXPECT_EQ(shared_->others.load(), 0u);
    EXPECT_EQ(daemon_.terminate(), 0);
}

TEST_F(Limits, AQuotaIsSpentToTheLastByAKeyThatGetsAnotherPlanMeanwhile) {
    expect_a_quota_spent_to_the_last_by_another_plan(false);
}

TEST_F(Limits, AQuotaIsSpentToTheLastByAnOwnerThatGetsAnotherPlanMeanwhile) {
    expect_a_quota_spent_to_the_last_by_another_plan(true);
}

TEST_F(Limits, AfterARebootExactlyTheRestOfAQuotaPasses) {
    write_shared();
    start();
    uint64_t own = kOwnQuota;
    uint64_t together = kSharedQuota;
    for (const uint64_t times : {250u, 330u, 7u}) {
        const uint64_t before = shared_->valid.load();
        Child first = present(0, times);
        Child second = present(1, times / 5);
        EXPECT_EQ(first.wait(), 0);
        EXPECT_EQ(second.wait(), 0);
        EXPECT_EQ(shared_->valid.load() - before, times + times / 5);
        own -= times;
        together -= times + times / 5;
        ASSERT_EQ(daemon_.terminate(), 0);
        reboot();
    }
    EXPECT_EQ(passes(0, 2 * kOwnQuota), own);
    together -= own;
    ASSERT_EQ(daemon_.terminate(), 0);
    reboot();
    EXPECT_EQ(passes(0, 10), 0u);
    EXPECT_EQ(passes(1, 2 * kOwnQuota), together) << "of the owner's; of its own there is more";
    EXPECT_EQ(shared_->others.load(), 0u);
    EXPECT_EQ(daemon_.terminate(), 0);
}

TEST_F(Limits, AfterAnUpgradeOfTheLayoutExactlyTheRestOfAQuotaPasses) {
    write_shared();
    const uint32_t generation = start();
    ASSERT_EQ(passes(0, 400), 400u);
    ASSERT_EQ(daemon_.terminate(), 0);
    scribble("table", offsetof(apikey::shm::TableHeader, layout_hash), generation);
    ASSERT_GT(start(), generation);
    EXPECT_EQ(passes(0, 2 * kOwnQuota), kOwnQuota - 400);
    EXPECT_EQ(passes(1, 2 * kOwnQuota), kSharedQuota - kOwnQuota);
    EXPECT_EQ(daemon_.terminate(), 0);
}

TEST_F(Limits, AfterAStartOnSpoiltCellsExactlyTheRestOfAQuotaPasses) {
    write_shared();
    const uint32_t generation = start();
    ASSERT_EQ(passes(0, 400), 400u);
    ASSERT_EQ(daemon_.terminate(), 0);
    scribble("cells", offsetof(apikey::shm::CellsHeader, magic), generation);
    ASSERT_GT(start(), generation);
    EXPECT_EQ(passes(0, 2 * kOwnQuota), kOwnQuota - 400);
    EXPECT_EQ(passes(1, 2 * kOwnQuota), kSharedQuota - kOwnQuota);
    EXPECT_EQ(shared_->others.load(), 0u);
    EXPECT_EQ(daemon_.terminate(), 0);
}

TEST_F(Limits, AfterAPowerCutNoMoreOfAQuotaPassesThanWasLeftAtTheLastFlush) {
    write_shared();
    start();
    constexpr uint64_t kFlushed = 400;
    constexpr uint64_t kSince = 300;
    ASSERT_EQ(passes(0, kFlushed), kFlushed);
    ASSERT_EQ(site_.totals().by_id.at(keys_[0].id).allowed, kFlushed);
    ASSERT_EQ(passes(0, kSince), kSince);
    daemon_.kill9();
    reboot();
    const uint64_t rest = passes(0, 2 * kOwnQuota);
    EXPECT_LE(rest, kOwnQuota - kFlushed);
    EXPECT_GE(rest, kOwnQuota - kFlushed - kSince) << "what is left is not lost";
    EXPECT_LE(passes(1, 2 * kOwnQuota), kSharedQuota - kFlushed - rest);
    EXPECT_EQ(shared_->others.load(), 0u);
    EXPECT_EQ(daemon_.terminate(), 0);
}

}  // namespace
