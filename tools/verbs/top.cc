// top: what an instance does now, from its shared memory alone.

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "base/clock.h"
#include "tools/duration.h"
#include "tools/top/layout.h"
#include "tools/top/observer.h"
#include "tools/top/terminal.h"
#include "tools/top/top_json.h"
#include "tools/verbs/registry.h"

namespace apikeyd {

namespace {

using namespace top;

constexpr size_t kPlainWidth = 120;
constexpr size_t kPlainKeys = 10;
constexpr size_t kKeysMax = 200;
constexpr uint64_t kSecond_ns = 1'000'000'000;

struct TopOptions {
    std::string interval = "2s";
    std::optional<std::string> iterations;
    uint64_t keys = 0;
    std::string sort = "total";
    // As they were understood.
    uint64_t interval_ns = 0;
    uint64_t iterations_max = 0;  ///< 0: no end
};

Sort sort_of(const std::string& name) {
    return name == "allowed" ? Sort::kAllowed : name == "denied" ? Sort::kDenied : Sort::kTotal;
}

uint64_t cpu_ns() {
    timespec used{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return static_cast<uint64_t>(used.tv_sec) * kSecond_ns + static_cast<uint64_t>(used.tv_nsec);
}

/// Looks again and again, and keeps what is shown up to date.
class Watch {
  public:
    Watch(const Context& context, Sort sort)
        : observer_(context.instance_directory(),
                    context.own_directory() ? geteuid() : apikey::shm::kAnyOwner) {
        view_.instance = context.instance_directory();
        view_.sort = sort;
    }
    void look() {
        const std::optional<Look> before = looked_ ? std::optional(std::move(view_.look)) : std::nullopt;
        view_.look = observer_.look();
        view_.codes = rates_between(before, view_.look);
        looked_ = true;
        const bool attached = view_.look.attached == apikey::shm::AttachResult::kOk;
        const bool anew = view_.codes.note == RateNote::kFirst || view_.codes.note == RateNote::kReplaced;
        if (!attached) {
            view_.activity = {};
        } else if (anew || pace_.due(view_.look.monotonic_ns)) {
            const uint64_t before_ns = cpu_ns();
            view_.activity = observer_.walk(view_.look, view_.sort, kKeysMax);
            pace_.walked(view_.look.monotonic_ns, cpu_ns() - before_ns);
        }
    }
    void set_sort(Sort sort) {
        view_.sort = sort;
        keep_busiest(&view_.activity.keys, sort, kKeysMax);
    }
    const View& view() const { return view_; }

  private:
    Observer observer_;
    View view_;
    WalkPace pace_;
    bool looked_ = false;
};

Outcome print_once(Watch& watch, const Context& context, const TopOptions& options) {
    const size_t keys = options.keys != 0 ? options.keys : kPlainKeys;
    if (context.output() == OutputForm::json) {
        return print(json_line(watch.view(), keys));
    }
    return print(render(lay_out(watch.view(), {kPlainWidth, 0}, keys), false, "\n") + '\n');
}

/// Text behind text, each after an interval: there are no rates before.
Outcome print_all(Watch& watch, const Context& context, const TopOptions& options) {
    uint64_t at_ns = monotonic_now_ns();
    for (uint64_t done = 0; options.iterations_max == 0 || done < options.iterations_max; ++done) {
        at_ns += options.interval_ns;
        const timespec until{static_cast<time_t>(at_ns / kSecond_ns), static_cast<long>(at_ns % kSecond_ns)};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
        }
        at_ns = std::max(at_ns,
                         monotonic_now_ns() - options.interval_ns / 2);  // who was stopped catches nothing up
        watch.look();
        if (done != 0 && context.output() == OutputForm::table) {
            if (Outcome printed = print("\n"); !printed) {
                return printed;
            }
        }
        if (Outcome printed = print_once(watch, context, options); !printed) {
            return printed;
        }
    }
    return {};
}

/// True for a key that leaves.
bool obey(Watch& watch, char key) {
    switch (key) {
        case 'a':
            watch.set_sort(Sort::kAllowed);
            break;
        case 'd':
            watch.set_sort(Sort::kDenied);
            break;
        case 't':
            watch.set_sort(Sort::kTotal);
            break;
        default:
            break;
    }
    return key == 'q';
}

/// The signal that ended it; 0: somebody wanted it to end.
int show(Watch& watch, const TopOptions& options) {
    Terminal terminal;
    const bool colour = colour_wanted();
    uint64_t next_ns = monotonic_now_ns() + options.interval_ns;
    for (uint64_t done = 0;;) {
        if (!terminal.draw(lay_out(watch.view(), terminal.size(), options.keys), colour)) {
            return 0;
        }
        switch (terminal.wait(next_ns)) {
            case Terminal::Event::kTime:
                if (options.iterations_max != 0 && done++ == options.iterations_max) {
                    return 0;
                }
                watch.look();
                // After a stop of the process there is nothing to catch up with.
                next_ns = monotonic_now_ns() + options.interval_ns;
                break;
            case Terminal::Event::kKey:
                if (obey(watch, terminal.key())) {
                    return 0;
                }
                break;
            case Terminal::Event::kResize:
                break;
            case Terminal::Event::kEnd:
                return terminal.ended_by() == SIGINT ? 0 : terminal.ended_by();
        }
    }
}

Outcome understand(TopOptions& options, bool screen) {
    const std::optional<int64_t> interval_s = parse_duration_s(options.interval);
    if (!interval_s || *interval_s < 1 || *interval_s > 3600) {
        return failed(Exit::kUsage, "--interval: want 1s to 1h, as 2s or 1m");
    }
    options.interval_ns = static_cast<uint64_t>(*interval_s) * kSecond_ns;
    options.iterations_max = screen ? 0 : 1;
    if (options.iterations) {
        const std::string& text = *options.iterations;
        if (text.empty() || text.size() > 9 || text.find_first_not_of("0123456789") != std::string::npos) {
            return failed(Exit::kUsage, "--iterations: want a number (0: without end)");
        }
        options.iterations_max = std::stoull(text);
    }
    return {};
}

Outcome run(const Context& context, TopOptions options) {
    if (Outcome usable = context.check_config(); !usable) {
        return usable;
    }
    if (context.output() == OutputForm::csv) {
        return failed(Exit::kUsage, "--output csv: top knows table and json");
    }
    const bool screen = context.output() == OutputForm::table && Terminal::usable();
    if (Outcome understood = understand(options, screen); !understood) {
        return understood;
    }
    Watch watch(context, sort_of(options.sort));
    watch.look();
    if (watch.view().look.attached != apikey::shm::AttachResult::kOk) {
        return failed(Exit::kUnreachable,
                      watch.view().instance + ": " + apikey::shm::attach_text(watch.view().look.attached));
    }
    if (!screen) {
        return print_all(watch, context, options);
    }
    if (const int signal = show(watch, options); signal != 0) {
        raise(signal);  // the terminal is restored; who asked for the end sees that it was a signal
    }
    return {};
}

}  // namespace

Verb add_top(CommandLine& line) {
    auto options = std::make_shared<TopOptions>();
    Command command =
        line.add_verb("top", "watch rates, busiest keys and limits live, also while the daemon is down");
    command.add_option("--interval", options->interval, "between two looks, from 1s");
    command.add_option("--iterations", options->iterations,
                       "end after so many; 0: never [1, on a terminal 0]");
    command.add_number("--keys", options->keys, 0, kKeysMax,
                       "show so many of the busiest keys; 0: what fits, or 10");
    command.add_choice("--sort", options->sort, {"total", "allowed", "denied"}, "keys by this rate");
    command.set_example("apikeyctl top --interval 5s");
    return {command, [options](const Context& context) { return run(context, *options); }};
}

}  // namespace apikeyd
