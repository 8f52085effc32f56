// What a switch to a new generation costs the calls around it.
//
// One thread validates known keys, each call timed alone, while generation after generation is built and
// published; the builder runs on another CPU meanwhile. Cases: without apikey_refresh(), so that a request
// maps the new generation; with a thread of the same process that calls it every 10 ms, and every second; and
// that with one unknown key in eight. A refusal must not be answered from an older generation, so an unknown
// key has its request map the new one, whoever refreshes.
//
// The time is cut into slices of 20 ms. `around` are the calls of slices in which a generation was published
// or the client switched, and of the slices next to them; `apart` are all others, during builds mostly;
// `quiet` is a stretch without any build before. apikey_status() after each call tells the calls `at a
// switch`, behind which the client is in another generation (it makes no system call, and is not in the
// time): without a refresh these have made the switch themselves; with one, the calls of apikey_refresh()
// that switched are timed in their own thread as well. A switch is one call in a hundred thousand, so no
// percentile of `around` shows it.
//
// The clock is not ordered against the instructions around it and costs some ns itself: the medians are a
// little off, and the tails are what is measured.

#include <memory>
#include <thread>

#include "bench/serving_crew.h"
#include "bench/serving_instance.h"
#include "bench/serving_run.h"
#include "bench/temporary_directory.h"

namespace apikey::bench {
namespace {

constexpr uint64_t kSlice_ns = 20'000'000;
constexpr uint32_t kCallsBetweenLooks = 256;  // at the time, to end a slice
constexpr uint64_t kNewKeys = 100;            // what is said to have found no room
constexpr uint32_t kUnknownOneIn = 8;
constexpr double kSettle_s = 0.1;  // after a switch, so that the slices around it are whole

struct Case {
    const char* name;
    uint32_t refresh_ms;  ///< 0: never
    bool publishes;
    bool unknown;  ///< one key in kUnknownOneIn is
};
constexpr Case kCases[] = {
    {"quiet", 0, false, true},
    {"no refresh", 0, true, false},
    {"refresh every 10 ms", 10, true, false},
    {"refresh every 1 s", 1000, true, false},
    {"refresh every 1 s, unknown keys too", 1000, true, true},
};

struct Times {
    Histogram around_ticks;
    Histogram apart_ticks;
};

struct Tally {
    Times known;
    Times unknown;
    Histogram switching_ns;   ///< calls behind which the client has switched, by them or beside them
    Histogram refreshing_ns;  ///< refreshes that did
};

struct SwitchArea {
    std::atomic<uint32_t> published;
    Tally tallies[std::size(kCases)];
    double ns_per_tick;
};

/// Sorts slices into those around an event and the rest: a slice waits until the next one is over.
class Slices {
  public:
    explicit Slices(Tally* tally) : tally_(tally) {}

    void add(bool known, uint64_t ticks) { (known ? now_->known : now_->unknown).add(ticks); }
    void event() { event_now_ = true; }
    void end_slice() {
        settle(event_before_ || event_last_ || event_now_);
        std::swap(now_, last_);
        *now_ = {};
        event_before_ = event_last_;
        event_last_ = event_now_;
        event_now_ = false;
    }
    void end() {
        end_slice();
        end_slice();
    }

  private:
    struct Slice {
        Histogram known;
        Histogram unknown;
    };
    void settle(bool around) {
        (around ? tally_->known.around_ticks : tally_->known.apart_ticks).merge(last_->known);
        (around ? tally_->unknown.around_ticks : tally_->unknown.apart_ticks).merge(last_->unknown);
    }

    Tally* tally_;
    std::unique_ptr<Slice> now_ = std::make_unique<Slice>();
    std::unique_ptr<Slice> last_ = std::make_unique<Slice>();
    bool event_before_ = false;
    bool event_last_ = false;
    bool event_now_ = false;
};

uint32_t generation_of(apikey_client* client) {
    apikey_status_info info{};
    info.size = sizeof info;
    apikey_status(client, &info);
    return info.generation;
}

/// A housekeeping thread, as hosts have one.
void refresh_until_stopped(const Crew::Step& step, apikey_client* client, uint32_t every_ms, Tally* tally) {
    constexpr uint32_t kStep_ms = 10;
    const timespec pause{0, long{kStep_ms} * 1'000'000};
    for (uint32_t waited_ms = every_ms; !step.stopped(); waited_ms += kStep_ms) {
        if (waited_ms >= every_ms) {
            waited_ms = 0;
            const uint32_t before = generation_of(client);
            const uint64_t began_ns = monotonic_ns();
            const apikey_result result = apikey_refresh(client);
            const uint64_t took_ns = monotonic_ns() - began_ns;
            if (result != APIKEY_OK) {
                step.wrong(std::string("switch: apikey_refresh: ") + apikey_result_text(result));
            }
            if (generation_of(client) != before) {
                tally->refreshing_ns.add(took_ns);
            }
        }
        nanosleep(&pause, nullptr);
    }
}

/// Presents the stream's keys until the step ends.
void present(const Crew::Step& step, apikey_client* client, const KeyStream& stream, const TickClock& clock,
             SwitchArea* area) {
    Tally* tally = &area->tallies[step.number()];
    Slices slices(tally);
    uint32_t generation = generation_of(client);
    uint32_t published = area->published.load(std::memory_order_relaxed);
    uint64_t slice_began_ns = monotonic_ns();
    size_t at = 0;
    step.ready();
    for (uint32_t calls = 0; !step.stopped(); ++calls) {
        apikey_verdict verdict;
        const apikey_key& key = stream.key(at);
        const uint64_t before = clock.now();
        const apikey_code code = apikey_validate(client, key.data, key.len, &verdict);
        const uint64_t ticks = clock.now() - before;
        const Expected right = stream.expected(at);
        if (!is_right(code, right)) [[unlikely]] {
            step.wrong(wrong_words("switch", "number " + std::to_string(at) + " of the stream", code,
                                   apikey_code_name(static_cast<apikey_code>(right))));
        }
        slices.add(right == APIKEY_VALID, ticks);
        at = at + 1 == stream.size() ? 0 : at + 1;
        if (const uint32_t now = generation_of(client); now != generation) [[unlikely]] {
            generation = now;
            slices.event();
            tally->switching_ns.add(static_cast<uint64_t>(static_cast<double>(ticks) * clock.ns_per_tick()));
        }
        if (const uint32_t now = area->published.load(std::memory_order_relaxed); now != published)
            [[unlikely]] {
            published = now;
            slices.event();
        }
        if (calls % kCallsBetweenLooks == 0 && monotonic_ns() - slice_began_ns >= kSlice_ns) {
            slices.end_slice();
            slice_began_ns = monotonic_ns();
        }
    }
    slices.end();
    area->ns_per_tick = clock.ns_per_tick();
}

void run_case(const Crew::Step& step, const KeyStream& stream, SwitchArea* area) {
    const Case& how = kCases[step.number()];
    const TickClock clock;
    apikey_client* client = step.open_client();
    std::thread housekeeping;
    if (how.refresh_ms != 0) {
        housekeeping = std::thread(refresh_until_stopped, std::cref(step), client, how.refresh_ms,
                                   &area->tallies[step.number()]);
    }
    present(step, client, stream, clock, area);
    if (housekeeping.joinable()) {
        housekeeping.join();
    }
    apikey_close(client);
}

void drive_case(const ServingOptions& options, const Case& how, ServingInstance& instance, SwitchArea* area) {
    if (!how.publishes) {
        instance.run_for(options.seconds);
        return;
    }
    // With a housekeeping thread the calls themselves are no rare events: fewer switches tell as much.
    const uint32_t switches = how.refresh_ms != 0 ? (options.switches + 3) / 4 : options.switches;
    for (uint32_t i = 0; i < switches; ++i) {
        instance.publish_next(kNewKeys);
        area->published.fetch_add(1, std::memory_order_relaxed);
        instance.drop_superseded();
        instance.run_for(kSettle_s);
    }
}

}  // namespace

std::vector<FigureTable> measure_switch(const ServingOptions& options) {
    const TemporaryDirectory directory;
    const KeyStream known = make_stream(options.switch_keys);
    const KeyStream mixed = make_stream(options.switch_keys, kUnknownOneIn);
    const Shared<SwitchArea> area;
    Crew crew(directory.path(), 1, [&](const Crew::Step& step) {
        run_case(step, kCases[step.number()].unknown ? mixed : known, &*area);
    });
    ServingInstance instance(directory.path(), options.switch_keys, kShardsBudgetBytes, crew);
    FigureTable table{"switch", "Calls around a switch to a new generation", {}};
    const auto add = [&](const std::string& what, const Histogram& ticks) {
        table.rows.push_back(percentile_row(what, ticks, area->ns_per_tick));
    };
    for (uint32_t number = 0; number < std::size(kCases); ++number) {
        const Case& how = kCases[number];
        crew.begin(number);
        instance.run_until([&] { return crew.ready() == 1; });
        drive_case(options, how, instance, &*area);
        crew.end();
        const Tally& tally = area->tallies[number];
        if (!how.publishes) {
            add(how.name, tally.known.apart_ticks);
            add(how.name + std::string(", unknown"), tally.unknown.apart_ticks);
            continue;
        }
        const std::string name = how.name;
        add(name + ", around", tally.known.around_ticks);
        if (how.unknown) {
            add(name + ", unknown, around", tally.unknown.around_ticks);
        }
        add(name + ", apart", tally.known.apart_ticks);
        table.rows.push_back(percentile_row(name + ", calls at a switch", tally.switching_ns, 1));
        if (how.refresh_ms != 0) {
            table.rows.push_back(percentile_row(name + ", refreshes that switch", tally.refreshing_ns, 1));
        }
    }
    return {table};
}

}  // namespace apikey::bench
