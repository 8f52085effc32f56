// The small benchmarks' main; what they time stands in the files micro_*.cc.
//
// Beside Google Benchmark's options: --keys=N,N,… the sizes of the key sets that are validated against. Ten
// million take 4 GiB and half a minute before the first figure.

#include <benchmark/benchmark.h>

#include <charconv>
#include <cstdio>
#include <optional>
#include <string_view>
#include <vector>

#include "bench/micro_validate.h"

namespace {

constexpr std::string_view kKeysOption = "--keys=";
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

}  // namespace

int main(int argc, char** argv) {
    std::vector<uint64_t> sizes = {1'000, 100'000, 1'000'000};
    int kept = 1;
    for (int i = 1; i < argc; ++i) {
        if (!std::string_view(argv[i]).starts_with(kKeysOption)) {
            argv[kept++] = argv[i];
            continue;
        }
        const auto given = parse_sizes(std::string_view(argv[i]).substr(kKeysOption.size()));
        if (!given || given->empty()) {
            std::fprintf(stderr, "micro: --keys wants sizes from 1 to 100000000, separated by commas\n");
            return 2;
        }
        sizes = *given;
    }
    argv[kept] = nullptr;
    apikey::bench::register_validate(sizes);
    benchmark::Initialize(&kept, argv);
    if (benchmark::ReportUnrecognizedArguments(kept, argv)) {
        return 2;
    }
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return 0;
}
