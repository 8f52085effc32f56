// Promises: each denial stands in the denial log or in the number of those left out; what stands there is
// whole and of somebody who was denied, however many servers are killed; a flood makes no long log; no key
// and no secret stands in it; a daemon that is killed leaves none out.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <map>
#include <sstream>
#include <thread>
#include <vector>

#include "support/daemon_process.h"
#include "support/site.h"

namespace {

using namespace apikeyd::test;
using Fields = std::map<std::string, std::string>;

constexpr unsigned kCap = 20;

class DenialLog : public testing::Test {
  protected:
    explicit DenialLog(unsigned cap = kCap)
        : site_("denial_log: {file: denials.log, per_second: " + std::to_string(cap) + "}\n") {}
    void SetUp() override {
        site_.write_keys(valid_.row() + revoked_.row(", state: revoked", "acme"));
        daemon_.start();
        daemon_.wait_ready();
        site_.await_applied();
    }
    /// Of all files.
    std::vector<Fields> lines() const {
        std::string text;
        for (int number = rotations_; number > 0; --number) {
            text += site_.read("denials.log." + std::to_string(number));
        }
        std::vector<Fields> lines;
        std::istringstream log(text + site_.read("denials.log"));
        for (std::string line; std::getline(log, line) && !log.eof();) {  // the last may be half there
            Fields fields;
            std::istringstream words(line);
            for (std::string word; words >> word;) {
                fields[word.substr(0, word.find('='))] = word.substr(word.find('=') + 1);
            }
            lines.push_back(fields);
        }
        return lines;
    }
    size_t count(const std::string& event, const std::string& code) const {
        size_t sum = 0;
        for (const Fields& line : lines()) {
            if (line.at("event") == event && line.at("code") == code) {
                sum += event == "denied" ? 1 : std::stoul(line.at("count"));
            }
        }
        return sum;
    }
    size_t all(const std::string& code) const {
        return count("denied", code) + count("denials.left_out", code);
    }

    /// As logrotate does. What is written before the signal is in the renamed file.
    void rotate() {
        const auto file = [this](int number) {
            return site_.path("denials.log") + (number == 0 ? "" : "." + std::to_string(number));
        };
        for (int number = rotations_++; number >= 0; --number) {
            std::filesystem::rename(file(number), file(number + 1));
        }
        kill(daemon_.pid(), SIGUSR1);
        ASSERT_TRUE(await([&] { return std::filesystem::exists(file(0)); }));
    }

    /// A request from an address that says which key it came with.
    static apikey_code ask(apikey_client* client, const std::string& key, const char* from) {
        apikey_address address;
        apikey_address_parse(from, std::strlen(from), &address);
        apikey_request request = APIKEY_REQUEST_INIT;
        request.address = &address;
        apikey_verdict verdict;
        apikey_validate_request(client, key.data(), key.size(), &request, &verdict);
        return verdict.code;
    }

    /// A server that refuses two keys in turns until it is killed. The address tells the key, and so whether
    /// an entry is one request's.
    pid_t start_server(useconds_t pause_us) {
        const pid_t server = fork();
        if (server == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            apikey_client* client = site_.open_client();
            for (;;) {
                ask(client, revoked_.text, "192.0.2.1");
                ask(client, unknown_.text, "192.0.2.2");
                if (pause_us != 0) {
                    usleep(pause_us);
                }
            }
        }
        return server;
    }

    std::minstd_rand random_{11};
    PlainKey valid_ = draw_key(random_);
    PlainKey revoked_ = draw_key(random_);
    PlainKey unknown_ = draw_key(random_);
    Site site_;
    DaemonProcess daemon_{site_.config()};
    int rotations_ = 0;
};

TEST_F(DenialLog, TellsWhoWasDeniedAndNoKey) {
    apikey_client* client = site_.open_client();
    const std::string foreign = "a secret of some other house";
    EXPECT_EQ(ask(client, valid_.text, "192.0.2.1"), APIKEY_VALID);
    EXPECT_EQ(ask(client, revoked_.text, "192.0.2.7"), APIKEY_REVOKED);
    EXPECT_EQ(ask(client, unknown_.text, "2001:db8::7"), APIKEY_NOT_FOUND);
    EXPECT_EQ(ask(client, foreign, "192.0.2.8"), APIKEY_NOT_FOUND);
    EXPECT_EQ(ask(client, "short", "192.0.2.9"), APIKEY_NOT_FOUND);
    const pid_t forked = fork();
    if (forked == 0) {
        _exit(ask(client, revoked_.text, "192.0.2.10") == APIKEY_REVOKED ? 0 : 1);
    }
    waitpid(forked, nullptr, 0);
    apikey_close(client);
    ASSERT_TRUE(await([&] { return count("denied", "REVOKED") == 2 && count("denied", "NOT_FOUND") == 3; }));
    std::map<std::string, Fields> by_address;
    for (const Fields& line : lines()) {
        by_address[line.at("address")] = line;
    }
    EXPECT_EQ(by_address.size(), 5u) << "no line of the valid key";
    EXPECT_EQ(by_address["192.0.2.7"]["key"], revoked_.id);
    EXPECT_EQ(by_address["192.0.2.7"]["owner"], "acme");
    EXPECT_EQ(by_address["192.0.2.7"]["pid"], std::to_string(getpid()));
    EXPECT_EQ(by_address["192.0.2.10"]["pid"], std::to_string(forked)) << "a child is another server";
    EXPECT_EQ(by_address["2001:db8::7"]["unknown_key"], unknown_.id);
    EXPECT_EQ(by_address["192.0.2.8"]["sha256_end"], PlainKey::of(foreign).sha256.substr(60));
    EXPECT_EQ(by_address["192.0.2.9"].count("sha256_end"), 0u);
    const std::string log = site_.read("denials.log");
    for (const std::string& secret :
         {revoked_.text, unknown_.text, revoked_.text.substr(revoked_.text.size() - 33),
          unknown_.text.substr(unknown_.text.size() - 33), foreign}) {
        EXPECT_EQ(log.find(secret), std::string::npos);
    }
    EXPECT_EQ(daemon_.terminate(), 0);
}

TEST_F(DenialLog, AFloodIsCountedAndNotWritten) {
    constexpr size_t kFlood = 200'000;
    const auto begin = std::chrono::steady_clock::now();
    apikey_client* client = site_.open_client();
    for (size_t i = 0; i < kFlood; ++i) {
        ASSERT_EQ(ask(client, unknown_.text, "192.0.2.7"), APIKEY_NOT_FOUND);
        if (i == kFlood / 2) {
            daemon_.kill9();  // what comes meanwhile is the next one's to tell
            daemon_.start();
        }
    }
    apikey_close(client);
    daemon_.wait_ready();
    EXPECT_TRUE(await([&] { return all("NOT_FOUND") >= kFlood; })) << all("NOT_FOUND");
    size_t most = 0;
    for (const Fields& line : lines()) {
        most = std::max<size_t>(most, line.count("count") != 0 ? std::stoul(line.at("count")) : 1);
    }
    EXPECT_LE(all("NOT_FOUND"), kFlood + most) << "a line may stand there twice, by the kill";
    const auto seconds =
        std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - begin);
    EXPECT_LE(count("denied", "NOT_FOUND"), kCap * (static_cast<size_t>(seconds.count()) + 3));
    EXPECT_EQ(daemon_.terminate(), 0);
}

/// More than a ring holds: the fast ones overtake others.
class ManyDenials : public DenialLog {
  protected:
    ManyDenials() : DenialLog(1000) {}
};

TEST_F(ManyDenials, WhatIsThereIsWholeThroughKills) {
    constexpr int kKills = 60;
    std::map<std::string, bool> pids;
    for (int i = 0; i < kKills; ++i) {
        const pid_t server = start_server(0);
        pids[std::to_string(server)] = true;
        std::this_thread::sleep_for(std::chrono::milliseconds(10 + i % 7));
        kill(server, SIGKILL);
        waitpid(server, nullptr, 0);
    }
    ASSERT_TRUE(await([&] { return count("denied", "REVOKED") > 0 && count("denied", "NOT_FOUND") > 0; }));
    for (const Fields& line : lines()) {
        if (line.at("event") == "denied") {
            const bool revoked = line.at("code") == "REVOKED";
            EXPECT_EQ(line.at("address"), revoked ? "192.0.2.1" : "192.0.2.2");
            EXPECT_EQ(line.at(revoked ? "key" : "unknown_key"), revoked ? revoked_.id : unknown_.id);
            EXPECT_TRUE(pids.count(line.at("pid"))) << line.at("pid");
        }
    }
    const Totals totals = site_.totals();
    for (const char* code : {"REVOKED", "NOT_FOUND"}) {
        EXPECT_TRUE(await([&] { return all(code) == totals.by_code.at(code); }))
            << code << ": " << all(code) << " told of " << totals.by_code.at(code);
    }
    EXPECT_EQ(daemon_.terminate(), 0);
}

TEST_F(DenialLog, NewGenerationsAndRotationsLoseNone) {
    const pid_t server = start_server(100);
    std::string rows = valid_.row() + revoked_.row(", state: revoked", "acme");
    uint32_t generation = site_.await_applied();
    for (const int keys : {1000, 8000}) {
        for (int i = 0; i < keys; ++i) {
            rows += draw_key(random_).row();
        }
        site_.write_keys(rows);
        const uint32_t next = site_.await_applied();
        EXPECT_GT(next, generation);
        // Everything of the one before is told by the time its files go.
        EXPECT_TRUE(await(
            [&] { return !std::filesystem::exists(site_.segment("cells." + std::to_string(generation))); }));
        generation = next;
        rotate();
    }
    kill(server, SIGKILL);
    waitpid(server, nullptr, 0);
    const Totals totals = site_.totals();
    for (const char* code : {"REVOKED", "NOT_FOUND"}) {
        EXPECT_GT(totals.by_code.at(code), kCap);
        EXPECT_TRUE(await([&] { return all(code) == totals.by_code.at(code); }))
            << code << ": " << all(code) << " told of " << totals.by_code.at(code);
    }
    EXPECT_EQ(daemon_.terminate(), 0);
}

}  // namespace
