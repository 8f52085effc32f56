// A whole validation by libapikey, from presented bytes to a counted verdict, beside the hash map that a
// server without apikeyd would keep.
//
//   validate/<keys>/<draw>/single       one call a key; calls may overlap in the processor
//   validate/<keys>/<draw>/dependent    which key comes next hangs on the last verdict: nothing overlaps
//   validate/<keys>/<draw>/batch<n>     apikey_validate_many() with n keys
//   map_key/…  map_digest/…             boost::unordered_flat_map, private, nothing counted: found by the
//                                       plaintext ('index only'), and by its SHA-256, computed for each call
//
// Draws: hits uniform, hits by a scattered Zipf 0.99, misses of the native form with a right checksum, and
// hits with 5% misses. Every answer is compared with the right one; a wrong one ends the program.

#include "bench/micro_validate.h"

#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "bench/private_set.h"
#include "shm/sha256.h"

namespace apikey::bench {
namespace {

constexpr size_t kBatchMax = 64;
constexpr size_t kBatches[] = {16, 32, kBatchMax};
/// Presented before timing starts, to bring caches and page tables back from the benchmark before.
constexpr size_t kWarmUpKeys = 1 << 16;

void check_answers(const benchmark::State& state, uint64_t wrong) {
    if (wrong != 0) {
        std::fprintf(stderr, "micro: %llu wrong answers among %llu calls\n",
                     static_cast<unsigned long long>(wrong),
                     static_cast<unsigned long long>(state.iterations()));
        std::exit(1);
    }
}

void per_key(benchmark::State& state, size_t keys) {
    state.counters["each"] =
        benchmark::Counter(static_cast<double>(state.iterations()) * static_cast<double>(keys),
                           benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

/// Presents the stream's keys one by one to `answer`, a function from apikey_key to apikey_code.
/// `kDependent`: the next position is computed from the last answer.
template <bool kDependent, typename Answer>
void one_by_one(benchmark::State& state, const KeyStream& stream, Answer answer) {
    for (size_t i = 0; i < kWarmUpKeys; ++i) {
        benchmark::DoNotOptimize(answer(stream.key(i % stream.size())));
    }
    uint64_t wrong = 0;
    size_t at = 0;
    for (auto _ : state) {
        const auto code = static_cast<Expected>(answer(stream.key(at)));
        const Expected expected = stream.expected(at);
        wrong += code != expected ? 1 : 0;
        at += kDependent ? size_t{1} + (code ^ expected) : 1;
        if (at >= stream.size()) {
            at = 0;
        }
    }
    check_answers(state, wrong);
    per_key(state, 1);
}

template <bool kDependent>
void validate_keys(benchmark::State& state, PrivateSet* set, Draw draw) {
    apikey_client* client = set->client();
    one_by_one<kDependent>(state, set->stream(draw), [client](const apikey_key& key) {
        apikey_verdict verdict;
        const apikey_code code = apikey_validate(client, key.data, key.len, &verdict);
        benchmark::DoNotOptimize(verdict);
        return code;
    });
}

apikey_code answer_of(const Map& map, std::string_view text) {
    const auto found = map.find(text);
    if (found == map.end()) {
        return APIKEY_NOT_FOUND;
    }
    return found->second.state == 0 ? APIKEY_VALID : APIKEY_DISABLED;
}

template <bool kDependent>
void find_by_key(benchmark::State& state, PrivateSet* set, Draw draw) {
    const Map& map = set->by_key();
    one_by_one<kDependent>(state, set->stream(draw), [&map](const apikey_key& key) {
        return answer_of(map, {key.data, key.len});
    });
}

template <bool kDependent>
void find_by_digest(benchmark::State& state, PrivateSet* set, Draw draw) {
    const Map& map = set->by_digest();
    const shm::Sha256Kernel& kernel = shm::sha256_kernel();
    one_by_one<kDependent>(state, set->stream(draw), [&map, &kernel](const apikey_key& key) {
        uint8_t digest[shm::kDigestLength];
        kernel.hash(key.data, key.len, digest);
        return answer_of(map, {reinterpret_cast<const char*>(digest), sizeof digest});
    });
}

void validate_batches(benchmark::State& state, PrivateSet* set, Draw draw, size_t batch) {
    apikey_client* client = set->client();
    const KeyStream& stream = set->stream(draw);
    apikey_verdict verdicts[kBatchMax];
    for (size_t i = 0; i < kWarmUpKeys; i += batch) {
        apikey_validate_many(client, stream.keys() + i % stream.size(), batch, verdicts);
    }
    uint64_t wrong = 0;
    size_t at = 0;
    for (auto _ : state) {
        apikey_validate_many(client, stream.keys() + at, batch, verdicts);
        for (size_t i = 0; i < batch; ++i) {
            wrong += static_cast<Expected>(verdicts[i].code) != stream.expected(at + i) ? 1 : 0;
        }
        at += batch;  // every stream's size is a multiple of every batch
        if (at == stream.size()) {
            at = 0;
        }
    }
    check_answers(state, wrong);
    per_key(state, batch);
}

}  // namespace

void register_validate(const std::vector<uint64_t>& key_counts) {
    for (const uint64_t keys : key_counts) {
        auto* set = new PrivateSet(keys);  // lives as long as the benchmarks: to the end
        for (const Draw draw : kDraws) {
            std::string tail("/");  // appended to: g++ 12 warns of nothing at operator+ with a literal first
            tail.append(std::to_string(keys)).append("/").append(draw_name(draw)).append("/");
            const auto add = [&](const std::string& name, auto function, auto... arguments) {
                benchmark::RegisterBenchmark(name.c_str(), function, set, draw, arguments...);
            };
            add("validate" + tail + "single", validate_keys<false>);
            add("validate" + tail + "dependent", validate_keys<true>);
            for (const size_t batch : kBatches) {
                add("validate" + tail + "batch" + std::to_string(batch), validate_batches, batch);
            }
            add("map_key" + tail + "single", find_by_key<false>);
            add("map_key" + tail + "dependent", find_by_key<true>);
            add("map_digest" + tail + "single", find_by_digest<false>);
            add("map_digest" + tail + "dependent", find_by_digest<true>);
        }
    }
}

}  // namespace apikey::bench
