// The small benchmarks' main; what they time stands in the files micro_*.cc.
//
// Beside Google Benchmark's options:
//   --keys=N,N,…        the sizes of the key sets that are validated against. Ten million take 6 GiB, and a
//                       minute before the first figure.
//   --redis=SOCKET      servers to measure beside, on Unix sockets; empty ones, which nobody else uses.
//   --memcached=SOCKET  bench/report starts and ends them.

#include <benchmark/benchmark.h>

#include <charconv>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bench/micro_floor.h"
#include "bench/micro_peers.h"
#include "bench/micro_validate.h"
#include "bench/peer_stores.h"
#include "shm/sha256.h"

namespace {

constexpr std::string_view kKeysOption = "--keys=";
constexpr std::string_view kRedisOption = "--redis=";
constexpr std::string_view kMemcachedOption = "--memcached=";
constexpr uint64_t kKeysMax = 100'000'000;

std::optional<std::vector<uint64_t>> parse_sizes(std::string_view text) {
    std::vector<uint64_t> sizes;
    while (!text.empty()) {
        uint64_t size = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), size);
        if (error != std::errc() || size == 0 || size > kKeysMax) {
            return std::nullopt;
        }
        sizes.push_back(size);
        text.remove_prefix(static_cast<size_t>(end - text.data()));
        if (!text.empty() && text.front() != ',') {
            return std::nullopt;
        }
        text.remove_prefix(text.empty() ? 0 : 1);
    }
    return sizes;
}

struct Options {
    std::vector<uint64_t> sizes = {1'000, 100'000, 1'000'000};
    apikey::bench::PeerSockets sockets;
};

/// Takes our options out of the arguments; false after a message.
bool take_options(int& argc, char** argv, Options& options) {
    int kept = 1;
    for (int i = 1; i < argc; ++i) {
        const std::string_view argument(argv[i]);
        if (argument.starts_with(kKeysOption)) {
            const auto given = parse_sizes(argument.substr(kKeysOption.size()));
            if (!given || given->empty()) {
                std::fprintf(stderr, "micro: --keys wants sizes from 1 to 100000000, separated by commas\n");
                return false;
            }
            options.sizes = *given;
        } else if (argument.starts_with(kRedisOption)) {
            options.sockets.redis = argument.substr(kRedisOption.size());
        } else if (argument.starts_with(kMemcachedOption)) {
            options.sockets.memcached = argument.substr(kMemcachedOption.size());
        } else {
            argv[kept++] = argv[i];
        }
    }
    argv[kept] = nullptr;
    argc = kept;
    return true;
}

/// What figures hang on and only this program knows.
void tell_circumstances() {
#ifdef __clang__
    std::string compiler("clang " __clang_version__);
#else
    std::string compiler("g++ " __VERSION__);
#endif
#ifndef __OPTIMIZE__
    compiler += ", NOT OPTIMISED";
#endif
#ifdef NDEBUG
    compiler += ", assertions off";
#else
    compiler += ", assertions on";
#endif
    benchmark::AddCustomContext("compiler", compiler);
    benchmark::AddCustomContext("sha256_kernel", apikey::shm::sha256_kernel().name);
    benchmark::AddCustomContext("libraries", apikey::bench::peer_libraries());
}

}  // namespace

int main(int argc, char** argv) {
    Options options;
    if (!take_options(argc, argv, options)) {
        return 2;
    }
    std::vector<apikey::bench::PrivateSet*> sets;
    for (const uint64_t size : options.sizes) {
        sets.push_back(new apikey::bench::PrivateSet(size));  // lives as long as the benchmarks: to the end
    }
    apikey::bench::register_validate(sets);
    apikey::bench::register_floor(sets);
    apikey::bench::register_peers(sets, options.sockets);
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
        return 2;
    }
    tell_circumstances();
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return 0;
}
