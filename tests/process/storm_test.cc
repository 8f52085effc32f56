// Promises 1, 2 and 5 under reloads, kills and restarts, with real processes and a real SIGKILL:
//   no key that was valid and stays valid is refused, no key that was never valid is accepted, no revoked key
//   is accepted after `apikeyctl revoke` returned 0, and at the end the totals equal the clients' own
//   tallies.
//
// The parent is operator and judge; the clients only validate, judge by the board, and tally. Sizes come from
// the environment: STORM_KEYS, STORM_RELOADS, STORM_KILLS (see tests/process/meson.build).

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "support/daemon_process.h"
#include "support/key_board.h"
#include "support/key_book.h"
#include "support/site.h"

namespace {

using namespace apikeyd::test;
using apikeyd::KeyState;

constexpr unsigned kClients = 2;
/// Calls of each client that must lie between two events.
constexpr uint64_t kCallsBetweenEvents = 10000;

size_t size_from_environment(const char* name, size_t fallback) {
    const char* text = getenv(name);
    return text != nullptr ? strtoull(text, nullptr, 10) : fallback;
}

class Storm : public testing::Test {
  protected:
    ~Storm() override {
        if (HasFailure()) {
            std::puts(site_.last_words().c_str());
        }
    }

    void draw_keys() {
        for (size_t i = 0; i < kKeys + kKeys / 2; ++i) {
            const size_t key = book_.draw();
            book_.loosen(key).in_set = i < kKeys;
        }
        book_.settle();
        book_.write();
    }

    /// Never returns.
    [[noreturn]] void validate(unsigned number) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);  // a failed test leaves no client behind
        apikey_client* client = site_.open_client();
        std::minstd_rand pick(number + 1);
        size_t keys[kBatchMax];
        while (!board_.stopped()) {
            const size_t count = pick() % 2 == 0 ? 1 : kBatchMax;
            for (size_t i = 0; i < count; ++i) {
                keys[i] = pick() % board_.size();
            }
            board_.call(number, client, keys, count);
        }
        apikey_close(client);
        _exit(0);
    }

    /// Waits until each client has made the calls that must lie between two events.
    void let_clients_work() {
        uint64_t start[kClients];
        for (unsigned i = 0; i < kClients; ++i) {
            start[i] = board_.validations(i);
        }
        for (unsigned i = 0; i < kClients; ++i) {
            ASSERT_TRUE(await([&] { return board_.validations(i) >= start[i] + kCallsBetweenEvents; }))
                << "client " << i << " stands still";
            calls_between_min_ = std::min(calls_between_min_, board_.validations(i) - start[i]);
        }
    }

    /// Writes another key set: 1% of the keys change, and `growth` keys come anew, so that the table must
    /// grow.
    void change_set(size_t growth) {
        for (size_t i = 0; i < book_.size() && growth != 0; ++i) {
            if (!book_[i].in_set && book_[i].state != KeyState::kRevoked) {
                book_.loosen(i).in_set = true;
                --growth;
            }
        }
        for (size_t i = 0; i < std::max<size_t>(1, kKeys / 100); ++i) {
            change_one();
        }
        book_.write();
    }

    void change_one() {
        // A tenth of the keys never changes: the stable ones.
        const size_t index = book_.size() / 10 + book_.random() % (book_.size() * 9 / 10);
        if (book_[index].state == KeyState::kRevoked) {
            return;  // by the tool or by an earlier reload, and for ever: a set that has it back is refused
        }
        BookedKey& key = book_.loosen(index);
        switch (book_.random() % 3) {
            case 0:
                key.in_set = !key.in_set;
                break;
            case 1:
                key.state = key.in_set ? KeyState::kRevoked : key.state;
                break;
            default:
                key.in_set = true;
                break;
        }
    }

    void revoke_one() {
        const size_t index = book_.size() / 10 + book_.random() % (book_.size() / 2);
        if (!book_[index].in_set || book_[index].state == KeyState::kRevoked) {
            return;
        }
        book_.loosen(index).state = KeyState::kRevoked;
        const Site::Ran ran = site_.tool("revoke " + book_[index].plain.id);
        ASSERT_EQ(ran.status, 0) << ran.output;
        book_.settle();
        ++revoked_;
    }

    const size_t kKeys = size_from_environment("STORM_KEYS", 10000);
    const size_t kReloads = size_from_environment("STORM_RELOADS", 100);
    const size_t kKills = size_from_environment("STORM_KILLS", 20);
    const unsigned kSeed = static_cast<unsigned>(size_from_environment("STORM_SEED", 20261123));

    Site site_{"flush_interval_ms: 200\n"};
    KeyBoard board_{kKeys + kKeys / 2, kClients};
    KeyBook book_{site_, board_, kSeed};
    DaemonProcess daemon_{site_.config()};
    uint64_t calls_between_min_ = UINT64_MAX;
    size_t revoked_ = 0;
};

TEST_F(Storm, NoKeyIsWronglyRefusedOrAcceptedAndEveryCallIsCounted) {
    std::printf("seed %u: %zu keys, %zu reloads, %zu kills\n", kSeed, kKeys, kReloads, kKills);
    draw_keys();
    daemon_.start();
    site_.await_applied();
    pid_t clients[kClients];
    for (unsigned i = 0; i < kClients; ++i) {
        clients[i] = fork();
        if (clients[i] == 0) {
            validate(i);
        }
    }
    size_t killed = 0;
    std::set<uint32_t> generations;
    for (size_t i = 0; i < kReloads && !HasFatalFailure(); ++i) {
        let_clients_work();
        const bool grows = i == kReloads / 4 || i == kReloads * 3 / 4;
        change_set(grows ? kKeys / 4 : 0);
        kill(daemon_.pid(), SIGHUP);
        if ((i + 1) * kKills / kReloads > killed) {
            // Somewhere between the signal and the end of the reload.
            std::this_thread::sleep_for(std::chrono::microseconds(book_.random() % 400000));
            daemon_.kill9();
            ++killed;
            let_clients_work();
            daemon_.start();
            daemon_.wait_ready();
        }
        generations.insert(site_.await_applied());
        book_.settle();
        if (i % 5 == 0) {
            let_clients_work();
            daemon_.wait_ready();
            revoke_one();
        }
    }
    let_clients_work();
    board_.stop();
    for (const pid_t client : clients) {
        int status = 0;
        waitpid(client, &status, 0);
        EXPECT_EQ(status, 0);
    }
    daemon_.wait_ready();
    std::printf(
        "%lu validations, %zu reloads, %zu kills, %zu revoked by the tool, %zu generations; at least %lu "
        "calls a client between events\n",
        board_.validations(), kReloads, killed, revoked_, generations.size(), calls_between_min_);
    EXPECT_EQ(killed, kKills);
    EXPECT_GE(generations.size(), 2u) << "the table never grew";
    EXPECT_GE(calls_between_min_, kCallsBetweenEvents);
    EXPECT_EQ(board_.violations(), 0u);
    for (const Violation& violation : board_.first_violations()) {
        ADD_FAILURE() << book_[violation.key].plain.id << " answered " << apikey_code_name(violation.code)
                      << " to client " << violation.lane;
    }
    for (const std::string& difference : board_.differences(site_.totals())) {
        ADD_FAILURE() << difference;
    }
    daemon_.terminate();
}

}  // namespace
