// What no validation on this machine can do without, so that a target that is missed can be told from one
// that cannot be reached.
//
//   floor/<keys>/single    for each key of the stream that validate/<keys>/hit_uniform presents: the coarse
//                          clock, the CPU's number, the index hash, SHA-256, one line of memory as large as
//                          the slots, one locked add in memory as large as the cells. Nothing is compared or
//                          told.
//   floor/<keys>/miss      the same for an unknown key, of validate/<keys>/miss: the checksum in place of
//   what
//                          is its own in the cells
//   floor/<keys>/batch16   as single for 16 keys at a time, with one clock and CPU number and SHA-256 by twos
//   line/<keys>/dependent  one line of memory as large as the slots, whose place hangs on the line before
//   clock_coarse, cpu_number, locked_add: each alone

#include "bench/micro_floor.h"

#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <map>
#include <string>

#include "bench/micro_loops.h"
#include "bench/temporary_directory.h"
#include "shm/cells.h"
#include "shm/index_hash.h"
#include "shm/map_file.h"
#include "shm/segment.h"
#include "shm/sha256.h"
#include "shm/table_reader.h"
#include "shm/table_writer.h"

namespace apikey::bench {
namespace {

constexpr size_t kBatch = 16;
constexpr uint64_t kSeed = 1;

/// Shared memory of zeros, mapped as a client maps a table: 2 MiB pages where they can be had, populated.
/// Kept until the program ends.
template <typename T>
T* map_area(uint64_t count) {
    const TemporaryDirectory directory;
    const shm::FileHandle folder(open(directory.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    const auto file =
        shm::Segment::create(folder.get(), "floor", count * sizeof(T), S_IRUSR | S_IWUSR, getegid());
    void* area = MAP_FAILED;
    if (file) {
        file->use_huge_pages();
        area = shm::map_file(file->fd(), file->bytes(), PROT_READ | PROT_WRITE);
    }
    if (area == MAP_FAILED) {
        std::fprintf(stderr, "micro: no memory for the floor\n");
        std::exit(1);
    }
    madvise(area, file->bytes(), MADV_POPULATE_WRITE);
    return static_cast<T*>(area);
}

/// As much memory as a table of so many keys touches.
struct Area {
    explicit Area(uint64_t keys)
        : slots(shm::TableGeometry::for_keys(keys, 0, {}).slot_count),
          slot(map_area<shm::Slot>(slots)),
          cell(map_area<shm::Cell>(slots)) {}

    uint64_t slot_of(uint64_t hash) const { return shm::group_of(hash, slots); }

    uint64_t slots;
    shm::Slot* slot;
    shm::Cell* cell;
};

const Area& area_of(const PrivateSet& set) {
    static std::map<uint64_t, Area> areas;
    return areas.try_emplace(set.keys(), set.keys()).first->second;
}

uint64_t clock_now() {
    timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    return static_cast<uint64_t>(now.tv_nsec);
}

void floor_single(benchmark::State& state, PrivateSet* set) {
    const Area& area = area_of(*set);
    const shm::Sha256Kernel& kernel = shm::sha256_kernel();
    one_by_one<false>(state, set->stream(Draw::kHitUniform), [&](const apikey_key& key) {
        uint8_t digest[shm::kDigestLength];
        benchmark::DoNotOptimize(clock_now());
        benchmark::DoNotOptimize(sched_getcpu());
        const uint64_t at = area.slot_of(shm::index_hash_id(shm::native_key_id(key.data, key.len), kSeed));
        __builtin_prefetch(&area.slot[at]);
        __builtin_prefetch(&area.cell[at], 1);
        kernel.hash(key.data, key.len, digest);
        benchmark::DoNotOptimize(digest);
        benchmark::DoNotOptimize(area.slot[at].meta.load(std::memory_order_acquire));
        area.cell[at].allowed.fetch_add(1, std::memory_order_seq_cst);
        return APIKEY_VALID;
    });
}

void floor_miss(benchmark::State& state, PrivateSet* set) {
    const Area& area = area_of(*set);
    const shm::Sha256Kernel& kernel = shm::sha256_kernel();
    one_by_one<false>(state, set->stream(Draw::kMiss), [&](const apikey_key& key) {
        uint8_t digest[shm::kDigestLength];
        benchmark::DoNotOptimize(clock_now());
        benchmark::DoNotOptimize(sched_getcpu());
        const uint64_t at = area.slot_of(shm::index_hash_id(shm::native_key_id(key.data, key.len), kSeed));
        __builtin_prefetch(&area.slot[at]);
        kernel.hash(key.data, key.len, digest);
        benchmark::DoNotOptimize(digest);
        benchmark::DoNotOptimize(area.slot[at].meta.load(std::memory_order_acquire));
        const bool ok = shm::native_key_checksum_ok(key.data, key.len);
        area.cell[0].allowed.fetch_add(1, std::memory_order_seq_cst);
        return ok ? APIKEY_NOT_FOUND : APIKEY_MALFORMED;
    });
}

void floor_batch(benchmark::State& state, PrivateSet* set) {
    const Area& area = area_of(*set);
    const shm::Sha256Kernel& kernel = shm::sha256_kernel();
    const auto answer_all = [&](const apikey_key* keys) {
        uint64_t at[kBatch];
        uint8_t digests[kBatch][shm::kDigestLength];
        benchmark::DoNotOptimize(clock_now());
        benchmark::DoNotOptimize(sched_getcpu());
        for (size_t i = 0; i < kBatch; ++i) {
            at[i] = area.slot_of(shm::index_hash_id(shm::native_key_id(keys[i].data, keys[i].len), kSeed));
            __builtin_prefetch(&area.slot[at[i]]);
        }
        for (size_t i = 0; i < kBatch; i += 2) {
            __builtin_prefetch(&area.cell[at[i]], 1);
            __builtin_prefetch(&area.cell[at[i + 1]], 1);
            kernel.hash_pair(keys[i].data, keys[i].len, digests[i], keys[i + 1].data, keys[i + 1].len,
                             digests[i + 1]);
        }
        benchmark::DoNotOptimize(digests);
        for (const uint64_t index : at) {
            benchmark::DoNotOptimize(area.slot[index].meta.load(std::memory_order_acquire));
        }
        for (const uint64_t index : at) {
            area.cell[index].allowed.fetch_add(1, std::memory_order_seq_cst);
        }
    };
    in_batches(state, set->stream(Draw::kHitUniform), kBatch, answer_all,
               [](size_t) { return APIKEY_VALID; });
}

void line_dependent(benchmark::State& state, PrivateSet* set) {
    const Area& area = area_of(*set);
    uint64_t hash = kSeed;
    for (auto _ : state) {
        // The memory is zero, which only the loads know.
        hash = hash * 0x5851f42d4c957f2d + 0x14057b7ef767814f + area.slot[area.slot_of(hash)].digest[0];
    }
    benchmark::DoNotOptimize(hash);
    per_key(state, 1);
}

void clock_coarse(benchmark::State& state) {
    for (auto _ : state) {
        benchmark::DoNotOptimize(clock_now());
    }
    per_key(state, 1);
}

void cpu_number(benchmark::State& state) {
    for (auto _ : state) {
        benchmark::DoNotOptimize(sched_getcpu());
    }
    per_key(state, 1);
}

void locked_add(benchmark::State& state) {
    alignas(64) static shm::Word word;
    for (auto _ : state) {
        word.fetch_add(1, std::memory_order_seq_cst);
    }
    per_key(state, 1);
}

BENCHMARK(clock_coarse);
BENCHMARK(cpu_number);
BENCHMARK(locked_add);

}  // namespace

void register_floor(const std::vector<PrivateSet*>& sets) {
    for (PrivateSet* set : sets) {
        const std::string size = std::to_string(set->keys());
        benchmark::RegisterBenchmark(std::string("floor/").append(size).append("/single").c_str(),
                                     floor_single, set);
        benchmark::RegisterBenchmark(std::string("floor/").append(size).append("/miss").c_str(), floor_miss,
                                     set);
        benchmark::RegisterBenchmark(std::string("floor/").append(size).append("/batch16").c_str(),
                                     floor_batch, set);
        benchmark::RegisterBenchmark(std::string("line/").append(size).append("/dependent").c_str(),
                                     line_dependent, set);
    }
}

}  // namespace apikey::bench
