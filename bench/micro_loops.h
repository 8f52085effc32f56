// How keys are presented and timed: the same loops for libapikey and for everything it is measured beside.

#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "bench/histogram.h"
#include "bench/key_stream.h"
#include "bench/tick_clock.h"

namespace apikey::bench {

/// Presented before timing starts, to bring caches and page tables back from the benchmark before.
inline constexpr size_t kWarmUpKeys = 1 << 16;

/// A wrong answer makes every figure worthless: it ends the program.
inline void check_answers(const benchmark::State& state, uint64_t wrong) {
    if (wrong != 0) {
        std::fprintf(stderr, "micro: %llu wrong answers in %llu iterations\n",
                     static_cast<unsigned long long>(wrong),
                     static_cast<unsigned long long>(state.iterations()));
        std::exit(1);
    }
}

/// The figure that is compared: the time of one key, whatever an iteration presents.
inline void per_key(benchmark::State& state, size_t keys) {
    state.counters["each"] =
        benchmark::Counter(static_cast<double>(state.iterations()) * static_cast<double>(keys),
                           benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

/// Presents the stream's keys one by one to `answer`, a function from apikey_key to apikey_code.
/// `kDependent`: the next position is computed from the last answer.
template <bool kDependent, typename Answer>
void one_by_one(benchmark::State& state, const KeyStream& stream, Answer answer,
                size_t warm_up_keys = kWarmUpKeys) {
    for (size_t i = 0; i < warm_up_keys; ++i) {
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

/// Presents `batch` keys at a time to `answer_all`, a function of the first of them; afterwards `code_at(i)`
/// is what number i of them was answered.
template <typename AnswerAll, typename CodeAt>
void in_batches(benchmark::State& state, const KeyStream& stream, size_t batch, AnswerAll answer_all,
                CodeAt code_at, size_t warm_up_keys = kWarmUpKeys) {
    for (size_t i = 0; i < warm_up_keys; i += batch) {
        answer_all(stream.keys() + i % stream.size());
    }
    uint64_t wrong = 0;
    size_t at = 0;
    for (auto _ : state) {
        answer_all(stream.keys() + at);
        for (size_t i = 0; i < batch; ++i) {
            wrong += static_cast<Expected>(code_at(i)) != stream.expected(at + i) ? 1 : 0;
        }
        at += batch;  // every stream's size is a multiple of every batch
        if (at == stream.size()) {
            at = 0;
        }
    }
    check_answers(state, wrong);
    per_key(state, batch);
}

/// As one_by_one(), and reports percentiles of the time of a call as counters in ns. `kGroup` calls are timed
/// together: a clock that costs as much as what it times tells nothing about one call alone.
template <size_t kGroup, typename Answer>
void percentiles(benchmark::State& state, const KeyStream& stream, Answer answer,
                 size_t warm_up_keys = kWarmUpKeys) {
    for (size_t i = 0; i < warm_up_keys; ++i) {
        benchmark::DoNotOptimize(answer(stream.key(i % stream.size())));
    }
    const auto times = std::make_unique<Histogram>();
    const TickClock clock;
    const uint64_t step_ticks = clock.step_ticks();
    uint64_t wrong = 0;
    size_t at = 0;
    uint64_t before = clock.now();
    for (auto _ : state) {
        for (size_t i = 0; i < kGroup; ++i) {
            wrong += static_cast<Expected>(answer(stream.key(at + i))) != stream.expected(at + i) ? 1 : 0;
        }
        at += kGroup;
        if (at == stream.size()) {
            at = 0;
        }
        const uint64_t after = clock.now();
        times->add(after - before);
        before = after;
    }
    check_answers(state, wrong);
    const double ns_per_tick = clock.ns_per_tick();
    const auto report = [&](const char* name, double share) {
        state.counters[name] =
            static_cast<double>(times->percentile(share)) * ns_per_tick / static_cast<double>(kGroup);
    };
    report("p50_ns", 0.5);
    report("p90_ns", 0.9);
    report("p99_ns", 0.99);
    report("p99_9_ns", 0.999);
    report("p99_99_ns", 0.9999);
    state.counters["group"] = static_cast<double>(kGroup);
    state.counters["step_ns"] = static_cast<double>(step_ticks) * ns_per_tick;
}

}  // namespace apikey::bench
