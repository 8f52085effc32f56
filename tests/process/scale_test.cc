// Many plans, and keys each of which has a limit of its own: so many different policies are loaded, told to
// servers, kept over a kill, and changed with their plans. What it takes is printed.
//
// Sizes come from the environment: SCALE_KEYS (see tests/process/meson.build); a hundredth as many plans.

#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "support/daemon_process.h"
#include "support/site.h"

namespace {

using namespace apikeyd::test;
using Clock = std::chrono::steady_clock;

constexpr size_t kKeysPerPlan = 100;
constexpr size_t kSample = 2000;
constexpr uint64_t kBurst = 1000;

size_t keys_from_environment() {
    const char* text = getenv("SCALE_KEYS");
    return text != nullptr ? strtoull(text, nullptr, 10) : 20'000;
}

class Scale : public testing::Test {
  protected:
    Scale() {
        std::minstd_rand random(7);
        for (size_t i = 0; i < kKeys; ++i) {
            keys_.push_back(draw_key(random));
        }
    }
    ~Scale() override {
        if (HasFailure()) {
            std::puts(site_.last_words().c_str());
        }
    }

    static uint64_t quota_of(size_t key) { return 1000 + key; }

    void write(uint64_t burst) const {
        std::ofstream out(site_.path("keys.yaml.new"), std::ios::binary);
        out << "version: 1\nplans:\n";
        for (size_t plan = 0; plan * kKeysPerPlan < kKeys; ++plan) {
            out << "  - {name: p" << plan
                << ", limits: [{name: fast, rate: 1000000/s, burst: " << burst + plan
                << "}, {name: monthly, quota: 10/month}]}\n";
        }
        out << "keys:\n";
        for (size_t i = 0; i < kKeys; ++i) {
            out << "  - {id: " << keys_[i].id << ", sha256: " << keys_[i].sha256 << ", plan: p"
                << i / kKeysPerPlan << ", limits: [{name: monthly, quota: " << quota_of(i)
                << "/month}], environment: test}\n";
        }
        out.close();
        ASSERT_TRUE(out);
        std::filesystem::rename(site_.path("keys.yaml.new"), site_.keys());
    }

    /// Each of a sample is told its plan's burst and its own quota, of which it has spent so many.
    void check_sample(uint64_t burst, uint64_t spent) {
        apikey_client* client = site_.open_client();
        std::minstd_rand pick(3);
        for (size_t i = 0; i < kSample; ++i) {
            const size_t key = i == 0 ? 0 : i == 1 ? kKeys - 1 : i * (kKeys / kSample) + pick() % 5;
            apikey_limits limits{};
            limits.size = sizeof limits;
            apikey_request request = APIKEY_REQUEST_INIT;
            request.limits = &limits;
            apikey_verdict verdict;
            apikey_validate_request(client, keys_[key].text.data(), keys_[key].text.size(), &request,
                                    &verdict);
            ASSERT_EQ(verdict.code, APIKEY_VALID) << apikey_code_name(verdict.code) << " " << key;
            ASSERT_STREQ(limits.quota.name, "monthly");
            ASSERT_EQ(limits.quota.allowance, quota_of(key));
            ASSERT_EQ(limits.quota.remaining, quota_of(key) - spent) << key;
            ASSERT_EQ(limits.rate.allowance, burst + key / kKeysPerPlan);
        }
        apikey_close(client);
    }

    /// What the kernel says of the daemon, as `VmHWM`, in MiB.
    uint64_t daemon_mib(const std::string& name) const {
        std::ifstream status("/proc/" + std::to_string(daemon_.pid()) + "/status");
        for (std::string line; std::getline(status, line);) {
            if (line.starts_with(name + ":")) {
                return strtoull(line.c_str() + name.size() + 1, nullptr, 10) / 1024;
            }
        }
        return 0;
    }
    void print(const char* what, Clock::time_point began) const {
        const std::chrono::duration<double> took = Clock::now() - began;
        std::printf("%-30s %6.2f s; the daemon: %lu MiB of its own, %lu MiB shared, %lu MiB at most\n", what,
                    took.count(), daemon_mib("RssAnon"), daemon_mib("RssShmem"), daemon_mib("VmHWM"));
        std::fflush(stdout);
    }

    const size_t kKeys = std::max<size_t>(keys_from_environment(), kSample * 5);
    Site site_;
    DaemonProcess daemon_{site_.config()};
    std::vector<PlainKey> keys_;
};

TEST_F(Scale, EachOfManyKeysHasALimitOfItsOwn) {
    write(kBurst);
    Clock::time_point began = Clock::now();
    daemon_.start();
    daemon_.wait_ready();
    print("loaded", began);
    const uint32_t first = site_.await_applied();
    std::printf("%zu keys, %zu plans: key set %ju, table %ju, cells %ju bytes\n", kKeys,
                (kKeys + kKeysPerPlan - 1) / kKeysPerPlan, std::filesystem::file_size(site_.keys()),
                std::filesystem::file_size(site_.segment("table." + std::to_string(first))),
                std::filesystem::file_size(site_.segment("cells." + std::to_string(first))));
    check_sample(kBurst, 1);

    daemon_.kill9();
    began = Clock::now();
    daemon_.start();
    daemon_.wait_ready();
    print("started anew", began);
    EXPECT_EQ(site_.await_applied(), first) << "what the daemon before had left is adopted";
    check_sample(kBurst, 2);

    write(2 * kBurst);
    began = Clock::now();
    const Site::Ran reloaded = site_.tool("--output json reload");
    EXPECT_EQ(reloaded.status, 0) << reloaded.output;
    print("loaded with other plans", began);
    site_.await_applied();
    check_sample(2 * kBurst, 3);
    EXPECT_EQ(daemon_.terminate(), 0);
    std::printf("usage store %ju bytes\n", std::filesystem::file_size(site_.path("usage.db")));
}

}  // namespace
