// What building the next generation costs those who validate meanwhile, and how long a revocation takes.
//
// Throughput: one client process validates known keys, one by one and in batches of 16, first alone and then
// while the worker builds; `ratio` is the throughput during the build to that before it, of the same process.
//
// Revocation: the publisher makes one every other millisecond, for a victim that a client process presents
// as fast as it can, from before the change to the first REVOKED. `made` is the time from the beginning of
// Publisher::make() to its return, `accepted` to the beginning of the last call that still accepted the key.
// A call that began after make() had returned (the client saw the flag that is raised then) must not accept
// the key, and none may refuse it before the change has begun. `loop late` is how long after its time the
// loop came to a revocation: what else the loop does (it publishes, and unmaps the old table) holds up the
// next change. `p99_ratio` compares with the same without a build. Afterwards every victim is presented once
// more, on the new generation.

#include <algorithm>

#include "bench/generated_keys.h"
#include "bench/serving_crew.h"
#include "bench/serving_instance.h"
#include "bench/serving_run.h"
#include "bench/temporary_directory.h"

namespace apikey::bench {
namespace {

using apikeyd::Change;
using apikeyd::KeyState;

constexpr size_t kBatch = 16;
constexpr uint64_t kNewKeys = 1000;  // what is said to have found no room
constexpr uint32_t kSingleCallsBetweenLooks = 16;
constexpr std::chrono::milliseconds kTick{1};  // a revocation takes two

enum Step : uint32_t { kSingle, kBatches, kHammer, kCheckVictims };

struct alignas(64) BuildArea {
    std::atomic<uint64_t> validated;  ///< keys, by the one process

    // Revocations by their numbers from 1: each word says how far it has come.
    alignas(64) std::atomic<uint64_t> asked;     ///< the client is to present this one's victim
    std::atomic<uint64_t> begun;                 ///< make() is about to be called
    std::atomic<uint64_t> made;                  ///< make() has returned
    alignas(64) std::atomic<uint64_t> accepted;  ///< the client has seen VALID
    std::atomic<uint64_t> refused;               ///< it has seen REVOKED, and last_accepted_ns stands
    uint64_t last_accepted_ns;                   ///< beginning of the last call that accepted it
};

/// Victims are revoked in the order of their numbers scattered over the table by the hash.
uint64_t victim(uint64_t revocation) {
    return (revocation - 1) * kKeysPerVictim;
}

void present_singles(const Crew::Step& step, apikey_client* client, const KeyStream& stream,
                     BuildArea* area) {
    uint64_t done = 0;
    while (!step.stopped()) {
        for (uint32_t i = 0; i < kSingleCallsBetweenLooks; ++i) {
            const size_t at = done++ % stream.size();
            apikey_verdict verdict;
            const apikey_code code =
                apikey_validate(client, stream.key(at).data, stream.key(at).len, &verdict);
            if (code != APIKEY_VALID) [[unlikely]] {
                step.wrong(
                    wrong_words("build", "number " + std::to_string(at) + " of the stream", code, "VALID"));
            }
        }
        area->validated.store(done, std::memory_order_relaxed);
    }
}

void present_batches(const Crew::Step& step, apikey_client* client, const KeyStream& stream,
                     BuildArea* area) {
    apikey_verdict verdicts[kBatch];
    uint64_t done = 0;
    while (!step.stopped()) {
        const size_t at = done % stream.size();  // a stream's size is a multiple of the batch
        apikey_validate_many(client, stream.keys() + at, kBatch, verdicts);
        for (size_t i = 0; i < kBatch; ++i) {
            if (verdicts[i].code != APIKEY_VALID) [[unlikely]] {
                step.wrong(wrong_words("build", "number " + std::to_string(at + i) + " of the stream",
                                       verdicts[i].code, "VALID"));
            }
        }
        done += kBatch;
        area->validated.store(done, std::memory_order_relaxed);
    }
}

/// Presents one victim until it is refused. False when the step ended before.
bool hammer_one(const Crew::Step& step, apikey_client* client, uint64_t revocation, BuildArea* area) {
    const GeneratedKey key = known_key(victim(revocation));
    const auto wrong = [&](apikey_code code, const char* right) {
        step.wrong(wrong_words("revocation", "key " + std::to_string(victim(revocation)), code, right));
    };
    for (uint64_t last_accepted_ns = 0;;) {
        // SYNC revocation-made: acquire; pairs with the store after make(). What it stored is in force for
        // this call, whatever the clocks say.
        const bool made = area->made.load(std::memory_order_acquire) == revocation;
        const uint64_t began_ns = monotonic_ns();
        apikey_verdict verdict;
        const apikey_code code = apikey_validate(client, key.data(), key.size(), &verdict);
        if (code == APIKEY_VALID && !made) {
            if (last_accepted_ns == 0) {
                area->accepted.store(revocation, std::memory_order_release);
            }
            last_accepted_ns = began_ns;
        } else if (code == APIKEY_VALID) {
            wrong(code, "REVOKED: the call began after make() had returned");
            return false;
        } else if (code == APIKEY_REVOKED && area->begun.load(std::memory_order_acquire) == revocation) {
            area->last_accepted_ns = last_accepted_ns;
            area->refused.store(revocation, std::memory_order_release);
            return true;
        } else {
            wrong(code, made ? "REVOKED" : "VALID");
            return false;
        }
        if (step.stopped()) {
            return false;
        }
    }
}

void hammer(const Crew::Step& step, apikey_client* client, BuildArea* area) {
    for (uint64_t done = area->refused.load(std::memory_order_relaxed); !step.stopped();) {
        const uint64_t asked = area->asked.load(std::memory_order_acquire);
        if (asked != done) {
            if (!hammer_one(step, client, asked, area)) {
                return;
            }
            done = asked;
        }
    }
}

/// All of them, also when the step has ended meanwhile.
void check_victims(const Crew::Step& step, apikey_client* client, const BuildArea& area) {
    const uint64_t revoked = area.refused.load(std::memory_order_acquire);
    for (uint64_t revocation = 1; revocation <= revoked; ++revocation) {
        const GeneratedKey key = known_key(victim(revocation));
        apikey_verdict verdict;
        const apikey_code code = apikey_validate(client, key.data(), key.size(), &verdict);
        if (code != APIKEY_REVOKED) {
            step.wrong(
                wrong_words("after the build", "key " + std::to_string(victim(revocation)), code, "REVOKED"));
        }
    }
}

void run_step(const Crew::Step& step, const KeyStream& stream, BuildArea* area) {
    apikey_client* client = step.open_client();
    step.ready();
    switch (step.number()) {
        case kSingle:
            present_singles(step, client, stream, area);
            break;
        case kBatches:
            present_batches(step, client, stream, area);
            break;
        case kHammer:
            hammer(step, client, area);
            break;
        default:
            check_victims(step, client, *area);
    }
    apikey_close(client);
}

/// What was measured of some revocations.
struct Latencies {
    Histogram made_ns;
    Histogram accepted_ns;
    Histogram late_ns;
};

/// Revokes one victim after the other from the loop's timer, as the daemon does between other work.
class Revoker {
  public:
    Revoker(ServingInstance& instance, uint64_t keys, BuildArea& area)
        : instance_(instance), area_(area), victims_(keys / kKeysPerVictim) {}

    void start(Latencies* into) {
        into_ = into;
        ticked_ns_ = 0;
        timer_ = instance_.loop().every(kTick, [this] { tick(); });
    }
    /// When the last one is through.
    void stop() {
        ending_ = true;
        instance_.run_until([this] { return idle_; });
        instance_.loop().cancel(timer_);
        ending_ = false;
    }
    bool failed() const { return failed_; }

  private:
    void tick() {
        const uint64_t now_ns = monotonic_ns();
        const uint64_t since_ns = now_ns - ticked_ns_;
        const auto tick_ns = static_cast<uint64_t>(std::chrono::nanoseconds(kTick).count());
        if (ticked_ns_ != 0) {
            into_->late_ns.add(since_ns > tick_ns ? since_ns - tick_ns : 0);
        }
        ticked_ns_ = now_ns;
        if (!idle_ && area_.begun.load(std::memory_order_relaxed) != number_) {
            revoke();
            return;
        }
        if (!idle_ && area_.refused.load(std::memory_order_acquire) == number_) {
            collect();
        }
        if (idle_ && !ending_ && number_ < victims_) {
            idle_ = false;
            area_.asked.store(++number_, std::memory_order_release);
        }
    }
    void revoke() {
        if (area_.accepted.load(std::memory_order_acquire) != number_) {
            return;  // the client has not got round to it yet
        }
        Change change{Change::Kind::kUpsert, row_of_key(victim(number_))};
        change.row.state = KeyState::kRevoked;
        area_.begun.store(number_, std::memory_order_release);
        began_ns_ = monotonic_ns();
        failed_ |= !instance_.publisher().make(change);
        const uint64_t returned_ns = monotonic_ns();
        area_.made.store(number_, std::memory_order_release);  // SYNC revocation-made
        into_->made_ns.add(returned_ns - began_ns_);
    }
    void collect() {
        const uint64_t last_ns = area_.last_accepted_ns;
        into_->accepted_ns.add(last_ns > began_ns_ ? last_ns - began_ns_ : 0);
        idle_ = true;
    }

    ServingInstance& instance_;
    BuildArea& area_;
    uint64_t victims_;
    Latencies* into_ = nullptr;
    apikeyd::TimerId timer_;
    uint64_t number_ = 0;
    uint64_t began_ns_ = 0;
    uint64_t ticked_ns_ = 0;
    bool idle_ = true;
    bool ending_ = false;
    bool failed_ = false;
};

/// Keys a second in each repetition.
struct Throughput {
    std::vector<double> before;
    std::vector<double> during;
    std::vector<double> ratio;
};

class BuildRun {
  public:
    explicit BuildRun(const ServingOptions& options)
        : options_(options),
          stream_(make_stream(options.keys)),
          crew_(directory_.path(), 1, [this](const Crew::Step& step) { run_step(step, stream_, &*area_); }),
          instance_(directory_.path(), options.keys, kShardsBudgetBytes, crew_),
          revoker_(instance_, options.keys, *area_) {}

    std::vector<FigureTable> measure() {
        // Three builds each: half the repetitions of others, rounded up.
        for (uint32_t repetition = 0; repetition < options_.repetitions; repetition += 2) {
            measure_throughput(kSingle, &single_);
            measure_throughput(kBatches, &batches_);
            measure_revocations();
        }
        return tables();
    }

  private:
    void begin(Step step) {
        crew_.begin(step);
        instance_.run_until([this] { return crew_.ready() == 1; });
    }
    double build() {
        const ServingInstance::BuildTime took = instance_.publish_next(kNewKeys);
        seconds_.push_back(took.seconds);
        cpu_seconds_.push_back(took.cpu_seconds);
        return took.seconds;
    }
    uint64_t validated() const { return area_->validated.load(std::memory_order_relaxed); }

    void measure_throughput(Step step, Throughput* into) {
        area_->validated.store(0, std::memory_order_relaxed);
        begin(step);
        instance_.run_for(options_.seconds / 2);  // caches
        const uint64_t began = validated();
        const uint64_t began_ns = monotonic_ns();
        instance_.run_for(options_.seconds);
        const uint64_t between = validated();
        const double before_s = static_cast<double>(monotonic_ns() - began_ns) * 1e-9;
        const uint64_t again = validated();
        const double during_s = build();
        const double during = static_cast<double>(validated() - again) / during_s;
        const double before = static_cast<double>(between - began) / before_s;
        into->before.push_back(before);
        into->during.push_back(during);
        into->ratio.push_back(before > 0 ? during / before : 0);
        instance_.drop_superseded();
        crew_.end();
    }

    void measure_revocations() {
        begin(kHammer);
        revoker_.start(alone_.get());
        instance_.run_for(2 * options_.seconds);
        revoker_.stop();
        revoker_.start(building_.get());
        build();
        instance_.drop_superseded();
        revoker_.stop();
        crew_.end();
        if (revoker_.failed()) {
            throw RunEnded(kUnreachable, "a revocation found no room in the table");
        }
        begin(kCheckVictims);
        crew_.end();
    }

    std::vector<FigureTable> tables() const;

    const ServingOptions& options_;
    TemporaryDirectory directory_;
    KeyStream stream_;
    Shared<BuildArea> area_;
    Crew crew_;
    ServingInstance instance_;
    Revoker revoker_;
    Throughput single_;
    Throughput batches_;
    std::unique_ptr<Latencies> alone_ = std::make_unique<Latencies>();
    std::unique_ptr<Latencies> building_ = std::make_unique<Latencies>();
    std::vector<double> seconds_;
    std::vector<double> cpu_seconds_;
};

FigureRow throughput_row(const char* what, const Throughput& throughput) {
    return {what,
            {{"before_keys_per_s", median(throughput.before)},
             {"during_keys_per_s", median(throughput.during)},
             {"ratio", median(throughput.ratio)}}};
}

/// `alone` are the same times without a build; the ratio is 0 where theirs is.
FigureRow latency_row(std::string what, const Histogram& times_ns, const Histogram& alone_ns) {
    FigureRow row = percentile_row(std::move(what), times_ns, 1);
    const auto p99_alone_ns = static_cast<double>(alone_ns.percentile(0.99));
    const auto p99_ns = static_cast<double>(times_ns.percentile(0.99));
    row.figures.emplace_back("p99_ratio", p99_alone_ns > 0 ? p99_ns / p99_alone_ns : 0);
    return row;
}

std::vector<FigureTable> BuildRun::tables() const {
    const double seconds = median(seconds_);
    FigureTable builds{"build", "Building a generation while one process validates", {}};
    builds.rows.push_back({"build",
                           {{"builds", static_cast<double>(seconds_.size())},
                            {"seconds", seconds},
                            {"cpu_seconds", median(cpu_seconds_)},
                            {"worst_seconds", *std::max_element(seconds_.begin(), seconds_.end())},
                            {"keys_per_s", static_cast<double>(options_.keys) / seconds}}});
    FigureTable throughput{"build_throughput", "Throughput of that process during a build, and before", {}};
    throughput.rows = {throughput_row("single calls", single_), throughput_row("batches of 16", batches_)};
    FigureTable revocation{"revocation", "From a revocation's beginning", {}};
    for (const Latencies* of : {alone_.get(), building_.get()}) {
        const std::string when = of == alone_.get() ? "no build" : "during a build";
        revocation.rows.push_back(latency_row(when + ", made", of->made_ns, alone_->made_ns));
        revocation.rows.push_back(
            latency_row(when + ", last accepted", of->accepted_ns, alone_->accepted_ns));
        revocation.rows.push_back(latency_row(when + ", loop late", of->late_ns, alone_->late_ns));
    }
    return {builds, throughput, revocation};
}

}  // namespace

std::vector<FigureTable> measure_build(const ServingOptions& options) {
    return std::make_unique<BuildRun>(options)->measure();
}

}  // namespace apikey::bench
