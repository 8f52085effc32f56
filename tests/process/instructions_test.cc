// What the hot path costs, in instructions: counted by single-stepping a validating child from one marker to
// the next, so the figure is exact and the same each time. Only instructions of libapikey itself count; what
// the vDSO and libc do for it depends on the machine.
//
// The figures recorded here hold for one compiler and one SHA-256 kernel. A change of the hot path changes
// them, and has to say so here.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "apikey/apikey.h"
#include "shm/meters.h"
#include "tests/support/test_instance.h"

namespace {

using namespace apikey::test;

constexpr size_t kBatch = 16;
constexpr size_t kStepsMax = 1000000;

/// Recorded with this compiler, for each kernel of SHA-256 that x86 has. They differ by the kernel alone.
constexpr const char* kCompiler = "12.2.0";
struct Recorded {
    const char* kernel;
    size_t single_hit;
    size_t batch_hits;
    size_t unknown_key;
    size_t limited_hit;  ///< by one rate
};
constexpr Recorded kRecorded[] = {
    {"sha-ni", 592, 7021, 957, 782},
    {"portable", 4206, 65445, 4571, 4396},
};

/// Stops the process where it stands; its tracer goes on from here.
void marker() {
    __asm__ volatile("int3" ::: "memory");
}

struct Range {
    unsigned long long first;
    unsigned long long last;
    bool holds(unsigned long long address) const { return first <= address && address < last; }
};

/// Where the code of libapikey is mapped in that process.
std::vector<Range> library_code(pid_t pid) {
    std::vector<Range> ranges;
    std::ifstream maps("/proc/" + std::to_string(pid) + "/maps");
    for (std::string line; std::getline(maps, line);) {
        Range range{};
        char access[5] = "";
        if (std::sscanf(line.c_str(), "%llx-%llx %4s", &range.first, &range.last, access) == 3 &&
            access[2] == 'x' && line.find("/libapikey.so") != std::string::npos) {
            ranges.push_back(range);
        }
    }
    return ranges;
}

/// Continues until the child stops; true when it is at a marker.
bool stops_at_marker(pid_t child) {
    int status = 0;
    return ptrace(PTRACE_CONT, child, nullptr, nullptr) == 0 && waitpid(child, &status, 0) == child &&
           WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP;
}

/// The library's instructions between two markers that `work` runs between, in a child; 0 when it failed.
size_t instructions_of(const std::function<void()>& work) {
    const pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
        raise(SIGSTOP);
        work();  // what only the first call of a thread does
        work();
        marker();
        work();
        marker();
        _exit(0);
    }
    int status = 0;
    size_t count = 0;
    if (waitpid(child, &status, 0) == child && WIFSTOPPED(status) && stops_at_marker(child)) {
        const std::vector<Range> code = library_code(child);
        for (size_t steps = 0; steps < kStepsMax; ++steps) {
            user_regs_struct registers{};
            if (ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr) != 0 ||
                waitpid(child, &status, 0) != child || !WIFSTOPPED(status) ||
                ptrace(PTRACE_GETREGS, child, nullptr, &registers) != 0) {
                count = 0;
                break;
            }
            // NOLINTNEXTLINE(performance-no-int-to-ptr): an address of another process is a number here
            void* next = reinterpret_cast<void*>(registers.rip);
            if ((ptrace(PTRACE_PEEKTEXT, child, next, nullptr) & 0xff) == 0xcc) {  // the second marker
                break;
            }
            for (const Range& range : code) {
                count += range.holds(registers.rip) ? 1 : 0;
            }
        }
    }
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    return count;
}

/// A table of keys that all stand in the preferred slot of their home line, so that each costs the same.
class Instructions : public testing::Test {
  protected:
    void SetUp() override { fill(); }
    /// Adds the keys, with these settings.
    void fill() {
        while (presented_.size() < kBatch) {
            const TestKey key = make_key();
            ASSERT_TRUE(instance_.add(key, settings_));
            const apikey::shm::TableView& table = instance_.current().table().view();
            if (TestInstance::slot_index(instance_.current(), key) ==
                apikey::shm::Probe(key.hash(table.hash_seed), table).first()) {
                keys_.push_back(key);
                presented_.push_back({keys_.back().text.data(), keys_.back().text.size()});
            }
        }
        apikey_options options{};
        options.size = sizeof options;
        options.directory = instance_.base().c_str();
        ASSERT_EQ(apikey_open(&options, &client_), APIKEY_OK);
        apikey_status_info info{};
        info.size = sizeof info;
        apikey_status(client_, &info);
        for (const Recorded& recorded : kRecorded) {
            if (std::strcmp(info.kernel, recorded.kernel) == 0 && std::strcmp(__VERSION__, kCompiler) == 0) {
                recorded_ = &recorded;
            }
        }
    }
    void TearDown() override { apikey_close(client_); }

    /// The figure is the same twice, and the recorded one where it was recorded for this build.
    void expect_instructions(const std::function<void()>& work, size_t Recorded::*recorded,
                             const char* what) {
        instance_.beat();
        const size_t first = instructions_of(work);
        ASSERT_GT(first, 0u) << "the child could not be stepped";
        EXPECT_EQ(instructions_of(work), first) << "the count is not repeatable";
        std::printf("%s: %zu instructions of libapikey\n", what, first);
        if (recorded_ != nullptr) {
            EXPECT_EQ(first, recorded_->*recorded) << what << ": record the new figure in " << __FILE__
                                                   << " if this change of the hot path is meant";
        }
    }

    // More shards than any machine has CPUs: one of a higher number would cost a division.
    TestInstance instance_{{.capacity_keys = 100, .cpus = 1024, .meter_words = 2}};
    std::vector<TestKey> keys_ = [] {
        std::vector<TestKey> keys;
        keys.reserve(kBatch);  // what is presented points into it
        return keys;
    }();
    std::vector<apikey_key> presented_;
    KeySettings settings_;
    apikey_client* client_ = nullptr;
    const Recorded* recorded_ = nullptr;  ///< nullptr: none for this build
};

TEST_F(Instructions, OfASingleHit) {
    apikey_verdict verdict;
    expect_instructions([&] { apikey_validate(client_, presented_[0].data, presented_[0].len, &verdict); },
                        &Recorded::single_hit, "single hit");
    EXPECT_EQ(apikey_validate(client_, presented_[0].data, presented_[0].len, &verdict), APIKEY_VALID);
}

/// Keys that have a rate, which passes them.
class InstructionsOfLimited : public Instructions {
  protected:
    void SetUp() override {
        apikey::shm::PolicyWriter& policies = instance_.current().table().policies();
        apikey::shm::Limit rate{};
        // So slow that each call finds something taken.
        rate.interval = apikey::shm::rate_interval(1, 3600);
        rate.burst = 1000;
        rate.allowance = rate.burst * rate.interval;
        std::strcpy(rate.name, "rate");
        ASSERT_TRUE(policies.set_plan("plan", {&rate, 1}));
        settings_.policy = policies.policy({.plan = "plan"}).value();
        fill();
    }
};

TEST_F(InstructionsOfLimited, OfASingleHit) {
    apikey_verdict verdict;
    expect_instructions([&] { apikey_validate(client_, presented_[0].data, presented_[0].len, &verdict); },
                        &Recorded::limited_hit, "single hit, limited");
    EXPECT_EQ(apikey_validate(client_, presented_[0].data, presented_[0].len, &verdict), APIKEY_VALID);
}

TEST_F(Instructions, OfABatchOfHits) {
    apikey_verdict verdicts[kBatch];
    expect_instructions([&] { apikey_validate_many(client_, presented_.data(), kBatch, verdicts); },
                        &Recorded::batch_hits, "batch of 16 hits");
    EXPECT_EQ(apikey_validate_many(client_, presented_.data(), kBatch, verdicts), kBatch);
}

TEST_F(Instructions, OfAnUnknownKey) {
    // One whose home line is empty.
    const apikey::shm::TableView& table = instance_.current().table().view();
    TestKey key = make_key();
    const auto slot_state = [&] {
        const apikey::shm::Probe probe(key.hash(table.hash_seed), table);
        return apikey::shm::Meta::state(table.slots[probe.first()].meta.load());
    };
    while (slot_state() != apikey::shm::SlotState::kEmpty) {
        key = make_key();
    }
    apikey_verdict verdict;
    expect_instructions([&] { apikey_validate(client_, key.text.data(), key.text.size(), &verdict); },
                        &Recorded::unknown_key, "unknown key");
    EXPECT_EQ(apikey_validate(client_, key.text.data(), key.text.size(), &verdict), APIKEY_NOT_FOUND);
}

}  // namespace
