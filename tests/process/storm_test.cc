// Promises 1, 2 and 5 under reloads, kills and restarts, with real processes and a real SIGKILL:
//   no key that was valid and stays valid is refused, no key that was never valid is accepted, no revoked key
//   is accepted after `apikeyctl revoke` returned 0, and at the end the totals equal the clients' own
//   tallies.
//
// The parent is operator and judge; the clients only validate, judge by the board, and tally. Sizes come from
// the environment: STORM_KEYS, STORM_RELOADS, STORM_KILLS (see tests/process/meson.build).

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <boost/json.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "apikey/apikey.h"
#include "shm/key_form.h"
#include "shm/sha256.h"
#include "support/daemon_process.h"

namespace {

using namespace std::chrono_literals;

constexpr unsigned kClients = 2;
constexpr unsigned kCodes = 16;
/// Calls of each client that must lie between two events.
constexpr uint64_t kCallsBetweenEvents = 10000;
constexpr auto kPatience = 60s;

size_t size_from_environment(const char* name, size_t fallback) {
    const char* text = getenv(name);
    return text != nullptr ? strtoull(text, nullptr, 10) : fallback;
}

/// What may be answered for a key at this moment, and a count of its changes: epoch << 2 | expectation.
enum Expectation : uint32_t { kEither = 0, kMustBeValid = 1, kMustNotBeValid = 2 };

/// Shared by parent and clients. Anonymous memory, zeroed.
struct Board {
    std::atomic<bool> stop;
    std::atomic<uint64_t> calls[kClients];
    std::atomic<uint64_t> refused_stable[kClients];
    std::atomic<uint64_t> accepted_invalid[kClients];
    std::atomic<uint64_t> codes[kClients][kCodes];
    std::atomic<uint32_t> first_violation_key;  // index + 1
    std::atomic<uint32_t> first_violation_code;
};

struct Key {
    std::string plain;
    std::string id;
    std::string sha256;
    bool in_file = true;
    bool revoked = false;
};

class Storm {
  public:
    Storm(size_t keys, unsigned seed) : random_(seed) {
        const size_t invalid = keys / 2;
        for (size_t i = 0; i < keys + invalid; ++i) {
            keys_.push_back(make_key());
            keys_.back().in_file = i < keys;
        }
        valid_keys_ = keys;
        board_ = static_cast<Board*>(share(sizeof(Board)));
        expectations_ =
            static_cast<std::atomic<uint32_t>*>(share(keys_.size() * sizeof(std::atomic<uint32_t>)));
        for (unsigned client = 0; client < kClients; ++client) {
            allowed_[client] = static_cast<std::atomic<uint64_t>*>(share(keys_.size() * 8));
            denied_[client] = static_cast<std::atomic<uint64_t>*>(share(keys_.size() * 8));
        }
        for (size_t i = 0; i < keys_.size(); ++i) {
            expectations_[i].store(i < keys ? kMustBeValid : kMustNotBeValid);
        }
    }

    Key make_key() {
        uint8_t random[128];
        char text[apikey::shm::kNativeKeyLengthMax];
        size_t length = 0;
        while (length == 0) {
            for (uint8_t& byte : random) {
                byte = static_cast<uint8_t>(random_());
            }
            length = apikey::shm::native_key_make("ak_test", 7, random, sizeof random, text);
        }
        Key key;
        key.plain.assign(text, length);
        key.id = key.plain.substr(8, apikey::shm::kIdLength);
        uint8_t digest[32];
        apikey::shm::sha256_kernel().hash(text, length, digest);
        for (const uint8_t byte : digest) {
            char hex[3];
            snprintf(hex, sizeof hex, "%02x", byte);
            key.sha256 += hex;
        }
        return key;
    }

    void* share(size_t bytes) {
        void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        EXPECT_NE(memory, MAP_FAILED);
        return memory;
    }

    /// Returns the fingerprint of the new content.
    uint64_t write_file(const std::string& path) const {
        std::string text = "version: 1\nkeys:\n";
        for (const Key& key : keys_) {
            if (!key.in_file) {
                continue;
            }
            text += "  - {id: " + key.id + ", sha256: " + key.sha256 + ", environment: test, owner: storm" +
                    (key.revoked ? ", state: revoked" : "") + "}\n";
        }
        {
            std::ofstream out(path + ".new", std::ios::binary);
            out << text;
        }
        EXPECT_EQ(rename((path + ".new").c_str(), path.c_str()), 0);
        return fingerprint_of(text);
    }

    static uint64_t fingerprint_of(const std::string& text) {
        uint8_t digest[32];
        apikey::shm::sha256_kernel().hash(text.data(), text.size(), digest);
        uint64_t first;
        std::memcpy(&first, digest, sizeof first);
        return first;
    }

    static uint64_t fingerprint_of_file(const std::string& path) {
        std::ifstream in(path, std::ios::binary);
        return fingerprint_of(std::string(std::istreambuf_iterator<char>(in), {}));
    }

    void expect(size_t key, Expectation expectation) {
        const uint32_t epoch = expectations_[key].load() >> 2;
        expectations_[key].store((epoch + 1) << 2 | expectation);
    }

    /// Never returns.
    [[noreturn]] void client(unsigned number, const std::string& directory) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);  // a failed test leaves no client behind
        apikey_options options{};
        options.size = sizeof options;
        options.directory = directory.c_str();
        apikey_client* handle = nullptr;
        apikey_open(&options, &handle);
        std::minstd_rand pick(number + 1);
        apikey_key batch[16];
        apikey_verdict verdicts[16];
        size_t chosen[16];
        uint32_t before[16];
        while (!board_->stop.load()) {
            const size_t count = pick() % 2 == 0 ? 1 : 16;
            for (size_t i = 0; i < count; ++i) {
                chosen[i] = pick() % keys_.size();
                batch[i] = {keys_[chosen[i]].plain.data(), keys_[chosen[i]].plain.size()};
                before[i] = expectations_[chosen[i]].load();
            }
            if (count == 1) {
                apikey_validate(handle, batch[0].data, batch[0].len, &verdicts[0]);
            } else {
                apikey_validate_many(handle, batch, count, verdicts);
            }
            for (size_t i = 0; i < count; ++i) {
                judge(number, chosen[i], before[i], verdicts[i].code);
            }
            board_->calls[number].fetch_add(count);
        }
        apikey_close(handle);
        _exit(0);
    }

    void judge(unsigned number, size_t key, uint32_t before, apikey_code code) {
        board_->codes[number][code].fetch_add(1, std::memory_order_relaxed);
        if (code == APIKEY_VALID) {
            allowed_[number][key].fetch_add(1, std::memory_order_relaxed);
        } else if (code == APIKEY_REVOKED || code == APIKEY_DISABLED || code == APIKEY_EXPIRED) {
            denied_[number][key].fetch_add(1, std::memory_order_relaxed);
        }
        const uint32_t after = expectations_[key].load();
        bool violation = false;
        if ((before & 3) == kMustNotBeValid && before == after && code == APIKEY_VALID) {
            board_->accepted_invalid[number].fetch_add(1);
            violation = true;
        }
        if ((before & 3) == kMustBeValid && before == after && code != APIKEY_VALID) {
            board_->refused_stable[number].fetch_add(1);
            violation = true;
        }
        if (violation) {
            uint32_t none = 0;
            if (board_->first_violation_key.compare_exchange_strong(none, static_cast<uint32_t>(key + 1))) {
                board_->first_violation_code.store(static_cast<uint32_t>(code));
            }
        }
    }

    /// Waits until each client has made the calls that must lie between two events.
    void let_clients_work() {
        uint64_t start[kClients];
        for (unsigned i = 0; i < kClients; ++i) {
            start[i] = board_->calls[i].load();
        }
        const auto deadline = std::chrono::steady_clock::now() + kPatience;
        for (unsigned i = 0; i < kClients; ++i) {
            while (board_->calls[i].load() < start[i] + kCallsBetweenEvents) {
                ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "client " << i << " stands still";
                std::this_thread::sleep_for(1ms);
            }
            calls_between_min_ = std::min(calls_between_min_, board_->calls[i].load() - start[i]);
        }
    }

    std::minstd_rand random_;
    std::vector<Key> keys_;
    size_t valid_keys_ = 0;
    Board* board_ = nullptr;
    std::atomic<uint32_t>* expectations_ = nullptr;
    std::atomic<uint64_t>* allowed_[kClients] = {};
    std::atomic<uint64_t>* denied_[kClients] = {};
    uint64_t calls_between_min_ = UINT64_MAX;
};

/// A directory under /dev/shm with configuration, key set and usage store; removed at the end.
class Site {
  public:
    Site() {
        char name[] = "/dev/shm/apikeyd-storm-XXXXXX";
        directory_ = mkdtemp(name);
        std::ofstream(config()) << "source: yaml:keys.yaml\nusage: sqlite:usage.db\ndirectory: " << directory_
                                << "/run\nlog: {file: apikeyd.log}\nflush_interval_ms: 200\n"
                                << "reload: {debounce_ms: 20}\n";
    }
    /// Shows the end of what the daemon said when the test has failed.
    ~Site() {
        for (const char* name : {"/apikeyd.log", "/apikeyd.yaml.stderr"}) {
            if (testing::Test::HasFailure()) {
                std::ifstream in(directory_ + name);
                std::string text(std::istreambuf_iterator<char>(in), {});
                std::printf("%s\n%s\n", name,
                            text.substr(text.size() > 3000 ? text.size() - 3000 : 0).c_str());
            }
        }
        std::filesystem::remove_all(directory_);
    }
    std::string config() const { return directory_ + "/apikeyd.yaml"; }
    std::string keys() const { return directory_ + "/keys.yaml"; }
    std::string run() const { return directory_ + "/run"; }

  private:
    std::string directory_;
};

struct Ran {
    int status;
    std::string output;
};

/// Runs the tool and gives back what it printed on standard output.
Ran apikeyctl(const Site& site, const std::string& arguments) {
    const char* tool = getenv("APIKEYCTL");
    if (tool == nullptr) {
        throw std::runtime_error("set APIKEYCTL to the tool; meson test does");
    }
    const std::string command = std::string(tool) + " --config " + site.config() + " " + arguments;
    FILE* pipe = popen(command.c_str(), "r");
    std::string output;
    char buffer[4096];
    for (size_t got; (got = fread(buffer, 1, sizeof buffer, pipe)) > 0;) {
        output.append(buffer, got);
    }
    const int status = pclose(pipe);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, output};
}

/// Waits until the daemon says that this content of the source is in force. Returns the generation it is in.
uint32_t await_applied(const Site& site, uint64_t fingerprint) {
    apikey_options options{};
    options.size = sizeof options;
    const std::string directory = site.run();
    options.directory = directory.c_str();
    apikey_client* client = nullptr;
    apikey_open(&options, &client);
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    apikey_status_info info{};
    info.size = sizeof info;
    do {
        apikey_refresh(client);
        apikey_status(client, &info);
        if (std::chrono::steady_clock::now() > deadline) {
            throw std::runtime_error(std::string("the source was never applied: ") + info.text);
        }
        std::this_thread::sleep_for(1ms);
    } while (info.generation == 0 || info.fingerprint != fingerprint);
    apikey_close(client);
    return info.generation;
}

/// One reload: 1% of the keys change. Returns what the new content's fingerprint is.
class Reload {
  public:
    /// `growth` keys come anew beside, so that the table must grow.
    Reload(Storm& storm, const Site& site, size_t growth) : storm_(storm) {
        for (size_t i = 0; i < storm.keys_.size() && growth != 0; ++i) {
            if (Key& key = storm.keys_[i]; !key.in_file && !key.revoked) {
                storm.expect(i, kEither);
                key.in_file = true;
                changed_.push_back(i);
                --growth;
            }
        }
        const size_t changes = std::max<size_t>(1, storm.valid_keys_ / 100);
        for (size_t i = 0; i < changes; ++i) {
            change_one();
        }
        fingerprint_ = storm.write_file(site.keys());
    }
    uint64_t fingerprint() const { return fingerprint_; }
    /// After the reload is in force.
    void settle() {
        for (const size_t index : changed_) {
            const Key& key = storm_.keys_[index];
            storm_.expect(index, key.in_file && !key.revoked ? kMustBeValid : kMustNotBeValid);
        }
    }

  private:
    void change_one() {
        // A tenth of the keys never changes: the stable ones.
        const size_t index = storm_.keys_.size() / 10 + storm_.random_() % (storm_.keys_.size() * 9 / 10);
        Key& key = storm_.keys_[index];
        if (key.revoked && key.in_file) {
            return;  // by the tool or by an earlier reload, and for ever: a set that has it back is refused
        }
        storm_.expect(index, kEither);
        switch (storm_.random_() % 3) {
            case 0:
                key.in_file = !key.in_file;
                break;
            case 1:
                key.revoked = true;
                break;
            default:
                key.in_file = true;
                key.revoked = false;
                break;
        }
        changed_.push_back(index);
    }

    Storm& storm_;
    std::vector<size_t> changed_;
    uint64_t fingerprint_ = 0;
};

uint64_t sum(const std::atomic<uint64_t> (&words)[kClients]) {
    uint64_t total = 0;
    for (const auto& word : words) {
        total += word.load();
    }
    return total;
}

/// The tool's totals against the clients' own tallies: equal, key by key and code by code.
void compare_totals(const Storm& storm, const Site& site) {
    const Ran usage = apikeyctl(site, "--output json usage");
    ASSERT_EQ(usage.status, 0) << usage.output;
    const boost::json::value told = boost::json::parse(usage.output);
    std::map<std::string, std::pair<uint64_t, uint64_t>> by_id;
    for (const boost::json::value& key : told.at("keys").as_array()) {
        by_id[std::string(key.at("id").as_string())] = {key.at("allowed").to_number<uint64_t>(),
                                                        key.at("denied").to_number<uint64_t>()};
    }
    uint64_t differing = 0;
    for (size_t i = 0; i < storm.keys_.size(); ++i) {
        uint64_t allowed = 0;
        uint64_t denied = 0;
        for (unsigned client = 0; client < kClients; ++client) {
            allowed += storm.allowed_[client][i].load();
            denied += storm.denied_[client][i].load();
        }
        const auto [told_allowed, told_denied] = by_id[storm.keys_[i].id];
        if (told_allowed != allowed || told_denied != denied) {
            ++differing;
            ADD_FAILURE() << storm.keys_[i].id << ": told " << told_allowed << " allowed, " << told_denied
                          << " denied; the clients made " << allowed << " and " << denied;
            if (differing == 5) {
                break;
            }
        }
    }
    for (unsigned code = 0; code <= APIKEY_UNAVAILABLE; ++code) {
        uint64_t made = 0;
        for (unsigned client = 0; client < kClients; ++client) {
            made += storm.board_->codes[client][code].load();
        }
        const char* name = apikey_code_name(static_cast<apikey_code>(code));
        const boost::json::value* told_code = told.at("codes").as_object().if_contains(name);
        const uint64_t told_total = told_code != nullptr ? told_code->to_number<uint64_t>() : 0;
        EXPECT_EQ(told_total, made) << name;
        std::printf("%-12s clients %12lu   told %12lu\n", name, made, told_total);
    }
}

TEST(Storm, NoKeyIsWronglyRefusedOrAcceptedAndEveryCallIsCounted) {
    const size_t keys = size_from_environment("STORM_KEYS", 10000);
    const size_t reloads = size_from_environment("STORM_RELOADS", 100);
    const size_t kills = size_from_environment("STORM_KILLS", 20);
    const auto seed = static_cast<unsigned>(size_from_environment("STORM_SEED", 20261123));
    std::printf("seed %u: %zu keys, %zu reloads, %zu kills\n", seed, keys, reloads, kills);
    Site site;
    Storm storm(keys, seed);
    uint64_t fingerprint = storm.write_file(site.keys());
    apikeyd::test::DaemonProcess daemon(site.config());
    daemon.start();
    await_applied(site, fingerprint);
    pid_t clients[kClients];
    for (unsigned i = 0; i < kClients; ++i) {
        clients[i] = fork();
        if (clients[i] == 0) {
            storm.client(i, site.run());
        }
    }
    size_t killed = 0;
    size_t revoked = 0;
    std::set<uint32_t> generations;
    for (size_t i = 0; i < reloads && !HasFatalFailure(); ++i) {
        storm.let_clients_work();
        const bool grows = i == reloads / 4 || i == reloads * 3 / 4;
        Reload reload(storm, site, grows ? keys / 4 : 0);
        kill(daemon.pid(), SIGHUP);
        if ((i + 1) * kills / reloads > killed) {
            // Somewhere between the signal and the end of the reload.
            std::this_thread::sleep_for(std::chrono::microseconds(storm.random_() % 400000));
            daemon.kill9();
            ++killed;
            storm.let_clients_work();
            daemon.start();
            daemon.wait_ready();
        }
        fingerprint = reload.fingerprint();
        generations.insert(await_applied(site, fingerprint));
        reload.settle();
        if (i % 5 == 0) {
            storm.let_clients_work();
            daemon.wait_ready();
            const size_t index = storm.keys_.size() / 10 + storm.random_() % (storm.keys_.size() / 2);
            Key& key = storm.keys_[index];
            if (key.in_file && !key.revoked) {
                storm.expect(index, kEither);
                const Ran ran = apikeyctl(site, "revoke " + key.id);
                ASSERT_EQ(ran.status, 0) << ran.output;
                storm.expect(index, kMustNotBeValid);
                key.revoked = true;
                ++revoked;
            }
        }
    }
    storm.let_clients_work();
    storm.board_->stop.store(true);
    for (const pid_t client : clients) {
        int status = 0;
        waitpid(client, &status, 0);
        EXPECT_EQ(status, 0);
    }
    daemon.wait_ready();
    std::printf(
        "%lu validations, %zu reloads, %zu kills, %zu revoked by the tool, %zu generations; at least %lu "
        "calls a client "
        "between events\n",
        sum(storm.board_->calls), reloads, killed, revoked, generations.size(), storm.calls_between_min_);
    EXPECT_EQ(killed, kills);
    EXPECT_GE(generations.size(), 2u) << "the table never grew";
    EXPECT_GE(storm.calls_between_min_, kCallsBetweenEvents);
    const uint32_t bad = storm.board_->first_violation_key.load();
    const std::string first =
        bad == 0 ? std::string("none")
                 : storm.keys_[bad - 1].id + " answered " +
                       apikey_code_name(static_cast<apikey_code>(storm.board_->first_violation_code.load()));
    EXPECT_EQ(sum(storm.board_->refused_stable), 0u) << "first: " << first;
    EXPECT_EQ(sum(storm.board_->accepted_invalid), 0u) << "first: " << first;
    compare_totals(storm, site);
    daemon.terminate();
}

}  // namespace
