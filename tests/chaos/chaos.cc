// chaos: promises 1, 2 and 5 under everything at once, for as long as wanted.
//
//   chaos --seconds N --seed S [--keys K] [--kills] [--json FILE]
//   chaos revocations [--count N] [--keys K] [--json FILE]
//
// Real daemons, the real tool and four client processes; what happens to them, and when, is drawn from the
// seed: reloads of changed key sets and plans, bad key sets, changes by the tool, new generations, SIGKILL
// and SIGSTOP of the daemon and of clients, a usage store that is locked, counters scribbled over and
// truncated; with --kills above all SIGKILLs, which is where counts could be lost. All the time:
//   no key that was valid and stays valid is refused; no key that was never valid is accepted; no key whose
//   revocation returned 0 is accepted by a call that began after; the store's totals equal the clients'
//   tallies, but for the one call of each thread that was killed in it, and for counters that were spoilt;
//   limits refuse no key that has none, no quota is passed by one request in its period, no rate passes more
//   than its burst and what the time allows, and what is left of a quota is what did not pass, but for what
//   was lost with who was killed.
//
// `revocations` tells how long one takes on a live daemon (revocations.h); no time is a violation.
//
// The environment's APIKEYD and APIKEYCTL name the programs. Prints a line each minute and at the end, and a
// line for each violation. Exit status: 0 without one, 1 otherwise, 2 usage. SIGINT and SIGTERM end it early,
// with the same checks; nothing is left behind.

#include <signal.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iterator>
#include <string>

#include "operator.h"
#include "revocations.h"

namespace {

using namespace apikeyd::test;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kBetweenLines{60};

constexpr int kEndingSignals[] = {SIGINT, SIGTERM, SIGHUP};

/// They wait, here and in the tool, until they are looked for: a tool that is interrupted would look like one
/// that failed.
void block_ending_signals() {
    sigset_t ending;
    sigemptyset(&ending);
    for (const int number : kEndingSignals) {
        sigaddset(&ending, number);
    }
    sigprocmask(SIG_BLOCK, &ending, nullptr);
}

bool ending_signal_waits() {
    sigset_t waiting;
    sigpending(&waiting);
    return std::any_of(std::begin(kEndingSignals), std::end(kEndingSignals),
                       [&](int number) { return sigismember(&waiting, number) == 1; });
}

struct Options {
    RevocationOptions revocations;
    unsigned seconds = 60;
    unsigned seed = 1;
    unsigned keys = 2000;
    bool kills = false;
    std::string json;
};

class Run {
  public:
    explicit Run(const Options& options)
        : options_(options),
          operator_(options.keys, options.seed, options.kills ? Mix::kKills : Mix::kEverything),
          began_(Clock::now()) {}

    void go() {
        operator_.begin();
        const auto end = began_ + std::chrono::seconds(options_.seconds);
        auto next_line = began_ + kBetweenLines;
        while (!ending_signal_waits() && Clock::now() < end) {
            operator_.step();
            print_violations();
            if (Clock::now() >= next_line) {
                operator_.audit();
                print_violations();
                print_line();
                next_line += kBetweenLines;
            }
        }
        operator_.end();
        print_violations();
    }

    void print_line() const {
        std::printf("%ld s, seed %u:", elapsed_s(), options_.seed);
        const char* before = "";
        for (const auto& [name, value] : figures()) {
            std::printf("%s %lu %s", before, value, name);
            before = ",";
        }
        std::printf("\n");
        std::fflush(stdout);
    }

    bool write_json() const {
        if (options_.json.empty()) {
            return true;
        }
        std::ofstream out(options_.json);
        out << "{\"seed\":" << options_.seed << ",\"seconds\":" << elapsed_s();
        for (const auto& [name, value] : figures()) {
            out << ",\"" << name << "\":" << value;
        }
        out << "}\n";
        return static_cast<bool>(out.flush());
    }

    bool clean() const { return operator_.violations() == 0; }

  private:
    long elapsed_s() const {
        return std::chrono::duration_cast<std::chrono::seconds>(Clock::now() - began_).count();
    }
    std::vector<std::pair<const char*, uint64_t>> figures() const {
        const Happened& happened = operator_.happened();
        const LimitedKeys& limits = operator_.limits();
        return {{"validations", operator_.validations()},
                {"limited passed", limits.tally().passed()},
                {"limited refused", limits.tally().refused()},
                {"passes unjudged", limits.ledger().unjudged()},
                {"quotas compared", limits.ledger().compared()},
                {"kills", happened.kills},
                {"reloads", happened.reloads},
                {"plan changes", happened.plan_changes},
                {"switches", happened.switches},
                {"revocations", happened.revocations},
                {"tool changes", happened.tool_changes},
                {"refused sets", happened.refused_sets},
                {"daemon stops", happened.daemon_stops},
                {"client stops", happened.client_stops},
                {"client deaths", happened.client_deaths},
                {"spoilt cells", happened.spoilt_cells},
                {"store locks", happened.store_locks},
                {"audits", happened.audits},
                {"violations", operator_.violations()}};
    }
    void print_violations() {
        for (const std::string& line : operator_.new_violations()) {
            std::printf("VIOLATION after %ld s, seed %u: %s\n", elapsed_s(), options_.seed, line.c_str());
            std::fflush(stdout);
        }
    }

    const Options& options_;
    Operator operator_;
    Clock::time_point began_;
};

int run_chaos(const Options& options) {
    Run run(options);
    run.go();
    run.print_line();
    return run.write_json() && run.clean() ? 0 : 1;
}

int run_revocations(const Options& options) {
    uint64_t violations = 0;
    const std::vector<RevocationRow> rows = time_revocations(options.revocations, &violations);
    std::string json = "{\"violations\":" + std::to_string(violations);
    for (const RevocationRow& row : rows) {
        std::printf("%-36s", row.what.c_str());
        json += ",\"" + row.what + "\":{";
        const char* comma = "";
        for (const auto& [name, value] : row.figures) {
            std::printf(" %s %lu", name, value);
            json += std::string(comma) + "\"" + name + "\":" + std::to_string(value);
            comma = ",";
        }
        std::printf("\n");
        json += "}";
    }
    std::printf("%lu violations\n", violations);
    const bool written = options.json.empty() || (std::ofstream(options.json) << json << "}\n").flush();
    return written && violations == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app{
        "Does everything to a daemon and its clients that may be done, and checks what they answer."};
    Options options;
    app.add_option("--seconds", options.seconds, "how long")
        ->check(CLI::Range(1U, 10'000'000U))
        ->capture_default_str();
    app.add_option("--seed", options.seed, "the same events in the same order")->capture_default_str();
    app.add_option("--keys", options.keys, "in the key set")
        ->check(CLI::Range(100U, 1'000'000U))
        ->capture_default_str();
    app.add_flag("--kills", options.kills, "little else than SIGKILL, of the daemon and of clients");
    app.add_option("--json", options.json, "write the last line's figures to this file as well");
    CLI::App* revocations = app.add_subcommand("revocations", "Times revocations on a live daemon.");
    revocations->add_option("--count", options.revocations.count, "how many")
        ->check(CLI::Range(2U, 1'000'000U))
        ->capture_default_str();
    revocations->add_option("--keys", options.revocations.keys, "in the key set besides")
        ->check(CLI::Range(100U, 1'000'000U))
        ->capture_default_str();
    revocations->add_option("--json", options.json, "write the figures to this file as well");
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;
    }
    block_ending_signals();
    options.revocations.interrupted = ending_signal_waits;
    try {
        return revocations->parsed() ? run_revocations(options) : run_chaos(options);
    } catch (const std::exception& error) {
        std::printf("VIOLATION or no way to go on, seed %u: %s\n", options.seed, error.what());
        return 1;
    }
}
