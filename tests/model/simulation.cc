// A model's program:
//
//   <name>_model [--iterations N] [--seed N] [--exhaust N] [--membarrier] [--weaken FILE:LINE=ORDER]
//   [--places]
//
//   --iterations N  random schedules to try (default 20000)
//   --exhaust N     instead: every schedule with at most N preemptions
//   --membarrier    see override/client/asymmetric_fence.h
//   --weaken …      at that place of the code every operation is of this order at most: relaxed, acquire,
//                   release or acq_rel; a fence is none
//   --places        print the places whose order is stronger than relaxed, as FILE:LINE=ORDER, and end
//
// exit status: 0 no promise was broken, 1 one was (the history of events is printed), 2 usage

#include "tests/model/simulation.h"

#include <cstdlib>
#include <cstring>
#include <iostream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wall"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wpedantic"
#include <relacy/relacy.hpp>
#pragma GCC diagnostic pop
// Relacy has its own of these, for code that is written for it.
#undef new
#undef delete
#undef malloc
#undef calloc
#undef realloc
#undef free
#undef assert
#undef errno
#undef memory_order_relaxed
#undef memory_order_consume
#undef memory_order_acquire
#undef memory_order_release
#undef memory_order_acq_rel
#undef memory_order_seq_cst

namespace apikey::model {
namespace {

using Order = std::memory_order;

/// A word of memory, as how far it is from what memory held before the threads began: Relacy lets every
/// thread see a zero that was there from the start.
using SimulatedWord = rl::generic_atomic<uint64_t, true>;

/// The way to a private member that the language leaves open: an explicit instantiation may name it.
template <typename Member, Member kMember>
struct Opened {
    friend Member data_of_word() { return kMember; }
};
using WordData = rl::atomic_data* SimulatedWord::*;
WordData data_of_word();
template struct Opened<WordData, &SimulatedWord::impl_>;

/// Relacy leaves it open by whom that zero has been seen, and takes what its memory held: by nobody.
template <rl::thread_id_t kThreads>
void set_unseen(SimulatedWord& word) {
    auto& data = static_cast<rl::atomic_data_impl<kThreads>&>(*(word.*data_of_word()));
    for (rl::timestamp_t& seen :
         data.history_[data.current_index_ % rl::atomic_history_size].first_seen_order_) {
        seen = static_cast<rl::timestamp_t>(-1);
    }
}

struct Range {
    const char* from;
    const char* to;
    bool holds(const void* at) const { return at >= from && at < to; }
};

struct Alias {
    Range range;
    const char* memory;
    /// Written as the mapping begins and ends, read with every word: an order that lacks is a data race.
    std::unique_ptr<rl::var<uint64_t>> mapped;
};

struct State {
    bool in_memory = true;
    bool membarrier = false;
    std::unordered_map<const void*, std::unique_ptr<SimulatedWord>> words;
    std::unordered_map<const void*, std::unique_ptr<rl::var<uint64_t>>> plain;
    std::vector<Range> left_out;
    std::vector<Alias> aliases;
    std::vector<void**> per_thread;
    void (*set_unseen)(SimulatedWord&) = nullptr;
    std::map<std::string, std::string> places;  // -> the strongest order used there
    std::string weakened;                       // FILE:LINE
    Order at_most = Order::seq_cst;
};
State& state = *new State;  // never destroyed: what is left of a broken run belongs to a context that is gone

/// The path as it stands in the project.
std::string place_of(const Where& where) {
    std::string file = where.file_name();
    while (file.starts_with("../")) {
        file.erase(0, 3);
    }
    return file + ":" + std::to_string(where.line());
}

const char* name_of(Order order) {
    switch (order) {
        case Order::acquire:
        case Order::consume:
            return "acquire";
        case Order::release:
            return "release";
        case Order::acq_rel:
            return "acq_rel";
        case Order::seq_cst:
            return "seq_cst";
        default:
            return "relaxed";
    }
}

void note_place(const Where& where, const char* order) {
    std::string& noted = state.places[place_of(where)];
    if (noted.empty() || std::strcmp(order, "seq_cst") == 0) {
        noted = order;
    }
}

enum class Kind : uint8_t { kLoad, kStore, kChange };

/// The order to simulate: as the code says, or as much of it as the weakened place may have.
rl::memory_order order_at(Order order, Kind kind, const Where& where) {
    if (order == Order::relaxed) {
        return rl::mo_relaxed;
    }
    note_place(where, name_of(order));
    bool acquires = order != Order::release && kind != Kind::kStore;
    bool releases = order != Order::acquire && kind != Kind::kLoad;
    bool total = order == Order::seq_cst;
    if (!state.weakened.empty() && state.weakened == place_of(where)) {
        acquires &= state.at_most == Order::acquire || state.at_most == Order::acq_rel;
        releases &= state.at_most == Order::release || state.at_most == Order::acq_rel;
        total = false;
    }
    return total                  ? rl::mo_seq_cst
           : acquires && releases ? rl::mo_acq_rel
           : acquires             ? rl::mo_acquire
           : releases             ? rl::mo_release
                                  : rl::mo_relaxed;
}

rl::debug_info info_of(const Where& where) {
    return rl::debug_info(where.function_name(), where.file_name(), where.line());
}

bool is_in(const std::vector<Range>& ranges, const void* at) {
    for (const Range& range : ranges) {
        if (range.holds(at)) {
            return true;
        }
    }
    return false;
}

/// An operation may let other threads run: what the real code keeps for each thread is put back after it.
template <typename Operation>
auto as_this_thread(Operation operation) {
    std::vector<void*> mine;
    for (void** variable : state.per_thread) {
        mine.push_back(*variable);
    }
    const auto put_back = [&] {
        for (size_t i = 0; i < mine.size(); ++i) {
            *state.per_thread[i] = mine[i];
        }
    };
    if constexpr (std::is_void_v<decltype(operation())>) {
        operation();
        put_back();
    } else {
        auto result = operation();
        put_back();
        return result;
    }
}

/// Where the word is that this address leads to. Called by each operation when other threads have had their
/// turn.
const void* memory_of(const void* at, const Where& where) {
    for (const Alias& alias : state.aliases) {
        if (alias.range.holds(at)) {
            expect((*alias.mapped)(info_of(where)).load() != 0,
                   "memory is not touched after it was unmapped");
            return alias.memory + (static_cast<const char*>(at) - alias.range.from);
        }
    }
    return at;
}

SimulatedWord& word_at(const void* at) {
    std::unique_ptr<SimulatedWord>& word = state.words[at];
    if (word == nullptr) {
        word = std::make_unique<SimulatedWord>();
        state.set_unseen(*word);
    }
    return *word;
}

/// Relacy looks after allocations by its own operator new, which knows nothing of memory from before a run.
/// Here that is no subject.
struct Allocations : rl::context {
    static void leave_alone() {
        constexpr int kFar = 1 << 20;
        int& depth = rl::ctx().*(&Allocations::disable_alloc_);
        depth = depth < kFar ? depth + kFar : depth;
    }
};

template <unsigned kThreads>
struct Suite : rl::test_suite<Suite<kThreads>, kThreads> {
    static inline std::unique_ptr<Scenario> (*make)() = nullptr;
    std::unique_ptr<Scenario> scenario;

    void before() {
        Allocations::leave_alone();
        state.set_unseen = set_unseen<kThreads>;
        state.in_memory = true;
        // Left by a run that ended in the middle, for its history to be printed: they belong to its context.
        for (auto& [at, word] : state.words) {
            static_cast<void>(word.release());
        }
        for (auto& [at, word] : state.plain) {
            static_cast<void>(word.release());
        }
        state.words.clear();
        state.plain.clear();
        state.left_out.clear();
        for (Alias& alias : state.aliases) {
            static_cast<void>(alias.mapped.release());
        }
        state.aliases.clear();
        scenario = make();
        scenario->before();
        for (Alias& alias : state.aliases) {
            alias.mapped = std::make_unique<rl::var<uint64_t>>();
            (*alias.mapped)(info_of(Where::current())).store(1);
        }
        for (void** variable : state.per_thread) {
            *variable = nullptr;
        }
        state.in_memory = false;
    }
    void thread(unsigned number) {
        for (void** variable : state.per_thread) {
            *variable = nullptr;
        }
        scenario->thread(number);
    }
    void after() {
        scenario->after();
        state.in_memory = true;
        scenario.reset();
        state.words.clear();
        state.plain.clear();
        state.aliases.clear();
    }
};

struct Options {
    unsigned long iterations = 20'000;
    unsigned long seed = 1;
    unsigned exhaust = 0;
    bool places = false;
};

bool parse(int argc, char** argv, Options* options) {
    for (int i = 1; i < argc; ++i) {
        const std::string name = argv[i];
        if (name == "--places") {
            options->places = true;
            continue;
        }
        if (name == "--membarrier") {
            state.membarrier = true;
            continue;
        }
        if (i + 1 == argc) {
            return false;
        }
        const std::string value = argv[++i];
        if (name == "--iterations") {
            options->iterations = std::strtoul(value.c_str(), nullptr, 10);
        } else if (name == "--seed") {
            options->seed = std::strtoul(value.c_str(), nullptr, 10);
        } else if (name == "--exhaust") {
            options->exhaust = static_cast<unsigned>(std::strtoul(value.c_str(), nullptr, 10));
        } else if (name == "--weaken") {
            const size_t equals = value.rfind('=');
            if (equals == std::string::npos) {
                return false;
            }
            state.weakened = value.substr(0, equals);
            bool known = false;
            for (const Order order : {Order::relaxed, Order::acquire, Order::release, Order::acq_rel}) {
                if (value.substr(equals + 1) == name_of(order)) {
                    state.at_most = order;
                    known = true;
                }
            }
            if (!known) {
                return false;
            }
        } else {
            return false;
        }
    }
    return true;
}

template <unsigned kThreads>
bool run(const Options& options, std::ostream& out) {
    rl::test_params params;
    params.output_stream = &out;
    params.progress_stream = &out;
    params.iteration_count = options.iterations;
    params.execution_depth_limit = 20'000;
    if (options.exhaust != 0) {
        params.search_type = rl::fair_context_bound_scheduler_type;
        params.context_bound = options.exhaust;
    } else {
        params.search_type = rl::random_scheduler_type;
        params.initial_state = std::to_string(options.seed * 1'000'000) + " " + std::to_string(options.seed);
        params.iteration_count += options.seed * 1'000'000;
    }
    const bool kept = rl::simulate<Suite<kThreads>>(params);
    if (!kept) {
        out << rl::test_result_str(params.test_result) << ", iteration " << params.stop_iteration << "\n";
    }
    return kept;
}

}  // namespace

bool in_memory() {
    return state.in_memory;
}

void expect(bool holds, const char* promise) {
    if (!holds) {
        if (state.in_memory) {
            std::cerr << "model: while preparing: " << promise << "\n";
            std::exit(1);
        }
        const rl::debug_info info(promise, __FILE__, __LINE__);
        rl::ctx().fail_test(promise, rl::test_result_user_assert_failed, info);
    }
}

void keep_per_thread(void** variable) {
    for (void** kept : state.per_thread) {
        if (kept == variable) {
            return;
        }
    }
    state.per_thread.push_back(variable);
}

void leave_out(const void* at, size_t bytes) {
    const char* from = static_cast<const char*>(at);
    state.left_out.push_back({from, from + bytes});
}

void begin_alias(const void* alias, const void* memory, size_t bytes) {
    const char* from = static_cast<const char*>(alias);
    std::unique_ptr<rl::var<uint64_t>> mapped;
    if (!state.in_memory) {  // else once all is prepared
        mapped = std::make_unique<rl::var<uint64_t>>();
        (*mapped)(info_of(Where::current())).store(1);
    }
    state.aliases.push_back({{from, from + bytes}, static_cast<const char*>(memory), std::move(mapped)});
}

void end_alias(const void* alias) {
    for (Alias& known : state.aliases) {
        if (known.range.from == alias && !state.in_memory) {
            (*known.mapped)(info_of(Where::current())).store(0);
        }
    }
}

uint64_t load(const void* at, uint64_t before, Order order, const Where& where) {
    if (is_in(state.left_out, at)) {
        return before;
    }
    const rl::memory_order simulated = order_at(order, Kind::kLoad, where);
    return before +
           as_this_thread([&] { return word_at(memory_of(at, where)).load(simulated, info_of(where)); });
}

void store(const void* at, uint64_t before, uint64_t value, Order order, const Where& where) {
    expect(!is_in(state.left_out, at), "a word that is left out is not stored to");
    const rl::memory_order simulated = order_at(order, Kind::kStore, where);
    as_this_thread([&] { word_at(memory_of(at, where)).store(value - before, simulated, info_of(where)); });
}

uint64_t exchange(const void* at, uint64_t before, uint64_t value, Order order, const Where& where) {
    const rl::memory_order simulated = order_at(order, Kind::kChange, where);
    return before + as_this_thread([&] {
               return word_at(memory_of(at, where)).exchange(value - before, simulated, info_of(where));
           });
}

uint64_t fetch_add(const void* at, uint64_t before, uint64_t value, Order order, const Where& where) {
    const rl::memory_order simulated = order_at(order, Kind::kChange, where);
    return before + as_this_thread([&] {
               return word_at(memory_of(at, where)).fetch_add(value, simulated, info_of(where));
           });
}

bool compare_exchange(const void* at, uint64_t before, uint64_t* expected, uint64_t desired, Order order,
                      Order failure, const Where& where) {
    const rl::memory_order simulated = order_at(order, Kind::kChange, where);
    rl::memory_order simulated_failure = order_at(failure, Kind::kLoad, where);
    // Relacy wants the failure's order no stronger than the other.
    if (simulated == rl::mo_relaxed || simulated == rl::mo_release) {
        simulated_failure = rl::mo_relaxed;
    } else if (simulated != rl::mo_seq_cst && simulated_failure == rl::mo_seq_cst) {
        simulated_failure = rl::mo_acquire;
    }
    uint64_t apart = *expected - before;
    const bool done = as_this_thread([&] {
        return word_at(memory_of(at, where))
            .compare_exchange(rl::bool_t<false>(), apart, desired - before, simulated, simulated_failure,
                              info_of(where));
    });
    *expected = before + apart;
    return done;
}

void plain_load(const void* at, const Where& where) {
    if (state.in_memory) {
        return;
    }
    const auto known = state.plain.find(memory_of(at, where));
    if (known != state.plain.end()) {  // else nobody has written it since the threads began
        as_this_thread([&] { return (*known->second)(info_of(where)).load(); });
    }
}

void plain_store(const void* at, const Where& where) {
    if (state.in_memory) {
        return;
    }
    std::unique_ptr<rl::var<uint64_t>>& word = state.plain[memory_of(at, where)];
    if (word == nullptr) {
        word = std::make_unique<rl::var<uint64_t>>();
    }
    rl::var<uint64_t>& var = *word;
    as_this_thread([&] { var(info_of(where)).store(1); });
}

void fence(const Where& where) {
    if (state.in_memory) {
        return;
    }
    note_place(where, "fence");
    if (state.weakened != place_of(where)) {
        as_this_thread([&] { rl::atomic_thread_fence(rl::mo_seq_cst, info_of(where)); });
    }
}

void fence_of_all_threads(const Where& where) {
    if (state.in_memory) {
        return;
    }
    note_place(where, "fence");
    if (state.weakened != place_of(where)) {
        as_this_thread([&] { rl::systemwide_fence(info_of(where)); });
    }
}

bool membarrier() {
    return state.membarrier;
}

int simulate(int argc, char** argv, unsigned threads, std::unique_ptr<Scenario> (*make)()) {
    Options options;
    if (!parse(argc, argv, &options)) {
        std::cerr << "usage: see the head of tests/model/simulation.cc\n";
        return 2;
    }
    Suite<2>::make = Suite<3>::make = make;
    std::ostringstream out;
    const bool kept = threads == 2 ? run<2>(options, out) : run<3>(options, out);
    if (options.places) {
        for (const auto& [place, order] : state.places) {
            std::cout << place << "=" << order << "\n";
        }
        return 0;
    }
    std::cout << out.str();
    return kept ? 0 : 1;
}

}  // namespace apikey::model
