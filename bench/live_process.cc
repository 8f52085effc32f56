// The validating side of a run: threads that present keys as fast as they can, time them and check every
// verdict.

#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>

#include "bench/live_run.h"
#include "bench/tick_clock.h"

namespace apikey::bench {
namespace {

constexpr uint32_t kCallsPerSample = 8;
constexpr size_t kStreamKeysMax = size_t{1} << 18;
constexpr size_t kStreamBytesMax = size_t{64} << 20;

/// A stream and, for naming a wrong verdict, where each of its keys came from.
struct Presentation {
    KeyStream stream;
    std::vector<uint32_t> numbers;
};

Presentation make_presentation(const LiveOptions& options, const KeyRing& ring, const KeyPicker& picker,
                               uint64_t seed, size_t unit) {
    std::mt19937_64 random(seed);
    const size_t size = std::max(kStreamKeysMax / unit, size_t{1}) * unit;
    Presentation made;
    made.stream.reserve(size, 0);
    made.numbers.reserve(size);
    size_t bytes = 0;
    while (made.numbers.size() < size && (bytes < kStreamBytesMax || made.numbers.size() % unit != 0)) {
        const bool miss = random() % 100 < options.misses_percent;
        const uint64_t number = miss ? random() % ring.unknown.size() : picker.pick(random);
        const apikey_key& key = miss ? ring.unknown[number] : ring.known[number];
        const Expected known = number < ring.switched ? kValidOrDisabled : Expected{APIKEY_VALID};
        made.stream.add({key.data, key.len}, miss ? Expected{APIKEY_NOT_FOUND} : known);
        made.numbers.push_back(static_cast<uint32_t>(number));
        bytes += key.len;
    }
    made.stream.seal();
    return made;
}

void report_wrong(SharedArea* area, const Presentation& presented, size_t at, apikey_code code) {
    if (area->wrong.claimed.exchange(1, std::memory_order_relaxed) == 0) {
        area->wrong.code = static_cast<uint32_t>(code);
        area->wrong.expected = presented.stream.expected(at);
        area->wrong.is_known = presented.stream.expected(at) != APIKEY_NOT_FOUND ? 1 : 0;
        area->wrong.number = presented.numbers[at];
    }
    area->stop.store(1, std::memory_order_relaxed);  // what was written is read after this process's end
}

/// Presents one sample from `at` on; verdicts go to `verdicts`.
void present_sample(apikey_client* client, const KeyStream& stream, size_t at, uint32_t batch, size_t unit,
                    apikey_verdict* verdicts) {
    if (batch == 1) {
        for (size_t i = 0; i < unit; ++i) {
            const apikey_key& key = stream.key(at + i);
            apikey_validate(client, key.data, key.len, &verdicts[i]);
        }
        return;
    }
    for (size_t i = 0; i < unit; i += batch) {
        apikey_validate_many(client, stream.keys() + at + i, batch, verdicts + i);
    }
}

void run_thread(const LiveOptions& options, apikey_client* client, const Presentation& presented,
                const TickClock& clock, SharedArea* area, ThreadTally* tally) {
    const KeyStream& stream = presented.stream;
    const size_t unit = keys_per_sample(options.batch);
    std::vector<apikey_verdict> verdicts(unit);
    area->ready.fetch_add(1, std::memory_order_relaxed);
    if (!wait_for_go(area)) {
        return;
    }
    const uint64_t began_ns = monotonic_ns();
    size_t at = 0;
    while (area->stop.load(std::memory_order_relaxed) == 0) {
        const uint64_t before = clock.now();
        present_sample(client, stream, at, options.batch, unit, verdicts.data());
        tally->sample_ticks.add(clock.now() - before);
        for (size_t i = 0; i < unit; ++i) {
            const apikey_code code = verdicts[i].code;
            ++tally->codes[static_cast<uint32_t>(code) % std::size(tally->codes)];
            if (!is_right(code, stream.expected(at + i))) [[unlikely]] {
                report_wrong(area, presented, at + i, code);
            }
        }
        tally->keys += unit;
        at += unit;
        if (at == stream.size()) {
            at = 0;
        }
    }
    tally->ran_ns = monotonic_ns() - began_ns;
}

}  // namespace

uint32_t keys_per_sample(uint32_t batch) {
    return (kCallsPerSample + batch - 1) / batch * batch;
}

bool wait_for_go(SharedArea* area) {
    constexpr timespec kPause{0, 1'000'000};
    while (area->go.load(std::memory_order_acquire) == 0) {
        if (area->stop.load(std::memory_order_relaxed) != 0) {
            return false;
        }
        nanosleep(&kPause, nullptr);
    }
    return true;
}

apikey_client* open_client(const LiveOptions& options) {
    apikey_options how{};
    how.size = sizeof how;
    how.directory = options.directory.c_str();
    how.instance = options.instance.c_str();
    apikey_client* client = nullptr;
    const apikey_result opened = apikey_open(&how, &client);
    if (opened != APIKEY_OK) {
        std::fprintf(stderr, "apikey-bench: %s/%s: %s\n", options.directory.c_str(), options.instance.c_str(),
                     apikey_result_text(opened));
        apikey_close(client);
        return nullptr;
    }
    return client;
}

int run_process(const LiveOptions& options, const KeyRing& ring, uint32_t process, SharedArea* area) {
    apikey_client* client = open_client(options);
    if (client == nullptr) {
        return kUnreachable;
    }
    const KeyPicker picker(ring.known.size(), options.zipf_theta);
    std::vector<Presentation> presented;
    for (uint32_t thread = 0; thread < options.threads; ++thread) {
        presented.push_back(make_presentation(options, ring, picker, process * kThreadsMax + thread,
                                              keys_per_sample(options.batch)));
    }
    const TickClock clock;
    std::vector<std::thread> threads;
    for (uint32_t thread = 0; thread < options.threads; ++thread) {
        threads.emplace_back(run_thread, std::cref(options), client, std::cref(presented[thread]),
                             std::cref(clock), area, &area->threads[process * options.threads + thread]);
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    apikey_close(client);
    return kDone;
}

}  // namespace apikey::bench
