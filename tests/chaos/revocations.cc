#include "revocations.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <set>
#include <stdexcept>
#include <thread>

#include "base/clock.h"
#include "base/hex.h"
#include "bench/histogram.h"
#include "protocol/admin_protocol.h"
#include "runtime/unix_client.h"
#include "support/daemon_process.h"
#include "support/site.h"

namespace apikeyd::test {
namespace {

using apikey::bench::Histogram;

constexpr unsigned kProcesses = 2;
constexpr unsigned kThreads = 2;   // of each
constexpr unsigned kIdle_us = 20;  // whoever waits leaves the CPU to those who present
constexpr unsigned kHousekeeping_us = 100000;
constexpr size_t kRenamedAtOnce = 50;
constexpr int64_t kAnswer_ms = 60000;

/// Revocations by their numbers from 1: each word says how far it has come.
struct alignas(64) Seen {
    std::atomic<uint64_t> accepted;
    std::atomic<uint64_t> refused;  ///< and last_accepted_ns stands
    uint64_t last_accepted_ns;
    std::atomic<uint64_t> violations;
};
struct Area {
    std::atomic<bool> stop;
    alignas(64) std::atomic<uint64_t> asked;
    alignas(64) std::atomic<uint64_t> answered;
    Seen seen[kProcesses * kThreads];
};

/// How late the machine wakes a thread that sleeps a millisecond: what no daemon can better.
class Sleeper {
  public:
    Sleeper() : thread_([this] { run(); }) {}
    ~Sleeper() { end(); }
    Sleeper(const Sleeper&) = delete;
    Sleeper& operator=(const Sleeper&) = delete;
    const Histogram& end() {
        stop_.store(true);
        if (thread_.joinable()) {
            thread_.join();
        }
        return *late_ns_;
    }

  private:
    void run() {
        constexpr timespec kSleep{0, 1000000};
        while (!stop_.load()) {
            const uint64_t began_ns = monotonic_now_ns();
            nanosleep(&kSleep, nullptr);
            late_ns_->add(monotonic_now_ns() - began_ns - static_cast<uint64_t>(kSleep.tv_nsec));
        }
    }
    std::unique_ptr<Histogram> late_ns_ = std::make_unique<Histogram>();
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

class Revocations {
  public:
    explicit Revocations(const RevocationOptions& options) : options_(options), daemon_(site_.config()) {
        void* memory = mmap(nullptr, sizeof(Area), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) {
            throw std::runtime_error("no memory to share");
        }
        area_ = new (memory) Area();
        std::string rows;
        for (unsigned i = 0; i < options.count + options.keys; ++i) {
            keys_.push_back(draw_key(random_));
            rows += keys_.back().row();
        }
        site_.write_keys(rows);
        fingerprint_ = fingerprint(site_.read("keys.yaml"));
    }
    ~Revocations() {
        area_->stop.store(true);
        if (renamer_.joinable()) {
            renamer_.join();
        }
        for (const pid_t client : clients_) {
            kill(client, SIGKILL);
            waitpid(client, nullptr, 0);
        }
        munmap(area_, sizeof(Area));
    }
    Revocations(const Revocations&) = delete;
    Revocations& operator=(const Revocations&) = delete;

    std::vector<RevocationRow> time() {
        daemon_.start();
        daemon_.wait_ready();
        site_.await_applied();
        for (unsigned process = 0; process < kProcesses; ++process) {
            start_client(process);
        }
        std::vector<RevocationRow> rows;
        revoke_up_to(options_.count / 2, "no build", &rows);
        renamer_ = std::thread([this] { rename_on(); });
        revoke_up_to(options_.count, "during builds", &rows);
        area_->stop.store(true);
        renamer_.join();
        for (const pid_t client : std::exchange(clients_, {})) {
            int status = 0;
            if (waitpid(client, &status, 0) != client || status != 0) {
                throw std::runtime_error("a client ended badly");
            }
        }
        return rows;
    }

    uint64_t violations() const {
        uint64_t sum = failed_.load();
        for (const Seen& seen : area_->seen) {
            sum += seen.violations.load();
        }
        return sum;
    }

  private:
    // ------------------------------------------------------------------------------------------- a client's
    // side

    void start_client(unsigned process) {
        const pid_t pid = fork();
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            apikey_client* client = site_.open_client();
            std::vector<std::thread> threads;
            for (unsigned i = 0; i < kThreads; ++i) {
                threads.emplace_back([=, this] { present(client, area_->seen[process * kThreads + i]); });
            }
            while (process == 1 && !area_->stop.load()) {  // this one's requests leave switches to it
                apikey_refresh(client);
                usleep(kHousekeeping_us);
            }
            for (std::thread& thread : threads) {
                thread.join();
            }
            apikey_close(client);
            _exit(0);
        }
        if (pid < 0) {
            throw std::runtime_error("cannot fork a client");
        }
        clients_.push_back(pid);
    }

    void present(apikey_client* client, Seen& seen) {
        for (uint64_t done = 0; !area_->stop.load(std::memory_order_relaxed);) {
            const uint64_t asked = area_->asked.load(std::memory_order_acquire);
            if (asked == done) {
                usleep(kIdle_us);
                continue;
            }
            present_one(client, asked, seen);
            done = asked;
        }
    }

    void present_one(apikey_client* client, uint64_t number, Seen& seen) {
        const std::string& text = keys_[number - 1].text;
        uint64_t last_accepted_ns = 0;
        apikey_verdict verdict;
        for (;;) {
            const bool answered = area_->answered.load(std::memory_order_acquire) == number;
            const uint64_t began_ns = monotonic_now_ns();
            apikey_validate(client, text.data(), text.size(), &verdict);
            if (verdict.code != APIKEY_VALID || answered) {
                break;
            }
            last_accepted_ns = began_ns;
            seen.accepted.store(number, std::memory_order_release);
        }
        if (verdict.code != APIKEY_REVOKED || last_accepted_ns == 0) {
            seen.violations.fetch_add(1);
            seen.accepted.store(number);
        }
        seen.last_accepted_ns = last_accepted_ns;
        seen.refused.store(number, std::memory_order_release);
    }

    // ----------------------------------------------------------------------------------------- the
    // operator's side

    std::string change_line(const std::vector<Change>& changes) const {
        return format_request(ApplyRequest{fingerprint_, fingerprint_, changes});
    }
    Change change_of(size_t key, KeyState state, const std::string& name) const {
        Change change{Change::Kind::kUpsert, {}};
        change.row.id = keys_[key].id;
        from_hex(keys_[key].sha256, change.row.digest);
        change.row.state = state;
        change.row.environment = "test";
        change.row.owner = "test";
        change.row.name = name;
        return change;
    }
    /// When the daemon had read the request; nothing when it was refused.
    std::optional<uint64_t> apply(const std::string& line) {
        const auto answer = apikeyd::request(site_.segment("admin.sock"), line, kAnswer_ms);
        if (answer) {
            if (const auto learned_ns = parse_applied(*answer)) {
                return *learned_ns;
            }
        }
        failed_.fetch_add(1);
        return std::nullopt;
    }

    void await_all(std::atomic<uint64_t> Seen::*word, uint64_t number) {
        for (const Seen& seen : area_->seen) {
            const uint64_t limit_ns =
                monotonic_now_ns() + static_cast<uint64_t>(std::chrono::nanoseconds(kPatience).count());
            while ((seen.*word).load(std::memory_order_acquire) != number) {
                if (monotonic_now_ns() > limit_ns) {
                    throw std::runtime_error("a client's thread stands still");
                }
                usleep(kIdle_us);
            }
        }
    }

    void revoke_up_to(unsigned last, const char* when, std::vector<RevocationRow>* rows) {
        auto learned_ns = std::make_unique<Histogram>();
        auto accepted_ns = std::make_unique<Histogram>();
        auto answered_ns = std::make_unique<Histogram>();
        std::set<uint32_t> generations;
        Sleeper sleeper;
        apikey_client* client = site_.open_client();
        for (; revoked_ < last && !options_.interrupted(); ++revoked_) {
            const uint64_t number = revoked_ + 1;
            const std::string line = change_line({change_of(revoked_, KeyState::kRevoked, "")});
            area_->asked.store(number, std::memory_order_release);
            await_all(&Seen::accepted, number);
            const uint64_t began_ns = monotonic_now_ns();
            const uint64_t read_ns = apply(line).value_or(began_ns);
            const uint64_t ended_ns = monotonic_now_ns();
            area_->answered.store(number, std::memory_order_release);
            await_all(&Seen::refused, number);
            uint64_t last_ns = began_ns;
            for (const Seen& seen : area_->seen) {
                last_ns = std::max(last_ns, seen.last_accepted_ns);
            }
            learned_ns->add(last_ns > read_ns ? last_ns - read_ns : 0);
            accepted_ns->add(last_ns - began_ns);
            answered_ns->add(ended_ns - began_ns);
            generations.insert(generation(client));
        }
        apikey_close(client);
        rows->push_back(
            row(std::string(when) + ", learned to last accepted", *learned_ns, generations.size()));
        rows->push_back(row(std::string(when) + ", sent to last accepted", *accepted_ns, generations.size()));
        rows->push_back(row(std::string(when) + ", sent to answer", *answered_ns, generations.size()));
        rows->push_back(row(std::string(when) + ", machine late", sleeper.end(), generations.size()));
    }

    static uint32_t generation(apikey_client* client) {
        apikey_status_info info{};
        info.size = sizeof info;
        apikey_refresh(client);
        apikey_status(client, &info);
        return info.generation;
    }

    static RevocationRow row(std::string what, const Histogram& times_ns, uint64_t generations) {
        return {std::move(what),
                {{"samples", times_ns.count},
                 {"generations", generations},
                 {"p50_ns", times_ns.percentile(0.5)},
                 {"p99_ns", times_ns.percentile(0.99)},
                 {"p99_9_ns", times_ns.percentile(0.999)},
                 {"max_ns", times_ns.max}}};
    }

    /// Changes names of keys that are not revoked, so that one table after the other runs out of room.
    void rename_on() {
        for (unsigned round = 0; !area_->stop.load(); ++round) {
            std::vector<Change> changes;
            const std::string name(kNameBytesMax, static_cast<char>('a' + round % 26));
            for (size_t i = 0; i < std::min<size_t>(kRenamedAtOnce, options_.keys); ++i) {
                const size_t key = options_.count + (round * kRenamedAtOnce + i) % options_.keys;
                changes.push_back(change_of(key, KeyState::kActive, name));
            }
            apply(change_line(changes));
        }
    }

    const RevocationOptions& options_;
    Site site_{"flush_interval_ms: 1000\n"};
    DaemonProcess daemon_;
    std::minstd_rand random_{1};
    std::vector<PlainKey> keys_;  // the first are revoked
    Fingerprint fingerprint_{};
    Area* area_ = nullptr;
    std::vector<pid_t> clients_;
    std::thread renamer_;
    unsigned revoked_ = 0;
    std::atomic<uint64_t> failed_{0};  ///< requests
};

}  // namespace

std::vector<RevocationRow> time_revocations(const RevocationOptions& options, uint64_t* violations) {
    Revocations revocations(options);
    std::vector<RevocationRow> rows = revocations.time();
    *violations = revocations.violations();
    return rows;
}

}  // namespace apikeyd::test
