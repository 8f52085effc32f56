// Promises 1, 2 and 5 under single faults, with real processes and signals: whatever stops, halts, scribbles
// or takes memory, no valid key is refused, no revoked key is accepted after `apikeyctl revoke` returned 0,
// and every call is counted. Each test is one fault, and what follows its end.

#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "shm/layout.h"
#include "support/child.h"
#include "support/daemon_process.h"
#include "support/site.h"

namespace {

using namespace apikeyd::test;
using apikey::test::Child;
using apikey::test::in_child;

constexpr size_t kKeys = 100;
constexpr size_t kNameBytes = 200;  // a table has room for few changes of all names

std::string cells_name(uint32_t generation) {
    return "cells." + std::to_string(generation);
}
std::string table_name(uint32_t generation) {
    return "table." + std::to_string(generation);
}

/// A daemon with some keys, and who operates it.
class Faults : public testing::Test {
  protected:
    explicit Faults(const std::string& more = "flush_interval_ms: 20\nheartbeat_interval_ms: 20\n")
        : site_(more), daemon_(site_.config()) {
        for (size_t i = 0; i < kKeys; ++i) {
            keys_.push_back(draw_key(random_));
        }
        write_keys();
    }
    ~Faults() override {
        if (HasFailure()) {
            std::puts(site_.last_words().c_str());
        }
    }
    void start() {
        daemon_.start();
        daemon_.wait_ready();
        first_ = site_.await_applied();
    }

    void write_keys() {
        std::string rows;
        for (size_t i = 0; i < keys_.size(); ++i) {
            rows += keys_[i].row(", name: " + std::string(kNameBytes, name_) +
                                 (revoked_.contains(i) ? ", state: revoked" : ""));
        }
        site_.write_keys(rows);
    }
    /// Changes every key's name.
    void rename_keys() {
        name_ = name_ == 'z' ? 'a' : static_cast<char>(name_ + 1);
        write_keys();
    }
    /// Has another generation built, by changes until they find no room in this one. Returns its number.
    uint32_t next_generation() {
        const uint32_t before = site_.await_applied();
        for (uint32_t now = before;;) {
            rename_keys();
            now = site_.await_applied();
            if (now != before) {
                return now;
            }
        }
    }
    int revoke(size_t key) {
        revoked_.insert({key, true});
        return site_.tool("revoke " + keys_[key].id).status;
    }
    bool there(const std::string& segment) const { return std::filesystem::exists(site_.segment(segment)); }

    apikey_verdict ask(apikey_client* client, size_t key) {
        apikey_verdict verdict;
        apikey_validate(client, keys_[key].text.data(), keys_[key].text.size(), &verdict);
        made_[apikey_code_name(verdict.code)] += 1;
        return verdict;
    }
    apikey_code code(apikey_client* client, size_t key) { return ask(client, key).code; }
    /// What the store has of each code must be what ask() made, and `elsewhere` of VALID.
    void expect_all_counted(uint64_t elsewhere = 0) {
        std::map<std::string, uint64_t> made = made_;
        made["VALID"] += elsewhere;
        made.erase("UNAVAILABLE");  // a client without a table has nowhere to count
        std::map<std::string, uint64_t> told = site_.totals().by_code;
        told.erase("UNAVAILABLE");
        std::erase_if(told, [](const auto& code) { return code.second == 0; });
        EXPECT_EQ(told, made);
    }

    std::minstd_rand random_{1};
    std::vector<PlainKey> keys_;
    std::map<size_t, bool> revoked_;
    char name_ = 'a';
    Site site_;
    DaemonProcess daemon_;
    uint32_t first_ = 0;  ///< generation
    std::map<std::string, uint64_t> made_;
};

TEST_F(Faults, AStoppedDaemonIsMissedByTheFlagAloneAndItsChangesComeWhenItGoesOn) {
    start();
    apikey_client* serving = site_.open_client(500);
    apikey_client* denying = site_.open_client(500, APIKEY_STALE_DENY);
    ASSERT_TRUE(await([&] { return ask(serving, 0).flags == 0; }));
    EXPECT_EQ(code(denying, 0), APIKEY_VALID);
    ASSERT_EQ(kill(daemon_.pid(), SIGSTOP), 0);
    ASSERT_TRUE(await([&] { return ask(serving, 0).flags == APIKEY_FLAG_STALE; }));
    EXPECT_EQ(code(serving, 0), APIKEY_VALID);
    EXPECT_EQ(code(denying, 0), APIKEY_UNAVAILABLE) << "as its policy says";
    int revoked = -1;
    std::thread operator_thread([&] { revoked = revoke(1); });
    for (int i = 0; i < 100; ++i) {
        EXPECT_EQ(code(serving, 1), APIKEY_VALID) << "nobody has made the change";
        usleep(1000);
    }
    ASSERT_EQ(kill(daemon_.pid(), SIGCONT), 0);
    operator_thread.join();
    EXPECT_EQ(revoked, 0);
    EXPECT_EQ(code(serving, 1), APIKEY_REVOKED);
    EXPECT_TRUE(await([&] { return ask(serving, 0).flags == 0; }));
    EXPECT_EQ(code(denying, 0), APIKEY_VALID);
    expect_all_counted();
    apikey_close(serving);
    apikey_close(denying);
    EXPECT_EQ(daemon_.terminate(), 0);
}

// ------------------------------------------------------------------------------- halted in the middle of a
// call

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

// ---------------------------------------------------------------------------------------------- cells and
// memory

TEST_F(Faults, CellsScribbledOverWhileTheyAreCountedInChangeNoVerdictAndTheNextOnesCount) {
    start();
    apikey_client* client = site_.open_client();
    ASSERT_EQ(revoke(1), 0);
    for (int round = 0; round < 20; ++round) {
        const std::string path = site_.segment(cells_name(first_));
        // The header says where the rest is, and nobody reads it twice; who attaches anew would miss it.
        std::string noise(std::filesystem::file_size(path) - sizeof(apikey::shm::CellsHeader), '\0');
        for (char& byte : noise) {
            byte = static_cast<char>(random_() >> 8);
        }
        std::fstream(path, std::ios::in | std::ios::out | std::ios::binary)
            .seekp(sizeof(apikey::shm::CellsHeader))
            .write(noise.data(), static_cast<std::streamsize>(noise.size()));
        for (size_t key = 2; key < kKeys; ++key) {
            EXPECT_EQ(code(client, key), APIKEY_VALID);
        }
        EXPECT_EQ(code(client, 1), APIKEY_REVOKED);
        EXPECT_NE(daemon_.request(R"({"verb":"flush"})").find("\"ok\":true"), std::string::npos);
    }
    EXPECT_EQ(daemon_.request(R"({"verb":"status"})").find("\"quarantined\":0,"), std::string::npos)
        << "most of that is no count";
    next_generation();
    EXPECT_EQ(code(client, 1), APIKEY_REVOKED);
    EXPECT_EQ(code(client, 2), APIKEY_VALID);
    ASSERT_TRUE(await([&] { return !there(table_name(first_)); }));
    const Totals before = site_.totals();
    for (int i = 0; i < 1000; ++i) {
        EXPECT_EQ(code(client, 2), APIKEY_VALID);
    }
    const Totals after = site_.totals();
    EXPECT_EQ(after.by_id.at(keys_[2].id).allowed - before.by_id.at(keys_[2].id).allowed, 1000u);
    apikey_close(client);
    EXPECT_EQ(daemon_.terminate(), 0);
}

/// One client for each generation keeps all of them, on a tmpfs with room for a few.
TEST_F(Faults, GenerationsPinnedUntilTheNextHasNoRoomCostNothingButThatOne) {
    ASSERT_EQ(geteuid(), 0u) << "this test mounts: run it as root";
    mkdir(site_.run().c_str(), 0755);
    const int status = in_child([&] {
        if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
            mount("tmpfs", site_.run().c_str(), "tmpfs", 0, "size=1m,mode=0755") != 0) {
            return 98;
        }
        start();
        std::vector<apikey_client*> pins{site_.open_client()};
        const std::function<bool()> built = [&] {
            rename_keys();
            return site_.tool("reload 2>" + site_.path("said")).status == 0;
        };
        while (built()) {
            pins.push_back(site_.open_client());
            if (pins.size() > 100) {
                return 97;
            }
        }
        const bool told = site_.read("said").find("are missing") != std::string::npos;
        std::fprintf(stderr, "%zu generations pinned: %s", pins.size(), site_.read("said").c_str());
        EXPECT_GT(pins.size(), 2u);
        EXPECT_EQ(revoke(1), 0) << "what tightens needs no room";
        for (apikey_client* pin : pins) {
            EXPECT_EQ(code(pin, 0), APIKEY_VALID);
            EXPECT_EQ(code(pin, 1), APIKEY_REVOKED);
            apikey_close(pin);
        }
        // Each of the refused builds left nothing, and the next finds room once the pins are gone.
        const bool recovered = await(built);
        expect_all_counted();
        daemon_.terminate();
        return HasFailure() ? 94 : !told ? 96 : !recovered ? 95 : 0;
    });
    EXPECT_EQ(status, 0) << "98: no mount, 97: never out of room, 96: not told, 95: not recovered";
}

TEST_F(Faults, AControlOfAnotherAbiIsReplacedAndWhoWasAttachedGoesOver) {
    start();
    apikey_client* attached = site_.open_client();
    EXPECT_EQ(code(attached, 0), APIKEY_VALID);
    daemon_.kill9();
    const uint32_t another = apikey::shm::kAbi + 1;
    std::fstream(site_.segment("control"), std::ios::in | std::ios::out | std::ios::binary)
        .seekp(offsetof(apikey::shm::Control, abi))
        .write(reinterpret_cast<const char*>(&another), sizeof another);
    apikey_client* late = site_.open_client();
    EXPECT_EQ(apikey_refresh(late), APIKEY_ABI_MISMATCH);
    EXPECT_EQ(code(late, 0), APIKEY_UNAVAILABLE);
    EXPECT_EQ(code(attached, 0), APIKEY_VALID);
    revoked_.insert({1, true});
    write_keys();
    start();
    EXPECT_TRUE(await([&] { return ask(attached, 1).code == APIKEY_REVOKED; }));
    EXPECT_EQ(code(attached, 0), APIKEY_VALID);
    EXPECT_EQ(apikey_refresh(late), APIKEY_OK);
    EXPECT_EQ(code(late, 0), APIKEY_VALID);
    EXPECT_EQ(code(late, 1), APIKEY_REVOKED);
    expect_all_counted();
    apikey_close(attached);
    apikey_close(late);
    daemon_.terminate();
}

}  // namespace
