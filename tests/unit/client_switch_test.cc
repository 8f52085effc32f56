// How a client finds, follows and loses its table: waiting, new generations, threads, forks, no descriptors.

#include <dlfcn.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <barrier>
#include <deque>
#include <fstream>
#include <thread>

#include "client/client.h"
#include "tests/support/child.h"
#include "tests/support/no_descriptors.h"
#include "tests/unit/client_fixture.h"

namespace {

using namespace apikey::test;
using apikey::shm::ControlState;
using apikey::shm::SlotState;

/// Names of files under `path` that this process maps.
std::vector<std::string> mapped_files(const std::string& path, const std::string& name) {
    std::ifstream maps("/proc/self/maps");
    std::vector<std::string> found;
    const std::string wanted = path + "/" + name;
    for (std::string line; std::getline(maps, line);) {
        if (line.find(wanted) != std::string::npos) {
            found.push_back(line);
        }
    }
    return found;
}

TEST(ClientWaiting, OpensBeforeTheDaemonAndAttachesByItself) {
    TestInstance instance({.capacity_keys = 10, .publish_first = false});
    TestClient client(instance);
    const TestKey key = make_key();
    EXPECT_EQ(client.result, APIKEY_WAITING);
    EXPECT_EQ(client.code(key), APIKEY_UNAVAILABLE);
    EXPECT_EQ(client.code(""), APIKEY_UNAVAILABLE);
    EXPECT_EQ(client.status().attached, APIKEY_WAITING);
    EXPECT_EQ(client.status().generation, 0u);
    const apikey_key batch[] = {{key.text.data(), key.text.size()}};
    apikey_verdict verdicts[1];
    EXPECT_EQ(apikey_validate_many(client.handle, batch, 1, verdicts), 0u);
    EXPECT_EQ(verdicts[0].code, APIKEY_UNAVAILABLE);
    instance.publish_new_generation();
    ASSERT_TRUE(instance.add(key));
    // Validation alone finds it, at the latest after the back-off; the test's time limit is the bound.
    while (client.code(key) != APIKEY_VALID) {
        usleep(1000);
    }
    EXPECT_EQ(client.status().attached, APIKEY_OK);
}

TEST(ClientWaiting, RefreshAttachesAtOnce) {
    TestInstance instance({.capacity_keys = 10, .publish_first = false});
    TestClient client(instance);
    EXPECT_EQ(apikey_refresh(client.handle), APIKEY_WAITING);
    instance.publish_new_generation();
    const TestKey key = make_key();
    ASSERT_TRUE(instance.add(key));
    EXPECT_EQ(apikey_refresh(client.handle), APIKEY_OK);
    EXPECT_EQ(client.code(key), APIKEY_VALID);
}

// A host with a housekeeping thread: its requests are not what pays for a switch.
TEST(ClientSwitch, IsLeftToTheHousekeepingWhereThereIsOne) {
    TestInstance instance;
    const TestKey key = make_key();
    ASSERT_TRUE(instance.add(key));
    TestClient client(instance);
    ASSERT_EQ(apikey_refresh(client.handle), APIKEY_OK);
    const uint32_t first = client.status().generation;
    const uint32_t second = instance.publish_new_generation();
    EXPECT_EQ(client.code(key), APIKEY_VALID);
    EXPECT_EQ(client.status().generation, first) << "a valid key's request switched";
    instance.set_state(key, apikey::shm::SlotState::kRevoked);
    EXPECT_EQ(client.code(key), APIKEY_REVOKED) << "what tightens stands in both";
    EXPECT_EQ(client.status().generation, first);
    const TestKey late = make_key();
    ASSERT_TRUE(instance.add(late));
    EXPECT_EQ(client.code(late), APIKEY_VALID) << "a key of the new generation alone";
    EXPECT_EQ(client.status().generation, second);
    const uint32_t third = instance.publish_new_generation();
    EXPECT_EQ(apikey_refresh(client.handle), APIKEY_OK);
    EXPECT_EQ(client.status().generation, third);
}

TEST(ClientWaiting, WithoutADirectoryToo) {
    apikey_options options{};
    options.size = sizeof options;
    options.directory = "/dev/shm/apikey-test-no-such-directory";
    apikey_client* client = nullptr;
    EXPECT_EQ(apikey_open(&options, &client), APIKEY_WAITING);
    apikey_verdict verdict;
    EXPECT_EQ(apikey_validate(client, "k", 1, &verdict), APIKEY_UNAVAILABLE);
    EXPECT_EQ(verdict.code, APIKEY_UNAVAILABLE);
    apikey_close(client);
}

TEST(ClientWaiting, AClockSetBackDoesNotStopTheRetries) {
    TestInstance instance({.capacity_keys = 10, .publish_first = false});
    TestClient client(instance);
    instance.publish_new_generation();
    const TestKey key = make_key();
    ASSERT_TRUE(instance.add(key));
    // As if the attempt had been made an hour later on the clock as it stands now.
    client.handle->retry_at_ns.store(apikey::client::coarse_now_ns() + 3600 * uint64_t{1000000000});
    EXPECT_EQ(client.code(key), APIKEY_VALID);
}

TEST(ClientSwitch, FollowsAPublicationAndUnmapsTheOldGeneration) {
    TestInstance instance({.capacity_keys = 100});
    TestClient client(instance);
    const TestKey key = make_key();
    ASSERT_TRUE(instance.add(key));
    EXPECT_EQ(client.code(key), APIKEY_VALID);
    const uint32_t old = instance.current().number();
    const TestKey added = make_key();
    const uint32_t published = instance.publish_new_generation();
    ASSERT_TRUE(instance.add(added)) << "in the new generation only";
    EXPECT_FALSE(instance.generations()[0]->lock_unused()) << "the client maps it still";
    EXPECT_EQ(client.code(added), APIKEY_VALID);
    EXPECT_EQ(client.code(key), APIKEY_VALID);
    EXPECT_EQ(client.status().generation, published);
    // The writer of the old one maps it in this process, too: let it go first.
    EXPECT_EQ(instance.drop_unused(), 1u) << "no client maps it any more";
    EXPECT_TRUE(mapped_files(instance.path(), "table." + std::to_string(old)).empty());
    EXPECT_TRUE(mapped_files(instance.path(), "cells." + std::to_string(old)).empty());
    EXPECT_FALSE(mapped_files(instance.path(), "table." + std::to_string(published)).empty());
}

TEST(ClientSwitch, ARefusalFromAnOldGenerationIsNeverGivenOut) {
    TestInstance instance({.capacity_keys = 100});
    TestClient client(instance);
    const TestKey disabled = make_key();
    ASSERT_TRUE(instance.add(disabled, {.state = SlotState::kDisabled}));
    EXPECT_EQ(client.code(disabled), APIKEY_DISABLED);
    auto built = instance.build_generation();
    const TestKey only_new = make_key();
    EXPECT_EQ(client.code(only_new), APIKEY_NOT_FOUND);
    instance.publish(std::move(built));
    ASSERT_TRUE(instance.add(only_new));
    const uint64_t index = TestInstance::slot_index(instance.current(), disabled);
    instance.current().table().set_meta(
        index, apikey::shm::Meta::make(SlotState::kActive, apikey::shm::Meta::kNever, 0, 0));
    {
        NoDescriptors none;
        EXPECT_EQ(client.code(disabled), APIKEY_UNAVAILABLE);
        EXPECT_EQ(client.code(only_new), APIKEY_UNAVAILABLE);
    }
    EXPECT_EQ(apikey_refresh(client.handle), APIKEY_OK);
    EXPECT_EQ(client.code(disabled), APIKEY_VALID);
    EXPECT_EQ(client.code(only_new), APIKEY_VALID);
}

TEST(ClientSwitch, WithoutDescriptorsTheOldGenerationGoesOnServing) {
    TestInstance instance({.capacity_keys = 100});
    TestClient client(instance);
    const TestKey stable = make_key();
    const TestKey revoked = make_key();
    const TestKey expired = make_key();
    const TestKey unknown = make_key();
    ASSERT_TRUE(instance.add(stable));
    ASSERT_TRUE(instance.add(revoked));
    ASSERT_TRUE(instance.add(expired, {.expires_s = 1}));
    EXPECT_EQ(client.code(stable), APIKEY_VALID);
    instance.publish_new_generation();
    instance.set_state(revoked, SlotState::kRevoked);
    {
        NoDescriptors none;
        EXPECT_EQ(client.code(stable), APIKEY_VALID);
        EXPECT_EQ(client.code(revoked), APIKEY_REVOKED);
        EXPECT_EQ(client.code(unknown), APIKEY_UNAVAILABLE);
        EXPECT_EQ(client.code(expired), APIKEY_UNAVAILABLE);
        const apikey_key batch[] = {{stable.text.data(), stable.text.size()},
                                    {unknown.text.data(), unknown.text.size()}};
        apikey_verdict verdicts[2];
        EXPECT_EQ(apikey_validate_many(client.handle, batch, 2, verdicts), 1u);
        EXPECT_EQ(verdicts[0].code, APIKEY_VALID);
        EXPECT_EQ(verdicts[1].code, APIKEY_UNAVAILABLE);
        EXPECT_EQ(apikey_refresh(client.handle), APIKEY_NO_DESCRIPTORS);
        EXPECT_EQ(client.status().attached, APIKEY_NO_DESCRIPTORS);
        EXPECT_EQ(client.status().generation, instance.generations()[0]->number());
    }
    while (client.code(unknown) !=
           APIKEY_NOT_FOUND) {  // by its own retries; the test's time limit is the bound
        EXPECT_EQ(client.code(stable), APIKEY_VALID);
        usleep(1000);
    }
    EXPECT_EQ(client.code(expired), APIKEY_EXPIRED);
    EXPECT_EQ(client.status().attached, APIKEY_OK);
}

TEST(ClientSwitch, ASupersededControlIsLeftForTheNewOne) {
    TestInstance instance({.capacity_keys = 100});
    TestClient client(instance);
    const TestKey key = make_key();
    const TestKey unknown = make_key();
    ASSERT_TRUE(instance.add(key));
    EXPECT_EQ(client.code(key), APIKEY_VALID);
    instance.control().set_state(ControlState::kSuperseded);
    instance.reopen_control();
    instance.beat();
    EXPECT_EQ(client.code(key), APIKEY_VALID) << "never refused because of an upgrade";
    EXPECT_EQ(client.code(unknown), APIKEY_UNAVAILABLE) << "nothing is published there yet";
    const uint32_t published = instance.publish_new_generation();
    while (client.code(unknown) != APIKEY_NOT_FOUND) {
        EXPECT_EQ(client.code(key), APIKEY_VALID);
        usleep(1000);
    }
    EXPECT_EQ(client.status().generation, published);
    EXPECT_EQ(instance.drop_unused(), 1u);
}

TEST(ClientSwitch, RefreshFindsADirectoryThatWasMadeAnew) {
    TestInstance instance({.capacity_keys = 10});
    TestClient client(instance);
    const TestKey key = make_key();
    EXPECT_EQ(client.code(key), APIKEY_NOT_FOUND);
    EXPECT_EQ(unlink(instance.file("control").c_str()), 0)
        << "somebody cleaned up; nobody could store 'superseded'";
    instance.reopen_control();
    instance.beat();
    instance.publish_new_generation();
    ASSERT_TRUE(instance.add(key));
    EXPECT_EQ(apikey_refresh(client.handle), APIKEY_OK);
    EXPECT_EQ(client.code(key), APIKEY_VALID);
}

/// Threads that validate stable keys and unknown ones, singly and in batches, and tally what they should not
/// see.
class Validators {
  public:
    Validators(apikey_client* client, const std::vector<TestKey>& keys, unsigned threads) {
        for (unsigned number = 0; number < threads; ++number) {
            calls_.emplace_back(0);
        }
        for (unsigned number = 0; number < threads; ++number) {
            threads_.emplace_back([this, client, &keys, number] { run(client, keys, number); });
        }
    }
    ~Validators() { stop(); }

    void stop() {
        stopping_.store(true);
        for (std::thread& thread : threads_) {
            thread.join();
        }
        threads_.clear();
    }
    /// Returns when every thread has begun and ended `calls` more rounds.
    void await(uint64_t calls) {
        std::vector<uint64_t> goal;
        for (const auto& done : calls_) {
            goal.push_back(done.load() + calls);
        }
        for (size_t i = 0; i < goal.size(); ++i) {
            while (calls_[i].load() < goal[i]) {
                std::this_thread::yield();
            }
        }
    }
    uint64_t refused_stable() const { return refused_stable_.load(); }
    uint64_t accepted_unknown() const { return accepted_unknown_.load(); }

  private:
    void run(apikey_client* client, const std::vector<TestKey>& keys, unsigned number) {
        const TestKey unknown = make_key();
        std::vector<apikey_key> batch;
        for (const TestKey& key : keys) {
            batch.push_back({key.text.data(), key.text.size()});
        }
        batch.push_back({unknown.text.data(), unknown.text.size()});
        std::vector<apikey_verdict> verdicts(batch.size());
        for (uint64_t round = number; !stopping_.load(std::memory_order_relaxed); ++round) {
            if (round % 16 == 0) {
                apikey_validate_many(client, batch.data(), batch.size(), verdicts.data());
                for (size_t i = 0; i < keys.size(); ++i) {
                    refused_stable_ += verdicts[i].code != APIKEY_VALID ? 1 : 0;
                }
                accepted_unknown_ += verdicts.back().code == APIKEY_VALID ? 1 : 0;
            }
            const TestKey& key = keys[round % keys.size()];
            apikey_verdict verdict;
            apikey_validate(client, key.text.data(), key.text.size(), &verdict);
            refused_stable_ += verdict.code != APIKEY_VALID ? 1 : 0;
            apikey_validate(client, unknown.text.data(), unknown.text.size(), &verdict);
            accepted_unknown_ += verdict.code == APIKEY_VALID ? 1 : 0;
            calls_[number].fetch_add(1);
        }
    }

    std::atomic<bool> stopping_{false};
    std::atomic<uint64_t> refused_stable_{0};
    std::atomic<uint64_t> accepted_unknown_{0};
    std::deque<std::atomic<uint64_t>> calls_;
    std::vector<std::thread> threads_;
};

std::vector<TestKey> stable_keys(TestInstance& instance, size_t count) {
    std::vector<TestKey> keys = make_keys(count);
    for (const TestKey& key : keys) {
        EXPECT_TRUE(instance.add(key));
    }
    return keys;
}

TEST(ClientThreads, SwitchWhileValidatingWithoutRefusingAStableKey) {
    TestInstance instance({.capacity_keys = 200});
    const std::vector<TestKey> keys = stable_keys(instance, 40);
    TestClient client(instance);
    Validators validators(client.handle, keys, 4);
    for (int publication = 0; publication < 30; ++publication) {
        validators.await(20);
        instance.publish_new_generation();
        if (publication % 3 == 0) {
            EXPECT_EQ(apikey_refresh(client.handle), APIKEY_OK) << "housekeeping runs beside them";
        }
    }
    validators.await(20);
    // Nobody calls refresh any more: the validating threads themselves let go of what they replaced.
    while (instance.generations().size() > 1) {
        instance.drop_unused();
        usleep(1000);
    }
    validators.stop();
    EXPECT_EQ(validators.refused_stable(), 0u);
    EXPECT_EQ(validators.accepted_unknown(), 0u);
    EXPECT_EQ(client.status().generation, instance.current().number());
    EXPECT_EQ(mapped_files(instance.path(), "table.").size(), 2u) << "the writer's mapping and the client's";
}

TEST(ClientThreads, ManyAttachAtOnceAndKeepOneMapping) {
    for (int round = 0; round < 20; ++round) {
        TestInstance instance({.capacity_keys = 10, .publish_first = false});
        TestClient client(instance);
        instance.publish_new_generation();
        const TestKey key = make_key();
        ASSERT_TRUE(instance.add(key));
        std::vector<std::thread> threads;
        std::atomic<int> valid{0};
        for (int i = 0; i < 4; ++i) {
            threads.emplace_back([&] {
                apikey_refresh(client.handle);
                valid += client.code(key) == APIKEY_VALID ? 1 : 0;
            });
        }
        for (std::thread& thread : threads) {
            thread.join();
        }
        EXPECT_EQ(valid.load(), 4);
        EXPECT_EQ(mapped_files(instance.path(), "table.").size(), 2u);
    }
}

TEST(ClientThreads, TenThousandShortLivedThreadsLeaveNothing) {
    constexpr int kThreads = 10000;
    constexpr int kWave = 100;
    TestInstance instance({.capacity_keys = 10});
    const TestKey key = make_key();
    ASSERT_TRUE(instance.add(key));
    TestClient client(instance);
    std::atomic<int> valid{0};
    for (int started = 0; started < kThreads; started += kWave) {
        std::vector<std::thread> wave;
        for (int i = 0; i < kWave; ++i) {
            wave.emplace_back([&] { valid += client.code(key) == APIKEY_VALID ? 1 : 0; });
        }
        for (std::thread& thread : wave) {
            thread.join();
        }
    }
    EXPECT_EQ(valid.load(), kThreads);
    EXPECT_EQ(sum_code(instance.current().cells(), APIKEY_VALID), static_cast<uint64_t>(kThreads));
    // More threads than there are records came and went: had one kept its record, this would not be let go
    // of.
    instance.publish_new_generation();
    EXPECT_EQ(client.code(key), APIKEY_VALID);
    EXPECT_EQ(instance.drop_unused(), 1u);
}

TEST(ClientThreads, MoreThreadsThanRecordsAtOnceStillValidateAndSwitch) {
    constexpr unsigned kThreads = 1100;  // 1022 records
    TestInstance instance({.capacity_keys = 10});
    const TestKey key = make_key();
    ASSERT_TRUE(instance.add(key));
    TestClient client(instance);
    std::atomic<unsigned> valid{0};
    std::barrier called(kThreads + 1);
    std::barrier published(kThreads + 1);
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < kThreads; ++i) {
        threads.emplace_back([&] {
            valid += client.code(key) == APIKEY_VALID ? 1 : 0;
            called.arrive_and_wait();
            published.arrive_and_wait();
            valid += client.code(key) == APIKEY_VALID ? 1 : 0;
        });
    }
    called.arrive_and_wait();
    EXPECT_EQ(valid.load(), kThreads) << "all of them are alive now";
    instance.publish_new_generation();
    published.arrive_and_wait();
    for (std::thread& thread : threads) {
        thread.join();
    }
    EXPECT_EQ(valid.load(), 2 * kThreads);
    EXPECT_EQ(apikey_refresh(client.handle), APIKEY_OK);
    EXPECT_EQ(instance.drop_unused(), 1u);
}

TEST(ClientReentry, ACallWithinACallIsUnavailable) {
    TestInstance instance({.capacity_keys = 10});
    const TestKey key = make_key();
    ASSERT_TRUE(instance.add(key));
    TestClient client(instance);
    const apikey_key batch[] = {{key.text.data(), key.text.size()}};
    apikey_verdict verdicts[1];
    const apikey_verdict known = client.verdict(key.text);
    {
        const apikey::client::Reading outer(client.handle);  // as inside a call
        EXPECT_EQ(client.code(key), APIKEY_UNAVAILABLE);
        EXPECT_EQ(apikey_validate_many(client.handle, batch, 1, verdicts), 0u);
        EXPECT_EQ(verdicts[0].code, APIKEY_UNAVAILABLE);
        EXPECT_EQ(apikey_refresh(client.handle), APIKEY_OK) << "the last attempt's result";
        apikey_description description{};
        description.size = sizeof description;
        char buffer[APIKEY_DESCRIPTION_MAX];
        EXPECT_EQ(apikey_describe(client.handle, &known, buffer, sizeof buffer, &description), 0);
        EXPECT_EQ(client.status().generation, 0u);
    }
    EXPECT_EQ(client.code(key), APIKEY_VALID);
}

TEST(ClientReentry, AlsoWhileWaiting) {
    TestInstance instance({.capacity_keys = 10, .publish_first = false});
    TestClient client(instance);
    instance.publish_new_generation();
    const TestKey key = make_key();
    ASSERT_TRUE(instance.add(key));
    client.handle->retry_at_ns.store(0);
    {
        const apikey::client::Reading outer(client.handle);
        EXPECT_EQ(client.code(key), APIKEY_UNAVAILABLE) << "attaching allocates: not within another call";
        EXPECT_EQ(client.status().generation, 0u);
    }
    EXPECT_EQ(client.code(key), APIKEY_VALID);
}

// What the handler below uses; a handler takes no argument.
apikey_client* g_client = nullptr;
const TestKey* g_key = nullptr;
volatile sig_atomic_t g_unavailable = 0;
volatile sig_atomic_t g_other = 0;

void validate_in_handler(int) {
    apikey_verdict verdict;
    const apikey_code code = apikey_validate(g_client, g_key->text.data(), g_key->text.size(), &verdict);
    if (code == APIKEY_UNAVAILABLE) {
        g_unavailable = g_unavailable + 1;
    } else if (code != APIKEY_VALID) {
        g_other = g_other + 1;
    }
}

TEST(ClientReentry, ASignalHandlerInTheMiddleDisturbsNothing) {
    TestInstance instance({.capacity_keys = 10});
    const TestKey key = make_key();
    ASSERT_TRUE(instance.add(key));
    TestClient client(instance);
    ASSERT_EQ(client.code(key), APIKEY_VALID);
    g_client = client.handle;
    g_key = &key;
    struct sigaction action {};
    struct sigaction before {};
    action.sa_handler = validate_in_handler;
    action.sa_flags = SA_RESTART;
    ASSERT_EQ(sigaction(SIGALRM, &action, &before), 0);
    const itimerval often{{0, 1000}, {0, 1000}};
    setitimer(ITIMER_REAL, &often, nullptr);
    uint64_t refused = 0;
    while (g_unavailable <
           20) {  // interrupted in the middle of a call so often; the test's time limit is the bound
        refused += client.code(key) != APIKEY_VALID ? 1 : 0;
    }
    const itimerval never{};
    setitimer(ITIMER_REAL, &never, nullptr);
    sigaction(SIGALRM, &before, nullptr);
    EXPECT_EQ(refused, 0u) << "the interrupted call goes on as if nothing had been";
    EXPECT_EQ(g_other, 0);
    instance.publish_new_generation();
    EXPECT_EQ(client.code(key), APIKEY_VALID);
    EXPECT_EQ(instance.drop_unused(), 1u) << "no record was left in use";
}

/// A word that a forked child and the test both see.
class SharedStep {
  public:
    SharedStep()
        : step_(static_cast<std::atomic<int>*>(
              mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {}
    ~SharedStep() { munmap(step_, 4096); }
    SharedStep(const SharedStep&) = delete;
    SharedStep& operator=(const SharedStep&) = delete;
    void reach(int step) { step_->store(step); }
    void await(int step) const {
        while (step_->load() < step) {
            usleep(1000);
        }
    }

  private:
    std::atomic<int>* step_;
};

TEST(ClientFork, AChildValidatesSwitchesAndLetsGo) {
    TestInstance instance({.capacity_keys = 100});
    const std::vector<TestKey> keys = stable_keys(instance, 20);
    TestClient client(instance);
    Validators validators(client.handle, keys, 3);
    validators.await(20);  // all threads are attached, and in the middle of calls
    SharedStep step;
    Child child([&] {
        for (const TestKey& key : keys) {
            if (client.code(key) != APIKEY_VALID) {
                return 1;
            }
        }
        step.reach(1);
        step.await(2);
        for (const TestKey& key : keys) {
            if (client.code(key) != APIKEY_VALID) {
                return 2;
            }
        }
        if (client.status().generation != instance.control().current()) {
            return 3;
        }
        step.reach(3);
        step.await(4);
        return 0;
    });
    step.await(1);
    instance.publish_new_generation();
    validators.await(20);
    step.reach(2);
    step.await(3);
    while (instance.drop_unused() != 1) {  // the child lives, and holds the new generation only
        usleep(1000);
    }
    step.reach(4);
    EXPECT_EQ(child.wait(), 0);
    validators.stop();
    EXPECT_EQ(validators.refused_stable(), 0u);
}

TEST(ClientFork, AHostThatClosesAllDescriptorsIsServedAndSwitched) {
    TestInstance instance({.capacity_keys = 100});
    const TestKey key = make_key();
    const TestKey added = make_key();
    ASSERT_TRUE(instance.add(key));
    TestClient client(instance);
    SharedStep step;
    Child child([&] {
        if (close_range(0, ~0u, 0) != 0) {
            return 98;
        }
        // What a daemon opens next gets the numbers that were there before.
        for (const int number : {0, 1}) {
            if (open("/dev/null", O_RDWR | O_CLOEXEC) != number) {
                return 97;
            }
        }
        if (client.code(key) != APIKEY_VALID) {
            return 1;
        }
        step.reach(1);
        step.await(2);
        if (client.code(added) != APIKEY_VALID || client.code(key) != APIKEY_VALID) {
            return 2;
        }
        return fcntl(0, F_GETFD) == FD_CLOEXEC && fcntl(1, F_GETFD) == FD_CLOEXEC && fcntl(2, F_GETFD) < 0
                   ? 0
                   : 3;  // none of theirs closed, none of ours kept
    });
    step.await(1);
    instance.publish_new_generation();
    ASSERT_TRUE(instance.add(added));
    step.reach(2);
    EXPECT_EQ(child.wait(), 0);
}

// ------------------------------------------------------------------------------------------------- as a
// loaded library

/// The functions of a libapikey.so that was loaded by name.
struct Loaded {
    explicit Loaded(const char* path) : library(dlopen(path, RTLD_NOW | RTLD_LOCAL)) {
        if (library == nullptr) {
            throw std::runtime_error(dlerror());
        }
        open = symbol<decltype(&apikey_open)>("apikey_open");
        validate = symbol<decltype(&apikey_validate)>("apikey_validate");
        close = symbol<decltype(&apikey_close)>("apikey_close");
    }
    template <typename Function>
    Function symbol(const char* name) const {
        return reinterpret_cast<Function>(dlsym(library, name));
    }
    void* library;
    decltype(&apikey_open) open;
    decltype(&apikey_validate) validate;
    decltype(&apikey_close) close;
};

TEST(ClientLoaded, ThreadsMayEndAfterTheLibraryWasClosed) {
    const char* path = getenv("APIKEY_LIBRARY");
    ASSERT_NE(path, nullptr) << "set APIKEY_LIBRARY to libapikey.so; meson test does";
    TestInstance instance({.capacity_keys = 10});
    const TestKey key = make_key();
    ASSERT_TRUE(instance.add(key));
    for (int round = 0; round < 50; ++round) {
        Loaded loaded(path);
        apikey_options options{};
        options.size = sizeof options;
        options.directory = instance.base().c_str();
        apikey_client* client = nullptr;
        ASSERT_EQ(loaded.open(&options, &client), APIKEY_OK);
        std::atomic<int> validated{0};
        std::atomic<bool> closed{false};
        std::vector<std::thread> threads;
        for (int i = 0; i < 4; ++i) {
            threads.emplace_back([&] {
                apikey_verdict verdict;
                validated +=
                    loaded.validate(client, key.text.data(), key.text.size(), &verdict) == APIKEY_VALID ? 1
                                                                                                        : 100;
                while (!closed.load()) {
                    std::this_thread::yield();
                }
            });  // its record is given back by a destructor in the library
        }
        while (validated.load() < 4) {
            std::this_thread::yield();
        }
        loaded.close(client);
        ASSERT_EQ(dlclose(loaded.library), 0);
        closed.store(true);
        for (std::thread& thread : threads) {
            thread.join();
        }
        EXPECT_EQ(validated.load(), 4);
    }
    EXPECT_TRUE(instance.current().lock_unused()) << "closed clients hold nothing";
}

}  // namespace
