// What a second process takes from the first: another one that validates, and a daemon that changes the
// table.
//
// Throughput of processes that validate known keys one by one, each on a CPU of its own, and of processes
// that hash the same keys and do nothing else: these share no memory, so what two of them do less than twice
// as much as one is the machine's. The writer is the daemon's publisher on its loop, at kChanges_per_s; it
// moves the expiry of keys all over the table, so that every key stays valid. It writes the table that is
// read, or another one of the same size: what the latter takes is not the shared lines' doing.
//
// Cases alternate. `ratio` is to one process alone, both from the same repetition, `floor` the ratio of the
// case that does the same without sharing; all are medians, and of ratios the quartiles are told. Every
// verdict is compared with the right one, every hash with one made before, and the total of VALID must grow
// by the number of answers.

#include <sched.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "bench/serving_crew.h"
#include "bench/serving_instance.h"
#include "bench/serving_run.h"
#include "bench/temporary_directory.h"
#include "shm/cells.h"
#include "shm/sha256.h"

namespace apikey::bench {
namespace {

using apikeyd::Change;

constexpr uint32_t kProcesses = 2;
constexpr uint64_t kSmallTableKeys = 20'000;
constexpr size_t kCallsBetweenLooks = 256;  // at whether the step has ended; a stream's size is a multiple
constexpr double kChanges_per_s = 100'000;
constexpr size_t kChangedKeys = 10'000;
constexpr std::chrono::milliseconds kTick{1};  // of the writer
constexpr uint32_t kRoundsPerRepetition = 3;   // of `--repetitions`: ratios near 1 want many

enum class Work : uint8_t { kHash, kValidate };
enum class Written : uint8_t { kNothing, kThisTable, kAnotherTable };

constexpr uint32_t kNone = UINT32_MAX;
struct Case {
    const char* name;
    Work work;
    uint32_t processes;
    Written written;
    uint32_t alone;  ///< the case that `ratio` is to
    uint32_t floor;  ///< the case that does the same and shares nothing
};
constexpr Case kCases[] = {
    {"hashes, 1 process", Work::kHash, 1, Written::kNothing, 0, kNone},
    {"hashes, 2 processes", Work::kHash, 2, Written::kNothing, 0, kNone},
    {"1 process", Work::kValidate, 1, Written::kNothing, 2, kNone},
    {"2 processes", Work::kValidate, 2, Written::kNothing, 2, 1},
    {"beside a writer of another table", Work::kValidate, 1, Written::kAnotherTable, 2, kNone},
    {"beside the writer", Work::kValidate, 1, Written::kThisTable, 2, 4},
};
constexpr size_t kCaseCount = std::size(kCases);

struct alignas(64) Tally {
    uint64_t done;
    uint64_t took_ns;
};

struct PairArea {
    std::atomic<uint32_t> go;
    Tally tallies[kProcesses];
};

/// The calling thread, and no other, on the nth of the CPUs that it may use; where there are fewer, on any.
class OnCpu {
  public:
    explicit OnCpu(uint32_t nth) {
        if (sched_getaffinity(0, sizeof before_, &before_) != 0) {
            return;
        }
        cpu_set_t one;
        CPU_ZERO(&one);
        for (size_t cpu = 0, seen = 0; cpu < CPU_SETSIZE; ++cpu) {
            if (CPU_ISSET(cpu, &before_) && seen++ == nth) {
                CPU_SET(cpu, &one);
            }
        }
        moved_ = sched_setaffinity(0, sizeof one, &one) == 0;
    }
    ~OnCpu() {
        if (moved_) {
            sched_setaffinity(0, sizeof before_, &before_);
        }
    }
    OnCpu(const OnCpu&) = delete;
    OnCpu& operator=(const OnCpu&) = delete;

  private:
    cpu_set_t before_{};
    bool moved_ = false;
};

uint64_t first_bytes(const apikey_key& key) {
    uint8_t digest[32];
    shm::sha256_kernel().hash(key.data, key.len, digest);
    uint64_t bytes = 0;
    std::memcpy(&bytes, digest, sizeof bytes);
    return bytes;
}

/// Calls one(number in the stream) until the step ends.
template <typename One>
void work_until_stopped(const Crew::Step& step, const KeyStream& stream, PairArea* area, One one) {
    Tally& tally = area->tallies[step.process()];
    tally = {};
    step.ready();
    while (area->go.load(std::memory_order_acquire) == 0) {
        if (step.stopped()) {
            return;
        }
    }
    const uint64_t began_ns = monotonic_ns();
    uint64_t done = 0;
    for (; !step.stopped(); done += kCallsBetweenLooks) {
        for (size_t i = 0; i < kCallsBetweenLooks; ++i) {
            one((done + i) % stream.size());
        }
    }
    tally = {done, monotonic_ns() - began_ns};
}

void hash_keys(const Crew::Step& step, const KeyStream& stream, PairArea* area) {
    std::vector<uint64_t> right;
    for (size_t i = 0; i < stream.size(); ++i) {
        right.push_back(first_bytes(stream.key(i)));
    }
    work_until_stopped(step, stream, area, [&](size_t at) {
        if (first_bytes(stream.key(at)) != right[at]) [[unlikely]] {
            step.wrong("pair: number " + std::to_string(at) + " of the stream: another hash than before");
        }
    });
}

void validate_keys(const Crew::Step& step, const KeyStream& stream, PairArea* area) {
    apikey_client* client = step.open_client();
    work_until_stopped(step, stream, area, [&](size_t at) {
        apikey_verdict verdict;
        const apikey_code code = apikey_validate(client, stream.key(at).data, stream.key(at).len, &verdict);
        if (code != APIKEY_VALID) [[unlikely]] {
            step.wrong(wrong_words("pair", "number " + std::to_string(at) + " of the stream", code, "VALID"));
        }
    });
    apikey_close(client);
}

/// Makes changes at its rate while it exists and the loop runs.
class Writer {
  public:
    Writer(apikeyd::Loop& loop, apikeyd::Publisher& publisher, std::vector<Change>& changes)
        : loop_(loop), publisher_(publisher), changes_(changes), began_ns_(monotonic_ns()) {
        timer_ = loop_.every(kTick, [this] { make_due(); });
    }
    ~Writer() { loop_.cancel(timer_); }
    Writer(const Writer&) = delete;
    Writer& operator=(const Writer&) = delete;

    /// False once a change has found no room.
    bool keeps_up() const { return keeps_up_; }
    double rate_per_s() const {
        return static_cast<double>(made_) / (static_cast<double>(monotonic_ns() - began_ns_) * 1e-9);
    }

  private:
    void make_due() {
        const double due = static_cast<double>(monotonic_ns() - began_ns_) * 1e-9 * kChanges_per_s;
        while (static_cast<double>(made_) < due) {
            Change& change = changes_[made_++ % changes_.size()];
            change.row.expires_s = *change.row.expires_s + 1;
            keeps_up_ &= publisher_.make(change);
        }
    }

    apikeyd::Loop& loop_;
    apikeyd::Publisher& publisher_;
    std::vector<Change>& changes_;
    uint64_t began_ns_;
    uint64_t made_ = 0;
    bool keeps_up_ = true;
    apikeyd::TimerId timer_;
};

std::vector<Change> changes_all_over(uint64_t keys) {
    constexpr int64_t kNextCentury_s = 4'102'444'800;
    const size_t count = std::min<uint64_t>(kChangedKeys, keys);
    std::vector<Change> changes;
    for (size_t i = 0; i < count; ++i) {
        changes.push_back({Change::Kind::kUpsert, row_of_key(i * (keys / count))});
        changes.back().row.expires_s = kNextCentury_s;
    }
    return changes;
}

/// One table, its twin that nobody reads, and what was measured on them.
class Pair {
  public:
    Pair(const ServingOptions& options, uint64_t keys)
        : options_(options),
          keys_(keys),
          stream_(make_stream(keys)),
          crew_(directory_.path(), kProcesses, [this](const Crew::Step& step) { work(step); }),
          instance_(directory_.path(), keys, kShardsBudgetBytes, crew_),
          twin_(twin_directory_.path(), keys, kShardsBudgetBytes, crew_),
          changes_(changes_all_over(keys)) {}

    void measure();
    void add_rows(const std::string& words, FigureTable* table) const;

  private:
    /// In the crew's processes, which were forked before the members below crew_ existed.
    void work(const Crew::Step& step);
    double run_case(const Case& how);

    const ServingOptions& options_;
    uint64_t keys_;
    KeyStream stream_;
    TemporaryDirectory directory_;
    TemporaryDirectory twin_directory_;
    Shared<PairArea> area_;
    Crew crew_;
    ServingInstance instance_;
    ServingInstance twin_;
    std::vector<Change> changes_;
    std::vector<double> keys_per_s_[kCaseCount];
    std::vector<double> changes_per_s_[kCaseCount];
};

void Pair::work(const Crew::Step& step) {
    const Case& how = kCases[step.number()];
    if (step.process() >= how.processes) {
        return;
    }
    const OnCpu pinned(step.process());
    how.work == Work::kHash ? hash_keys(step, stream_, &*area_) : validate_keys(step, stream_, &*area_);
}

/// Keys a second of all its processes.
double Pair::run_case(const Case& how) {
    const auto number = static_cast<uint32_t>(&how - kCases);
    const uint64_t counted_before = shm::sum_code(instance_.publisher().current()->cells(), APIKEY_VALID);
    area_->go.store(0, std::memory_order_relaxed);
    crew_.begin(number);
    instance_.run_until([&] { return crew_.ready() == how.processes; });
    area_->go.store(1, std::memory_order_release);
    {
        const OnCpu pinned(kProcesses - 1);
        std::optional<Writer> writer;
        if (how.written != Written::kNothing) {
            writer.emplace(instance_.loop(),
                           (how.written == Written::kThisTable ? instance_ : twin_).publisher(), changes_);
        }
        instance_.run_for(options_.seconds);
        if (writer && !writer->keeps_up()) {
            throw RunEnded(kUnreachable, "pair: a change finds no room");
        }
        changes_per_s_[number].push_back(writer ? writer->rate_per_s() : 0);
    }
    crew_.end();
    uint64_t answers = 0;
    double keys_per_s = 0;
    for (const Tally& tally : std::span(area_->tallies, how.processes)) {
        answers += tally.done;
        keys_per_s += static_cast<double>(tally.done) / (static_cast<double>(tally.took_ns) * 1e-9);
    }
    const uint64_t counted =
        shm::sum_code(instance_.publisher().current()->cells(), APIKEY_VALID) - counted_before;
    if (const uint64_t right = how.work == Work::kValidate ? answers : 0; counted != right) {
        throw RunEnded(kWrong, "WRONG: pair: " + std::to_string(right) + " VALID answers, but " +
                                   std::to_string(counted) + " were counted");
    }
    return keys_per_s;
}

void Pair::measure() {
    for (uint32_t round = 0; round < options_.repetitions * kRoundsPerRepetition; ++round) {
        for (const Case& how : kCases) {
            keys_per_s_[&how - kCases].push_back(run_case(how));
        }
    }
}

void Pair::add_rows(const std::string& words, FigureTable* table) const {
    double ratios[kCaseCount];
    Quartiles spread[kCaseCount];
    for (size_t number = 0; number < kCaseCount; ++number) {
        const std::vector<double>& alone = keys_per_s_[kCases[number].alone];
        std::vector<double> of_rounds;
        for (size_t round = 0; round < alone.size(); ++round) {
            of_rounds.push_back(keys_per_s_[number][round] / alone[round]);
        }
        ratios[number] = median(of_rounds);
        spread[number] = quartiles(of_rounds);
    }
    for (size_t number = 0; number < kCaseCount; ++number) {
        const uint32_t floor = kCases[number].floor;
        table->rows.push_back({words + ", " + kCases[number].name,
                               {{"keys", static_cast<double>(keys_)},
                                {"keys_per_s", median(keys_per_s_[number])},
                                {"changes_per_s", median(changes_per_s_[number])},
                                {"ratio", ratios[number]},
                                {"lower_quartile", spread[number].lower},
                                {"upper_quartile", spread[number].upper},
                                {"floor", floor == kNone ? 0 : ratios[floor]}}});
    }
}

}  // namespace

std::vector<FigureTable> measure_pair(const ServingOptions& options) {
    FigureTable table{"pair", "Throughput beside another process; ratio to one alone", {}};
    for (const auto& [words, keys] :
         {std::pair("small table", std::min(kSmallTableKeys, options.keys)), {"large table", options.keys}}) {
        Pair pair(options, keys);
        pair.measure();
        pair.add_rows(words, &table);
    }
    return {table};
}

}  // namespace apikey::bench
