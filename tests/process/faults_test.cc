// Promises 1, 2 and 5 under single faults of the daemon, its files and its memory, with real processes: no
// valid key is refused, no revoked key is accepted after `apikeyctl revoke` returned 0, and every call is
// counted.

#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "faults_fixture.h"
#include "shm/layout.h"
#include "support/child.h"
#include "support/no_descriptors.h"

namespace {

using namespace apikeyd::test;
using apikey::test::in_child;
using apikey::test::NoDescriptors;

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

TEST_F(Faults, CellsThatNobodyCouldAttachToAnyMoreAreReplacedByTheDaemon) {
    start();
    for (const bool truncated : {true, false}) {
        SCOPED_TRACE(truncated ? "truncated" : "header overwritten");
        const std::string path = site_.segment(cells_name(site_.await_applied()));
        if (truncated) {
            std::filesystem::resize_file(path, 0);
        } else {
            std::fstream(path, std::ios::in | std::ios::out | std::ios::binary).write("nonsense", 8);
        }
        apikey_client* late = site_.open_client();
        EXPECT_TRUE(await([&] { return code(late, 0) == APIKEY_VALID; }));
        apikey_close(late);
    }
    EXPECT_EQ(daemon_.terminate(), 0);
}

/// One client for each generation keeps all of them, on a tmpfs with room for a few.
TEST_F(Faults, GenerationsPinnedUntilTheNextHasNoRoomCostNothingButThatOne) {
    ASSERT_EQ(geteuid(), 0u) << "this test mounts: run it as root";
    mkdir(site_.run().c_str(), 0755);
    const int status = in_child([&] {
        if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
            mount("tmpfs", site_.run().c_str(), "tmpfs", 0, "size=2m,mode=0755") != 0) {
            return 98;
        }
        start();
        std::vector<apikey_client*> pins{site_.open_client()};
        const std::function<bool()> built = [&] {
            rename_keys();
            return site_.tool("reload 2>" + site_.path("said")).status == 0;
        };
        for (uint32_t pinned = first_; built();) {
            if (const uint32_t now = site_.await_applied(); now != pinned) {
                pinned = now;
                pins.push_back(site_.open_client());
            }
            if (pins.size() > 100) {
                return 97;
            }
        }
        const bool told = site_.read("said").find("are missing") != std::string::npos;
        std::fprintf(stderr, "%zu generations pinned: %s", pins.size(), site_.read("said").c_str());
        EXPECT_GT(pins.size(), 2u);
        EXPECT_EQ(revoke(1), 0) << "what tightens needs no room";
        for (apikey_client* pin : pins) {
            const NoDescriptors none;  // so that each answers from the generation that it pins
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
    constexpr uint32_t kHour_ms = 3600000;  // never so stale that it would look for another control by itself
    apikey_client* attached = site_.open_client(kHour_ms);
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
    more_[1] = kRevoked;
    write_keys();
    start();
    EXPECT_TRUE(await([&] { return ask(attached, 1).code == APIKEY_REVOKED; }));
    EXPECT_TRUE(await([&] {
        apikey_status_info info{};
        info.size = sizeof info;
        EXPECT_EQ(code(attached, 0), APIKEY_VALID);
        apikey_status(attached, &info);
        return info.generation == first_;
    })) << "it reads what nobody names any more";
    EXPECT_EQ(apikey_refresh(late), APIKEY_OK);
    EXPECT_EQ(code(late, 0), APIKEY_VALID);
    EXPECT_EQ(code(late, 1), APIKEY_REVOKED);
    expect_all_counted();
    apikey_close(attached);
    apikey_close(late);
    daemon_.terminate();
}

}  // namespace
