// The small benchmarks' main; what they time stands in the files micro_*.cc.

#include <benchmark/benchmark.h>

BENCHMARK_MAIN();
