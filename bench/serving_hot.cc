// What counting costs when everybody validates the same key at once.
//
// One hot key is validated by one thread, by two threads of one process, and by two processes: on a table
// whose cells are sharded by CPU, as the builder makes small ones, and on one with a single cell a key, as it
// makes large ones; and where the key has a rate, whose one word all of them take from. A figure is the mean
// time of a call of a thread; on `ratio` see the time that one thread takes. Repetitions of the cases
// alternate; figures are medians.
//
// The key's cells, summed over the shards, must have grown by the number of VALID answers, and so must the
// total of that verdict code: one lost or doubled count ends the run.

#include <thread>

#include "bench/generated_keys.h"
#include "bench/serving_crew.h"
#include "bench/serving_instance.h"
#include "bench/serving_run.h"
#include "bench/temporary_directory.h"
#include "core/table_rows.h"
#include "shm/cells.h"

namespace apikey::bench {
namespace {

constexpr uint32_t kProcesses = 2;
constexpr uint32_t kThreadsMax = 2;
constexpr uint64_t kHotKey = 1;
constexpr uint64_t kSmallTableKeys = 1000;
constexpr uint64_t kCallsBetweenLooks = 1024;  // at whether the step has ended

struct Case {
    const char* name;
    uint32_t threads[kProcesses];  ///< of each process
};
constexpr Case kCases[] = {
    {"1 thread", {1, 0}},
    {"2 threads", {2, 0}},
    {"2 processes", {1, 1}},
};

struct alignas(64) ThreadTally {
    uint64_t calls;
    uint64_t took_ns;
};

struct HotArea {
    std::atomic<uint32_t> go;
    ThreadTally tallies[kProcesses][kThreadsMax];
};

void validate_hot(const Crew::Step& step, apikey_client* client, const HotArea* area, ThreadTally* tally) {
    const GeneratedKey key = known_key(kHotKey);
    *tally = {};
    step.ready();
    while (area->go.load(std::memory_order_acquire) == 0) {
        if (step.stopped()) {
            return;
        }
    }
    const uint64_t began_ns = monotonic_ns();
    while (!step.stopped()) {
        for (uint64_t i = 0; i < kCallsBetweenLooks; ++i) {
            apikey_verdict verdict;
            const apikey_code code = apikey_validate(client, key.data(), key.size(), &verdict);
            if (code != APIKEY_VALID) [[unlikely]] {
                step.wrong(wrong_words("hot", "the hot key", code, "VALID"));
            }
        }
        tally->calls += kCallsBetweenLooks;
    }
    tally->took_ns = monotonic_ns() - began_ns;
}

void run_case(const Crew::Step& step, HotArea* area) {
    const uint32_t wanted = kCases[step.number()].threads[step.process()];
    if (wanted == 0) {
        return;
    }
    apikey_client* client = step.open_client();
    std::vector<std::thread> threads;
    for (uint32_t i = 0; i < wanted; ++i) {
        threads.emplace_back(validate_hot, std::cref(step), client, area, &area->tallies[step.process()][i]);
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    apikey_close(client);
}

shm::Found find_hot(const shm::TableView& table) {
    const apikeyd::KeyRow row = row_of_key(kHotKey);
    return shm::find_slot(table, row_hash(row, table.hash_seed), row_digest(row));
}

struct Counted {
    uint64_t of_key;
    uint64_t of_code;
};

Counted counted(ServingInstance& instance) {
    const shm::Generation& generation = *instance.publisher().current();
    const shm::Found found = find_hot(generation.table().view());
    return {shm::sum_cell(generation.cells(), found.index).allowed,
            shm::sum_code(generation.cells(), APIKEY_VALID)};
}

void check_counts(const Counted& before, const Counted& after, uint64_t answers) {
    if (after.of_key - before.of_key != answers || after.of_code - before.of_code != answers) {
        throw RunEnded(kWrong,
                       "WRONG: hot: " + std::to_string(answers) + " VALID answers, but the cells grew by " +
                           std::to_string(after.of_key - before.of_key) + " and the code's total by " +
                           std::to_string(after.of_code - before.of_code));
    }
}

/// The mean time of a call of one thread.
double measure_case(const ServingOptions& options, uint32_t number, ServingInstance& instance, Crew& crew,
                    HotArea& area, uint64_t* answers_of_all) {
    const Case& how = kCases[number];
    const Counted before = counted(instance);
    area.go.store(0, std::memory_order_relaxed);
    crew.begin(number);
    instance.run_until([&] { return crew.ready() == how.threads[0] + how.threads[1]; });
    area.go.store(1, std::memory_order_release);
    instance.run_for(options.seconds);
    crew.end();
    uint64_t answers = 0;
    uint64_t took_ns = 0;
    for (uint32_t process = 0; process < kProcesses; ++process) {
        for (uint32_t i = 0; i < how.threads[process]; ++i) {
            answers += area.tallies[process][i].calls;
            took_ns += area.tallies[process][i].took_ns;
        }
    }
    check_counts(before, counted(instance), answers);
    *answers_of_all += answers;
    return static_cast<double>(took_ns) / static_cast<double>(answers);
}

enum class HotKey : uint8_t { kUnlimited, kLimited };

void measure_table(const ServingOptions& options, const char* words, uint64_t keys, uint64_t shards_budget,
                   HotKey hot, FigureTable* table) {
    const TemporaryDirectory directory;
    const Shared<HotArea> area;
    Crew crew(directory.path(), kProcesses, [&](const Crew::Step& step) { run_case(step, &*area); });
    ServingInstance instance(directory.path(), keys, shards_budget, crew);
    if (hot == HotKey::kLimited) {
        instance.limit_key(kHotKey);
    }
    std::vector<double> times[std::size(kCases)];
    uint64_t answers[std::size(kCases)] = {};
    for (uint32_t repetition = 0; repetition < options.repetitions; ++repetition) {
        for (uint32_t number = 0; number < std::size(kCases); ++number) {
            times[number].push_back(measure_case(options, number, instance, crew, *area, &answers[number]));
        }
    }
    const shm::Generation& generation = *instance.publisher().current();
    if (hot == HotKey::kLimited &&
        generation.cells().meter(find_hot(generation.table().view()).index, 0).load() == 0) {
        throw RunEnded(kWrong, "WRONG: hot: nothing was taken of the hot key's rate");
    }
    const double alone_ns = median(times[0]);
    for (uint32_t number = 0; number < std::size(kCases); ++number) {
        table->rows.push_back({std::string(words) + ", " + kCases[number].name,
                               {{"shards", instance.publisher().current()->cells().shards},
                                {"keys", static_cast<double>(keys)},
                                {"counted", static_cast<double>(answers[number])},
                                {"call_ns", median(times[number])},
                                {"ratio", median(times[number]) / alone_ns}}});
    }
}

}  // namespace

std::vector<FigureTable> measure_hot(const ServingOptions& options) {
    FigureTable table{"hot", "One hot key: time of a call of each thread; ratio to one thread alone", {}};
    measure_table(options, "sharded", kSmallTableKeys, kShardsBudgetBytes, HotKey::kUnlimited, &table);
    measure_table(options, "sharded, limited", kSmallTableKeys, kShardsBudgetBytes, HotKey::kLimited, &table);
    // A large table has one shard by the builder's own budget; without it so has a small one, in tests.
    measure_table(options, "one cell", options.keys, kNoShards, HotKey::kUnlimited, &table);
    return {table};
}

}  // namespace apikey::bench
