// How long a commit to a key store takes until no process accepts the key any more: a real apikeyd on an
// SQLite database, revocations by the real apikeyctl and by a program that knows libsqlite3 and the table's
// name, and two processes that present the key from before the commit to its first REVOKED.
//
// Committed is known from outside: a connection of its own asks whether the database is another, and the
// last look that saw none counts, so that what is told is at least what it took. Accepted last is the
// beginning of the last call, of whichever process, that did. Everybody pauses between calls, since few
// machines have a CPU for each: times are exact to a tenth of a millisecond.
//
// A call that began after the tool had returned must not accept the key, and none may refuse it before the
// revocation has begun. Afterwards all keys are presented once more.

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <optional>

#include "base/errno_text.h"
#include "bench/child_program.h"
#include "bench/foreign_shell.h"
#include "bench/generated_keys.h"
#include "bench/serving_crew.h"
#include "bench/serving_instance.h"
#include "bench/serving_run.h"
#include "bench/temporary_directory.h"
#include "bench/write_file.h"

namespace apikey::bench {
namespace {

constexpr uint32_t kServers = 2;
constexpr uint32_t kShell = kServers;  // the process after them
constexpr timespec kPause{0, 50'000};
constexpr timespec kBetween{0, 5'000'000};
constexpr uint64_t kPatience_ns = 60'000'000'000;

enum Step : uint32_t { kFill, kAwait, kRevoke, kCheck };

/// Revocations by their numbers from 1: each word says how far it has come.
struct alignas(64) Seen {
    std::atomic<uint64_t> accepted;
    std::atomic<uint64_t> refused;  ///< and last_accepted_ns stands
    uint64_t last_accepted_ns;      ///< beginning of the last call that accepted it
};
struct StoreArea {
    std::atomic<uint64_t> asked;                ///< servers are to present this one's victim
    std::atomic<uint64_t> begun;                ///< it is about to be revoked
    std::atomic<uint64_t> returned;             ///< the tool has returned
    alignas(64) std::atomic<uint64_t> ordered;  ///< the shell is to make it
    Seen seen[kServers];
};

void pause_briefly(const timespec& pause = kPause) {
    nanosleep(&pause, nullptr);
}

uint64_t victim(uint64_t revocation) {
    return revocation - 1;
}

/// One directory more, on the disk that counts.
class StoreDirectory {
  public:
    explicit StoreDirectory(const std::string& in) : path_(in + "/apikeyd-bench-XXXXXX") {
        if (mkdtemp(path_.data()) == nullptr) {
            throw RunEnded(kUnreachable, in + ": cannot make a directory: " + apikeyd::errno_text(errno));
        }
    }
    ~StoreDirectory() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    StoreDirectory(const StoreDirectory&) = delete;
    StoreDirectory& operator=(const StoreDirectory&) = delete;
    std::string store() const { return path_ + "/keys.db"; }

  private:
    std::string path_;
};

// ----------------------------------------------------------------------------------------- a server's side

apikey_code answer(apikey_client* client, uint64_t number) {
    const GeneratedKey key = known_key(number);
    apikey_verdict verdict;
    return apikey_validate(client, key.data(), key.size(), &verdict);
}

void wrong(const Crew::Step& step, uint64_t number, apikey_code code, const char* right) {
    step.wrong(wrong_words("store", "key " + std::to_string(number), code, right));
}

/// Until the daemon has all of them.
void await_keys(const Crew::Step& step, apikey_client* client, uint64_t keys) {
    const uint64_t limit_ns = monotonic_ns() + kPatience_ns;
    for (uint64_t number = keys; number-- > 0;) {
        apikey_code code = answer(client, number);
        for (; code == APIKEY_NOT_FOUND && monotonic_ns() < limit_ns; code = answer(client, number)) {
            pause_briefly();
        }
        if (code != APIKEY_VALID) {
            wrong(step, number, code, "VALID");
            return;
        }
    }
}

/// Presents one victim until it is refused. False when the step ended before.
bool present_one(const Crew::Step& step, apikey_client* client, uint64_t revocation, StoreArea* area) {
    Seen& seen = area->seen[step.process()];
    for (uint64_t last_accepted_ns = 0; !step.stopped(); pause_briefly()) {
        // SYNC store-returned: acquire; pairs with the store after the tool has ended.
        const bool returned = area->returned.load(std::memory_order_acquire) == revocation;
        const uint64_t began_ns = monotonic_ns();
        const apikey_code code = answer(client, victim(revocation));
        if (code == APIKEY_VALID && !returned) {
            last_accepted_ns = began_ns;
            seen.accepted.store(revocation, std::memory_order_release);
        } else if (code == APIKEY_REVOKED && area->begun.load(std::memory_order_acquire) == revocation) {
            seen.last_accepted_ns = last_accepted_ns;
            seen.refused.store(revocation, std::memory_order_release);
            return true;
        } else {
            wrong(step, victim(revocation), code, returned ? "REVOKED: the tool had returned" : "VALID");
            return false;
        }
    }
    return false;
}

void present(const Crew::Step& step, apikey_client* client, StoreArea* area) {
    for (uint64_t done = 0; !step.stopped();) {
        const uint64_t asked = area->asked.load(std::memory_order_acquire);
        if (asked == done) {
            pause_briefly();
        } else if (present_one(step, client, asked, area)) {
            done = asked;
        }
    }
}

void check_keys(const Crew::Step& step, apikey_client* client, uint64_t revoked, uint64_t keys) {
    for (uint64_t number = 0; number < keys; ++number) {
        const apikey_code right = number < revoked ? APIKEY_REVOKED : APIKEY_VALID;
        if (const apikey_code code = answer(client, number); code != right) {
            wrong(step, number, code, apikey_code_name(right));
            return;
        }
    }
}

/// What the process does that is no server.
void run_shell(const Crew::Step& step, const std::string& store, uint64_t keys, StoreArea* area) {
    if (step.number() != kFill && step.number() != kRevoke) {
        return;
    }
    ForeignShell shell(store);
    if (step.number() == kFill) {
        shell.begin_insert();
        for (uint64_t number = 0; number < keys; ++number) {
            const apikeyd::KeyRow row = row_of_key(number);
            shell.insert(row.id, row.digest);
        }
        shell.commit();
        return;
    }
    for (uint64_t done = 0; !step.stopped(); pause_briefly()) {
        const uint64_t ordered = area->ordered.load(std::memory_order_acquire);
        if (ordered != done) {
            shell.revoke(row_of_key(victim(ordered)).id);
            done = ordered;
        }
    }
}

void run_step(const Crew::Step& step, const std::string& store, uint64_t revocations, uint64_t keys,
              StoreArea* area) {
    if (step.process() == kShell) {
        run_shell(step, store, keys, area);
        return;
    }
    if (step.number() == kFill) {
        return;
    }
    apikey_client* client = step.open_client();
    if (step.number() == kAwait) {
        await_keys(step, client, keys);
    } else if (step.number() == kRevoke) {
        present(step, client, area);
    } else {
        check_keys(step, client, revocations, keys);
    }
    apikey_close(client);
}

// --------------------------------------------------------------------------------------- the operator's side

/// Of one kind of revocation.
struct Times {
    Histogram commit_ns;  ///< from the commit
    Histogram whole_ns;   ///< from the beginning
    std::array<uint64_t, 6> up_to{};

    static constexpr std::array<std::pair<const char*, uint64_t>, 6> kSteps{{{"below_1_ms", 1},
                                                                             {"below_2_ms", 2},
                                                                             {"below_5_ms", 5},
                                                                             {"below_10_ms", 10},
                                                                             {"below_20_ms", 20},
                                                                             {"more", UINT64_MAX}}};

    void add(uint64_t since_commit_ns, uint64_t since_begin_ns) {
        commit_ns.add(since_commit_ns);
        whole_ns.add(since_begin_ns);
        const auto step = std::find_if(kSteps.begin(), kSteps.end(), [&](const auto& one) {
            return since_commit_ns / 1'000'000 < one.second;
        });
        ++up_to[static_cast<size_t>(step - kSteps.begin())];
    }
};

class StoreRun {
  public:
    explicit StoreRun(const ServingOptions& options)
        : revocations_(uint64_t{2} * options.revocations),
          keys_(std::max(options.store_keys, revocations_)),
          store_directory_(options.store_directory),
          crew_(directory_.path(), kServers + 1, [this](const Crew::Step& step) {
              run_step(step, store_directory_.store(), revocations_, keys_, &*area_);
          }) {}

    std::vector<FigureTable> measure() {
        start();
        step(kFill);
        step(kAwait);
        crew_.begin(kRevoke);
        ForeignShell observer(store_directory_.store());
        // In turns, so that what else the machine does meets both.
        for (uint64_t number = 1; number <= revocations_; ++number) {
            revoke(number, number % 2 == 1, observer);
            nanosleep(&kBetween, nullptr);
        }
        crew_.end();
        step(kCheck);
        return tables();
    }

  private:
    void step(Step step) {
        crew_.begin(step);
        crew_.end();
    }
    template <typename Condition>
    void wait_until(const char* what, Condition condition) {
        for (const uint64_t limit_ns = monotonic_ns() + kPatience_ns; !condition(); pause_briefly()) {
            crew_.check();
            if (monotonic_ns() > limit_ns) {
                throw RunEnded(kWrong, std::string(what) + " within a minute; " + log_ + " says: " + said());
            }
        }
    }
    void await(const char* what, std::atomic<uint64_t> Seen::*word, uint64_t number) {
        wait_until(what, [&] {
            return std::all_of(std::begin(area_->seen), std::end(area_->seen), [&](const Seen& seen) {
                return (seen.*word).load(std::memory_order_acquire) == number;
            });
        });
    }
    /// What daemon and tool said last; it goes with the directory.
    std::string said() const {
        std::ifstream file(log_);
        std::string text(std::istreambuf_iterator<char>(file), {});
        return text.substr(text.size() - std::min<size_t>(text.size(), 1000));
    }

    std::vector<std::string> tool_command(std::initializer_list<std::string> arguments) const {
        std::vector<std::string> command = {tool_, "--config", config_};
        command.insert(command.end(), arguments);
        return command;
    }
    int ended(ChildProgram& tool) {
        std::optional<int> status;
        wait_until("the tool did not end", [&] { return (status = tool.ended()).has_value(); });
        return *status;
    }
    int run_tool(std::initializer_list<std::string> arguments) {
        ChildProgram tool(tool_command(arguments), log_);
        return ended(tool);
    }

    void start() {
        const std::string text =
            "source: sqlite:" + store_directory_.store() + "\nusage: sqlite:" + directory_.path() +
            "/usage.db\ndirectory: " + directory_.path() + "\ninstance: " + Crew::kInstance + "\n";
        if (const auto written = write_file(config_, text); !written) {
            throw RunEnded(kUnreachable, written.error().message);
        }
        daemon_.emplace(std::vector<std::string>{daemon_path_, "--config", config_}, log_);
        wait_until("apikeyd did not get ready", [this] { return run_tool({"status"}) == kDone; });
        if (run_tool({"scope", "create", "bench.read"}) != kDone) {
            throw RunEnded(kUnreachable, "the tool makes no store: " + said());
        }
    }

    void revoke(uint64_t number, bool by_tool, ForeignShell& observer) {
        area_->asked.store(number, std::memory_order_release);
        await("a server did not present its key", &Seen::accepted, number);
        version_ = observer.version();
        area_->begun.store(number, std::memory_order_release);
        const uint64_t began_ns = monotonic_ns();
        const uint64_t uncommitted_ns =
            by_tool ? revoke_by_tool(number, observer) : revoke_by_shell(number, observer);
        await("a revoked key was not refused by all", &Seen::refused, number);
        uint64_t last_ns = 0;
        for (const Seen& seen : area_->seen) {
            last_ns = std::max(last_ns, seen.last_accepted_ns);
        }
        (by_tool ? *by_tool_ : *by_shell_)
            .add(last_ns > uncommitted_ns ? last_ns - uncommitted_ns : 0,
                 last_ns > began_ns ? last_ns - began_ns : 0);
    }
    uint64_t revoke_by_tool(uint64_t number, ForeignShell& observer) {
        ChildProgram tool(tool_command({"revoke", row_of_key(victim(number)).id}), log_);
        const uint64_t uncommitted_ns = await_commit(observer);
        if (ended(tool) != kDone) {
            throw RunEnded(kUnreachable, "the tool did not revoke a key: " + said());
        }
        area_->returned.store(number, std::memory_order_release);  // SYNC store-returned
        return uncommitted_ns;
    }
    uint64_t revoke_by_shell(uint64_t number, ForeignShell& observer) {
        area_->ordered.store(number, std::memory_order_release);
        return await_commit(observer);
    }
    /// When it was not yet seen for the last time.
    uint64_t await_commit(ForeignShell& observer) {
        uint64_t uncommitted_ns = monotonic_ns();
        const int64_t before = version_;
        wait_until("a revocation was not committed", [&] {
            const uint64_t now_ns = monotonic_ns();
            version_ = observer.version();
            uncommitted_ns = version_ == before ? now_ns : uncommitted_ns;
            return version_ != before;
        });
        return uncommitted_ns;
    }

    std::vector<FigureTable> tables() const {
        FigureTable store{"store", "Until no process accepts a key revoked in the key store", {}};
        FigureTable histogram{"store_histogram", "How many of them took so long from the commit", {}};
        for (const auto& [who, times] :
             {std::pair("by the tool", by_tool_.get()), {"by a foreign program", by_shell_.get()}}) {
            store.rows.push_back(percentile_row(std::string(who) + ", commit", times->commit_ns, 1));
            store.rows.push_back(percentile_row(std::string(who) + ", beginning", times->whole_ns, 1));
            FigureRow row{who, {}};
            for (size_t i = 0; i < Times::kSteps.size(); ++i) {
                row.figures.emplace_back(Times::kSteps[i].first, static_cast<double>(times->up_to[i]));
            }
            histogram.rows.push_back(std::move(row));
        }
        return {store, histogram};
    }

    const std::string daemon_path_ = built_program("daemon/apikeyd");
    const std::string tool_ = built_program("tools/apikeyctl");
    uint64_t revocations_;  ///< of both kinds
    uint64_t keys_;
    TemporaryDirectory directory_;
    const std::string config_ = directory_.path() + "/apikeyd.yaml";
    const std::string log_ = directory_.path() + "/log";
    StoreDirectory store_directory_;
    Shared<StoreArea> area_;
    Crew crew_;
    std::optional<ChildProgram> daemon_;
    int64_t version_ = 0;  ///< of the store, as the observer saw it last
    std::unique_ptr<Times> by_tool_ = std::make_unique<Times>();
    std::unique_ptr<Times> by_shell_ = std::make_unique<Times>();
};

}  // namespace

std::vector<FigureTable> measure_store(const ServingOptions& options) {
    return std::make_unique<StoreRun>(options)->measure();
}

}  // namespace apikey::bench
