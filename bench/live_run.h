// A run against a live daemon: what is asked for, what is measured, and the memory in which the processes
// that take part leave it for the one that started them.

#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bench/exit_status.h"
#include "bench/histogram.h"
#include "bench/key_stream.h"
#include "shm/instance_place.h"

namespace apikey::bench {

/// Bounds of the options, each stated here and nowhere else.
inline constexpr uint32_t kProcessesMax = 256;
inline constexpr uint32_t kThreadsMax = 256;
inline constexpr uint32_t kBatchMax = 1024;
inline constexpr double kSecondsMax = 86'400;
inline constexpr uint32_t kWriterRateMax_per_s = 100'000;

struct LiveOptions {
    std::string directory;  ///< base directory of the instances; never empty
    std::string instance = shm::kInstanceDefault;
    std::string keys_path;
    uint32_t processes = 1;
    uint32_t threads = 1;
    double seconds = 10;
    uint32_t batch = 1;  ///< 1: single calls
    uint32_t misses_percent = 0;
    double zipf_theta = 0;  ///< 0: uniform
    uint32_t writer_rate_per_s = 0;
    std::string json_path;
};

/// The keys that are presented.
struct KeyRing {
    std::vector<char> bytes;          ///< of the known ones; moved with the ring, never copied
    std::vector<char> unknown_bytes;  ///< the same
    std::vector<apikey_key> known;    ///< in the file's order; line i + 1
    std::vector<apikey_key> unknown;  ///< of the native form, made here, in no key set
    size_t switched = 0;              ///< so many of the first known ones belong to the writer
};

/// What one thread has seen. Written by it alone; read when its process has ended.
struct alignas(64) ThreadTally {
    uint64_t keys;
    uint64_t ran_ns;
    uint64_t codes[16];
    Histogram sample_ticks;
};

struct WriterTally {
    uint64_t changes;
    uint64_t requests;
    uint64_t ran_ns;
    Histogram request_us;
};

/// A verdict that should not have been. The key is named by its place, never by its text.
struct WrongVerdict {
    std::atomic<uint32_t> claimed;
    uint32_t code;
    uint32_t expected;
    uint32_t is_known;
    uint64_t number;  ///< of the key in its list of the ring
};

/// Zeroed, shared and anonymous: mapped before the processes are forked.
struct SharedArea {
    std::atomic<uint32_t> ready;  ///< threads, and the writer, that wait for `go`
    std::atomic<uint32_t> go;
    std::atomic<uint32_t> stop;
    WrongVerdict wrong;
    WriterTally writer;
    ThreadTally* threads;  ///< processes x threads, behind this struct; forked processes share the address
};
static_assert(std::atomic<uint32_t>::is_always_lock_free);

/// How many keys are timed as one sample: 8 single calls, or batches of at least 8 keys together.
uint32_t keys_per_sample(uint32_t batch);

/// One forked process with its threads, from attaching to the end. Returns its exit status.
int run_process(const LiveOptions& options, const KeyRing& ring, uint32_t process, SharedArea* area);

/// The forked writer. Returns its exit status; what it switched off is on again then.
int run_writer(const LiveOptions& options, const KeyRing& ring, SharedArea* area, pid_t parent);

/// Opens a client as `options` says; nullptr after a message on standard error.
apikey_client* open_client(const LiveOptions& options);

/// Waits for `go`. False when the run was stopped before it began.
bool wait_for_go(SharedArea* area);

}  // namespace apikey::bench
