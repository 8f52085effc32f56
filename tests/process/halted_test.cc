// Promises 1 and 5 for a client that stands still in the middle of a call while the table it reads is
// replaced twice: its memory stays, its answer is right, and its call is counted.

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "faults_fixture.h"
#include "support/child.h"

namespace {

using namespace apikeyd::test;
using apikey::test::Child;

/// What a client process and the test tell each other.
struct Halt {
    std::atomic<bool> wanted;  ///< the next signal that finds a call in the middle halts there
    std::atomic<int> step;
    std::atomic<uint64_t> valid;
    std::atomic<uint64_t> refused;
};

/// The same for the handler, which takes no argument.
Halt* g_halt = nullptr;
apikey_client* g_client = nullptr;
const PlainKey* g_key = nullptr;
void (*g_do_halt)() = nullptr;

apikey_code validate_and_tally() {
    apikey_verdict verdict;
    const apikey_code code = apikey_validate(g_client, g_key->text.data(), g_key->text.size(), &verdict);
    (code == APIKEY_VALID ? g_halt->valid : g_halt->refused).fetch_add(1);
    return code;
}

/// Whether it interrupted a call shows by one of its own: within another it is UNAVAILABLE, and not counted.
void halt_inside_a_call(int) {
    if (!g_halt->wanted.load()) {
        return;
    }
    apikey_verdict verdict;
    const apikey_code code = apikey_validate(g_client, g_key->text.data(), g_key->text.size(), &verdict);
    if (code == APIKEY_VALID) {
        g_halt->valid.fetch_add(1);
    } else if (g_halt->wanted.exchange(false)) {
        g_do_halt();
    }
}

class HaltedClients : public Faults {
  protected:
    HaltedClients()
        : halt_(static_cast<Halt*>(
              mmap(nullptr, sizeof(Halt), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {}
    ~HaltedClients() override { munmap(halt_, sizeof(Halt)); }

    /// Called in the client's process.
    void prepare(void (*do_halt)(), int signal) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        g_halt = halt_;
        g_client = site_.open_client();
        g_key = &keys_[0];
        g_do_halt = do_halt;
        struct sigaction action {};
        action.sa_handler = halt_inside_a_call;
        action.sa_flags = SA_RESTART;
        sigaction(signal, &action, nullptr);
    }
    bool await_step(int step) const {
        return await([&] { return halt_->step.load() >= step; });
    }

    Halt* halt_;
};

TEST_F(HaltedClients, AProcessStoppedInsideACallFindsItsGenerationAfterTwoMoreAndIsCounted) {
    start();
    halt_->wanted.store(true);
    Child client([&] {
        prepare([] { raise(SIGSTOP); }, SIGALRM);
        const itimerval often{{0, 1000}, {0, 1000}};
        setitimer(ITIMER_REAL, &often, nullptr);
        while (halt_->step.load() == 0) {
            validate_and_tally();
        }
        apikey_close(g_client);
        return 0;
    });
    int status = 0;
    ASSERT_EQ(waitpid(client.pid(), &status, WUNTRACED), client.pid());
    ASSERT_TRUE(WIFSTOPPED(status));
    const uint32_t second = next_generation();
    const uint32_t third = next_generation();
    ASSERT_LT(first_, second);
    ASSERT_LT(second, third);
    // Nobody maps the second: when that one has gone, the first would have, too.
    ASSERT_TRUE(await([&] { return !there(table_name(second)); }));
    EXPECT_TRUE(there(table_name(first_)));
    EXPECT_TRUE(there(cells_name(first_)));
    halt_->step.store(1);
    ASSERT_EQ(kill(client.pid(), SIGCONT), 0);
    EXPECT_EQ(client.wait(), 0);
    EXPECT_TRUE(await([&] { return !there(table_name(first_)); })) << "and goes with the client";
    EXPECT_GT(halt_->valid.load(), 0u);
    EXPECT_EQ(halt_->refused.load(), 0u);
    expect_all_counted(halt_->valid.load());
    daemon_.terminate();
}

bool maps(const std::string& file) {
    std::ifstream in("/proc/self/maps");
    for (std::string line; std::getline(in, line);) {
        if (line.ends_with(file)) {
            return true;
        }
    }
    return false;
}

TEST_F(HaltedClients, AThreadHaltedInsideACallKeepsWhatItReadsWhileAnotherSwitchesTwice) {
    enum Step : int { kHalted = 1, kPublished, kSwitched, kPublishedAgain, kGoOn };
    start();
    Child client([&] {
        prepare(
            [] {
                g_halt->step.store(kHalted);
                while (g_halt->step.load() < kGoOn) {
                    usleep(1000);
                }
            },
            SIGUSR1);
        std::atomic<bool> ended{false};
        std::thread halted([&] {
            while (halt_->step.load() < kGoOn) {
                validate_and_tally();
            }
            ended.store(true);
        });
        halt_->wanted.store(true);
        while (halt_->step.load() < kHalted) {
            pthread_kill(halted.native_handle(), SIGUSR1);
            usleep(1000);
        }
        int problem = 0;
        for (const int published : {kPublished, kPublishedAgain}) {
            problem |= await_step(published) ? 0 : 1;
            // Well over the pause between two looks at what was replaced.
            for (int i = 0; i < 100; ++i) {
                validate_and_tally();
                usleep(1000);
            }
            problem |= maps("/" + table_name(first_)) && maps("/" + cells_name(first_)) ? 0 : 2;
            halt_->step.store(published == kPublished ? kSwitched : kGoOn);
        }
        halted.join();
        problem |= await([&] {
            validate_and_tally();
            return !maps("/" + table_name(first_));
        })
                       ? 0
                       : 4;
        apikey_close(g_client);
        return problem;
    });
    ASSERT_TRUE(await_step(kHalted));
    const uint32_t second = next_generation();
    halt_->step.store(kPublished);
    ASSERT_TRUE(await_step(kSwitched));
    const uint32_t third = next_generation();
    ASSERT_LT(second, third);
    EXPECT_TRUE(there(table_name(first_)));
    halt_->step.store(kPublishedAgain);
    EXPECT_EQ(client.wait(), 0)
        << "1: nothing was published, 2: unmapped while it was read, 4: not let go of";
    EXPECT_EQ(halt_->refused.load(), 0u);
    EXPECT_TRUE(await([&] { return !there(table_name(first_)); }));
    expect_all_counted(halt_->valid.load());
    daemon_.terminate();
}

}  // namespace
