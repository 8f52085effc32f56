// A whole validation by libapikey, from presented bytes to a counted verdict, beside the hash map that a
// server without apikeyd would keep.
//
//   validate/<keys>/<draw>/single       one call a key; calls may overlap in the processor
//   validate/<keys>/<draw>/dependent    which key comes next hangs on the last verdict: nothing overlaps
//   validate/<keys>/<draw>/learnt       calls with the same 32 keys again and again: in the caches, and no
//                                       branch is new to the predictor
//   validate/<keys>/<draw>/batch<n>     apikey_validate_many() with n keys
//   validate/<keys>/<draw>/percentiles  of the time of a call, 8 calls timed together
//   validate_limited/<keys>/<limits>/…  known keys, uniform, that spend: of a rate of their own each, of one
//   that
//                                       all share through their owner, of a rate and a quota
//   validate_4k/…                      the same table on 4 KiB pages, where the daemon asks for 2 MiB ones
//   map_key/…  map_digest/…             boost::unordered_flat_map, private, nothing counted: found by the
//                                       plaintext ('index only'), and by its SHA-256, computed for each call
//
// Draws: hits uniform, hits by a scattered Zipf 0.99, misses of the native form with a right checksum, and
// hits with 5% misses. Every answer is compared with the right one; a wrong one ends the program.

#include "bench/micro_validate.h"

#include <benchmark/benchmark.h>

#include <string>

#include "bench/micro_loops.h"
#include "bench/private_set.h"
#include "shm/sha256.h"

namespace apikey::bench {
namespace {

constexpr size_t kBatchMax = 64;
constexpr size_t kBatches[] = {2, 4, 8, 16, 32, kBatchMax};
constexpr size_t kLearntKeys = 32;
constexpr size_t kGroup = 8;  // calls timed together for percentiles

/// A limited key costs the same lines of the cells whatever the size; ten million four times take 6 GiB.
constexpr uint64_t kLimitedKeysMax = 1'000'000;

/// What one_by_one() asks.
auto validating(apikey_client* client) {
    return [client](const apikey_key& key) {
        apikey_verdict verdict;
        const apikey_code code = apikey_validate(client, key.data, key.len, &verdict);
        benchmark::DoNotOptimize(verdict);
        return code;
    };
}

template <bool kDependent, Pages kPages = Pages::kHuge>
void validate_keys(benchmark::State& state, PrivateSet* set, Draw draw) {
    one_by_one<kDependent>(state, set->stream(draw), validating(set->client(kPages)));
}

void validate_limited(benchmark::State& state, PrivateSet* set, Limits limits) {
    one_by_one<false>(state, set->stream(Draw::kHitUniform), validating(set->limited_client(limits)));
}

void validate_limited_batches(benchmark::State& state, PrivateSet* set, Limits limits) {
    constexpr size_t kBatch = 16;
    apikey_client* client = set->limited_client(limits);
    apikey_verdict verdicts[kBatch];
    in_batches(
        state, set->stream(Draw::kHitUniform), kBatch,
        [&](const apikey_key* keys) { apikey_validate_many(client, keys, kBatch, verdicts); },
        [&](size_t i) { return verdicts[i].code; });
}

void validate_learnt(benchmark::State& state, PrivateSet* set, Draw draw) {
    const KeyStream& all = set->stream(draw);
    KeyStream few;
    few.reserve(kLearntKeys, kLearntKeys * all.key(0).len);
    for (size_t i = 0; i < kLearntKeys; ++i) {
        few.add({all.key(i).data, all.key(i).len}, all.expected(i));
    }
    few.seal();
    one_by_one<false>(state, few, validating(set->client()));
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

template <Pages kPages = Pages::kHuge>
void validate_batches(benchmark::State& state, PrivateSet* set, Draw draw, size_t batch) {
    apikey_client* client = set->client(kPages);
    apikey_verdict verdicts[kBatchMax];
    in_batches(
        state, set->stream(draw), batch,
        [&](const apikey_key* keys) { apikey_validate_many(client, keys, batch, verdicts); },
        [&](size_t i) { return verdicts[i].code; });
}

void validate_percentiles(benchmark::State& state, PrivateSet* set, Draw draw) {
    percentiles<kGroup>(state, set->stream(draw), validating(set->client()));
    const TableBytes bytes = set->table_bytes();
    state.counters["table_bytes"] = static_cast<double>(bytes.all);
    state.counters["huge_bytes"] = static_cast<double>(bytes.huge);
}

void find_percentiles(benchmark::State& state, PrivateSet* set, Draw draw) {
    const Map& map = set->by_key();
    percentiles<kGroup>(state, set->stream(draw), [&map](const apikey_key& key) {
        return answer_of(map, {key.data, key.len});
    });
}

void register_limited(PrivateSet* set) {
    for (const Limits limits : kLimits) {
        std::string name("validate_limited/");
        name.append(std::to_string(set->keys())).append("/").append(limits_name(limits));
        benchmark::RegisterBenchmark((name + "/single").c_str(), validate_limited, set, limits);
        benchmark::RegisterBenchmark((name + "/batch16").c_str(), validate_limited_batches, set, limits);
    }
}

}  // namespace

void register_validate(const std::vector<PrivateSet*>& sets) {
    for (PrivateSet* set : sets) {
        if (set->keys() <= kLimitedKeysMax) {
            register_limited(set);
        }
        for (const Draw draw : kDraws) {
            std::string tail("/");  // appended to: g++ 12 warns of nothing at operator+ with a literal first
            tail.append(std::to_string(set->keys())).append("/").append(draw_name(draw)).append("/");
            const auto add = [&](const std::string& name, auto function, auto... arguments) {
                benchmark::RegisterBenchmark(name.c_str(), function, set, draw, arguments...);
            };
            add("validate" + tail + "single", validate_keys<false>);
            add("validate" + tail + "dependent", validate_keys<true>);
            add("validate" + tail + "learnt", validate_learnt);
            add("validate" + tail + "percentiles", validate_percentiles);
            for (const size_t batch : kBatches) {
                add("validate" + tail + "batch" + std::to_string(batch), validate_batches<>, batch);
            }
            add("validate_4k" + tail + "single", validate_keys<false, Pages::kSmall>);
            add("validate_4k" + tail + "dependent", validate_keys<true, Pages::kSmall>);
            add("validate_4k" + tail + "batch16", validate_batches<Pages::kSmall>, size_t{16});
            add("map_key" + tail + "single", find_by_key<false>);
            add("map_key" + tail + "dependent", find_by_key<true>);
            add("map_key" + tail + "percentiles", find_percentiles);
            add("map_digest" + tail + "single", find_by_digest<false>);
            add("map_digest" + tail + "dependent", find_by_digest<true>);
        }
    }
}

}  // namespace apikey::bench
