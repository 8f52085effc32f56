// serving: what the daemon's work costs those who validate meanwhile.
//
//   build/dev/bench/serving [--only switch,hot,pair,build,sweep,load,store] [--keys N] [--json FILE]
//
// The daemon's own publisher, builder, flusher, usage store and loop run in this process, on the threads that
// they have in apikeyd, in a directory on tmpfs that goes with the program; forked processes validate with
// libapikey. Keys are made from their numbers, so that ten million need no source. Measured are:
//
//   switch  calls around the moment in which a client goes over to a new generation
//   hot     one key validated by everybody, on cells sharded by CPU and on a single one; counts are exact
//   pair    throughput beside a second process, and beside a daemon that changes the table
//   build   throughput during a build, and revocations during it and without
//   sweep   CPU time of bringing counts into the store
//   load    the first load of a key store, against a scan of its rows
//   store   from a commit to a key store to the refusal in every process, with the real daemon and tool
//
// How, stands at the head of each serving_<duty>.cc. Every verdict that is timed is compared with the right
// one, and every count with what was answered.
//
// Where clients and the daemon's workers do not have CPUs of their own, figures show the scheduler.
//
// exit status: 0 done; 1 a wrong verdict or count, which is told; 2 usage; 3 something that is needed failed.
// A signal ends the program once the build under way is done and everything is cleaned up.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iterator>

#include "bench/serving_report.h"
#include "bench/serving_run.h"
#include "bench/write_file.h"

namespace {

using apikey::bench::FigureTable;
using apikey::bench::ServingOptions;

struct Duty {
    const char* name;
    std::vector<FigureTable> (*measure)(const ServingOptions&);
};
constexpr Duty kDuties[] = {
    {"switch", apikey::bench::measure_switch}, {"hot", apikey::bench::measure_hot},
    {"pair", apikey::bench::measure_pair},     {"build", apikey::bench::measure_build},
    {"sweep", apikey::bench::measure_sweep},   {"load", apikey::bench::measure_load},
    {"store", apikey::bench::measure_store},
};

constexpr uint64_t kKeysMin = 1000;  // below, cells and victims of the duties are too few
constexpr uint64_t kKeysMax = 100'000'000;

void add_options(CLI::App& app, ServingOptions& options, std::vector<std::string>& only, std::string& json) {
    std::vector<std::string> names;
    for (const Duty& duty : kDuties) {
        names.emplace_back(duty.name);
    }
    app.add_option("--only", only, "what to measure; left out: all")
        ->delimiter(',')
        ->check(CLI::IsMember(names));
    app.add_option("--keys", options.keys, "in the table; 10 million take 7 GiB of memory")
        ->check(CLI::Range(kKeysMin, kKeysMax))
        ->capture_default_str();
    app.add_option("--seconds", options.seconds, "of each timed stretch, and between two flushes")
        ->check(CLI::Range(0.01, 60.0))
        ->capture_default_str();
    app.add_option("--repetitions", options.repetitions,
                   "of hot, three times as many of pair, half as many of build; medians are told")
        ->check(CLI::Range(1U, 1000U))
        ->capture_default_str();
    app.add_option("--switch-keys", options.switch_keys,
                   "in the table of switch, where a generation is built for each")
        ->check(CLI::Range(kKeysMin, kKeysMax))
        ->capture_default_str();
    app.add_option("--switches", options.switches, "generations published there without apikey_refresh()")
        ->check(CLI::Range(1U, 10'000U))
        ->capture_default_str();
    app.add_option("--store-keys", options.store_keys,
                   "in the database of store; never fewer than are revoked")
        ->check(CLI::Range(uint64_t{1}, kKeysMax))
        ->capture_default_str();
    app.add_option("--revocations", options.revocations, "there, by the tool and by a foreign program each")
        ->check(CLI::Range(1U, 1'000'000U))
        ->capture_default_str();
    app.add_option("--store-directory", options.store_directory,
                   "where that database is made, on a disk as in use: a commit waits for it")
        ->check(CLI::ExistingDirectory)
        ->capture_default_str();
    app.add_option("--json", json, "write the figures to this file as well");
}

int tell(const std::string& problem, int status) {
    std::fprintf(stderr, "serving: %s\n", problem.c_str());
    return status;
}

int run(const ServingOptions& options, const std::vector<std::string>& only, const std::string& json) {
    std::vector<FigureTable> tables;
    for (const Duty& duty : kDuties) {
        if (!only.empty() && std::find(only.begin(), only.end(), duty.name) == only.end()) {
            continue;
        }
        std::fprintf(stderr, "serving: %s\n", duty.name);
        std::vector<FigureTable> measured = duty.measure(options);
        std::move(measured.begin(), measured.end(), std::back_inserter(tables));
    }
    std::fputs(serving_text(options, tables).c_str(), stdout);
    if (!json.empty()) {
        if (const auto written = apikey::bench::write_file(json, serving_json(options, tables)); !written) {
            return tell(written.error().message, apikey::bench::kUsage);
        }
    }
    return apikey::bench::kDone;
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app{"Measures what the daemon's work costs those who validate meanwhile; checks every answer."};
    ServingOptions options;
    std::vector<std::string> only;
    std::string json;
    add_options(app, options, only, json);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? apikey::bench::kDone : apikey::bench::kUsage;
    }
    try {
        return run(options, only, json);
    } catch (const apikey::bench::RunEnded& ended) {
        return tell(ended.what(), ended.exit());
    } catch (const std::exception& error) {
        return tell(error.what(), apikey::bench::kUnreachable);
    }
}
