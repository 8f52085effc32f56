// The hot path makes no syscall: proved by the kernel, which kills a validating process at its first one.
//
// Each child attaches, installs a filter that kills on everything but exit_group, and validates. The library
// is the shared one, as servers link it.

#include <gtest/gtest.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <thread>
#include <vector>

#include "apikey/apikey.h"
#include "shm/denials.h"
#include "support/daemon_process.h"
#include "support/site.h"
#include "tests/support/child.h"
#include "tests/support/test_instance.h"

namespace {

using namespace apikey::test;

constexpr size_t kKeys = 64;
constexpr size_t kValidations = 1000000;
constexpr uint64_t kDenialRoom = 5000;  // more than the ring has entries

/// From here on this process (all its threads) may end, and nothing else. False when the filter was refused.
bool forbid_syscalls() {
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    if (filter == nullptr || seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1) != 0 ||
        seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(exit_group), 0) != 0) {
        return false;
    }
    return seccomp_load(filter) == 0;  // the filter is not released: that would be after it
}

/// exit_group and nothing before it: _exit() of the sanitizers' runtimes does more.
[[noreturn]] void leave(int status) {
    for (;;) {
        syscall(SYS_exit_group, status);
    }
}

/// Half of the keys are in the table, half are not; native ones and foreign ones.
class Seccomp : public testing::Test {
  protected:
    void SetUp() override {
        for (size_t i = 0; i < kKeys; ++i) {
            keys_.push_back(
                i % 8 == 3 ? make_foreign_key(std::string("imported-key-number-").append(std::to_string(i)))
                           : make_key());
            if (i % 2 == 0 || i % 8 == 3) {
                ASSERT_TRUE(instance_.add(keys_.back()));
                ++valid_;
            }
            presented_.push_back({keys_.back().text.data(), keys_.back().text.size()});
        }
        open_denials(instance_.current().cells(), kDenialRoom);
        apikey_options options{};
        options.size = sizeof options;
        options.directory = instance_.base().c_str();
        ASSERT_EQ(apikey_open(&options, &client_), APIKEY_OK);
    }
    void TearDown() override { apikey_close(client_); }

    /// The first call of a thread may still do what only the first one needs.
    void warm_up() {
        apikey_verdict verdict;
        apikey_validate(client_, presented_[0].data, presented_[0].len, &verdict);
    }

    /// 0 when every answer is the expected one.
    int validate_singly(size_t count) {
        size_t valid = 0;
        for (size_t i = 0; i < count; ++i) {
            const apikey_key& key = presented_[i % kKeys];
            apikey_verdict verdict;
            valid += apikey_validate(client_, key.data, key.len, &verdict) == APIKEY_VALID ? 1 : 0;
        }
        return valid == count / kKeys * valid_ ? 0 : 1;
    }

    int validate_in_batches(size_t count) {
        std::array<apikey_verdict, kKeys> verdicts;
        for (size_t done = 0; done < count; done += kKeys) {
            if (apikey_validate_many(client_, presented_.data(), kKeys, verdicts.data()) != valid_) {
                return 2;
            }
        }
        return 0;
    }

    TestInstance instance_{{.capacity_keys = 100}};
    std::vector<TestKey> keys_;
    std::vector<apikey_key> presented_;
    size_t valid_ = 0;
    apikey_client* client_ = nullptr;
};

static_assert(kValidations % kKeys == 0);

TEST_F(Seccomp, AMillionValidationsMakeNoSyscall) {
    const int status = in_child([&] {
        instance_.beat();
        warm_up();
        if (!forbid_syscalls()) {
            return 98;
        }
        const int singly = validate_singly(kValidations);
        const int batches = validate_in_batches(kValidations);
        leave(singly + batches);
    });
    EXPECT_EQ(status, 0) << "128 + 31 is death by SIGSYS";
    // What the child answered stands in the cells: it did validate.
    uint64_t answered = 0;
    for (uint32_t code = 0; code < apikey::shm::kCodesMax; ++code) {
        answered += sum_code(instance_.current().cells(), code);
    }
    EXPECT_EQ(answered, 2 * kValidations + 1);
    EXPECT_EQ(sum_code(instance_.current().cells(), APIKEY_VALID), 2 * kValidations / kKeys * valid_ + 1);
    EXPECT_EQ(instance_.current().cells().ring->begun.load(), kDenialRoom) << "denials were written";
}

/// Requests that ask for everything there is, of a key with every kind of limit.
class SeccompTerms : public testing::Test {
  protected:
    SeccompTerms() : daemon_(site_.config()) {
        std::minstd_rand random(3);
        key_ = apikeyd::test::draw_key(random);
        site_.write(
            "keys.yaml",
            "scopes: [reports.read, reports.write]\n"
            "plans:\n"
            "  - name: own\n"
            "    limits:\n"
            "      - {name: fast, rate: 1000000/s, burst: 10}\n"  // by the fine clock
            "      - {name: slow, rate: 60000000/min}\n"
            "      - {name: hourly, quota: 100000/hour, shadow: true}\n"
            "      - {name: daily, quota: 100000000/day}\n"
            "      - {name: monthly, quota: 150000/month}\n"
            "  - name: shared\n"
            "    limits: [{name: together, quota: 100000000/month}]\n"
            "owners: [{name: test, plan: shared}]\n"
            "keys:\n" +
                key_.row(", plan: own, limits: [{name: slow, rate: 61000000/min}], scopes: [reports.*], "
                         "addresses: [192.0.2.0/24, '2001:db8::/32']"));
    }

    // So few that three codes' room of two seconds stands in the ring at once, whenever the daemon looks.
    apikeyd::test::Site site_{"denial_log: {file: denials.log, per_second: 100}\n"};
    apikeyd::test::DaemonProcess daemon_;
    apikeyd::test::PlainKey key_;
};

TEST_F(SeccompTerms, ScopesAddressesAndLimitsMakeNoSyscall) {
    daemon_.start();
    daemon_.wait_ready();
    site_.await_applied();
    const int status = in_child([&] {
        apikey_client* client = site_.open_client();
        apikey_request request = APIKEY_REQUEST_INIT;
        apikey_scopes* scopes = nullptr;
        if (apikey_scopes_compile(client, "reports.read AND (reports.write OR reports.*)", &scopes,
                                  nullptr) != APIKEY_OK) {
            return 97;
        }
        apikey_limits limits{};
        limits.size = sizeof limits;
        apikey_address address;
        request.scopes = scopes;
        request.address = &address;
        request.limits = &limits;
        uint64_t by_code[16] = {};
        const auto ask = [&](const char* from, size_t length) {
            apikey_verdict verdict;
            apikey_address_parse(from, length, &address);
            apikey_validate_request(client, key_.text.data(), key_.text.size(), &request, &verdict);
            ++by_code[verdict.code % 16];
        };
        ask("192.0.2.9", 9);
        if (!forbid_syscalls()) {
            return 98;
        }
        for (int i = 0; i < 300'000; ++i) {
            i % 8 == 7 ? ask("198.51.100.1", 12) : ask("2001:db8::9", 11);
        }
        const bool all_kinds = by_code[APIKEY_VALID] > 0 && by_code[APIKEY_VALID] <= 150'000 &&
                               by_code[APIKEY_IP_NOT_ALLOWED] == 300'000 / 8 &&
                               by_code[APIKEY_RATE_LIMITED] + by_code[APIKEY_USAGE_EXCEEDED] > 0;
        leave(all_kinds ? 0 : 1);
    });
    EXPECT_EQ(status, 0) << "128 + 31 is death by SIGSYS";
    EXPECT_EQ(daemon_.terminate(), 0);
    const std::string denials = site_.read("denials.log");
    for (const char* address : {"address=198.51.100.1 ", "address=2001:db8::9 "}) {
        EXPECT_NE(denials.find(address), std::string::npos) << address << "was told";
    }
}

TEST_F(Seccomp, APlantedWriteDies) {
    const int status = in_child([&] {
        warm_up();
        if (!forbid_syscalls()) {
            return 98;
        }
        const int singly = validate_singly(kKeys);
        const char byte = 'x';
        const ssize_t written = write(STDERR_FILENO, &byte, 1);
        leave(written == 1 ? 1 : singly);
    });
    EXPECT_EQ(status, 128 + SIGSYS);
}

TEST_F(Seccomp, AThreadThatWasThereBeforeTheFilterValidatesToo) {
    const int status = in_child([&] {
        std::atomic<bool> ready{false};
        std::atomic<bool> go{false};
        std::atomic<int> second{-1};
        std::thread thread([&] {
            warm_up();
            ready.store(true);
            while (!go.load()) {
            }
            second.store(validate_singly(kValidations / 10 / kKeys * kKeys));
            while (true) {  // ending a thread is a syscall
            }
        });
        warm_up();
        while (!ready.load()) {
        }
        instance_.beat();
        if (!forbid_syscalls()) {
            return 98;
        }
        go.store(true);
        const int first = validate_in_batches(kValidations / 10 / kKeys * kKeys);
        while (second.load() < 0) {
        }
        leave(first + second.load());
    });
    EXPECT_EQ(status, 0);
}

}  // namespace
