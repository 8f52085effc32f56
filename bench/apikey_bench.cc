// apikey-bench: processes and threads that validate keys against a live daemon. See apikey-bench(1).

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <ctime>

#include "base/errno_text.h"
#include "base/instance_place.h"
#include "bench/live_report.h"
#include "bench/write_file.h"

namespace {

using apikey::bench::KeyRing;
using apikey::bench::LiveOptions;
using apikey::bench::SharedArea;

volatile sig_atomic_t g_interrupted = 0;

int tell(const std::string& problem, int status) {
    std::fprintf(stderr, "apikey-bench: %s\n", problem.c_str());
    return status;
}

void add_options(CLI::App& app, LiveOptions& options) {
    using namespace apikey::bench;
    app.add_option("keys", options.keys_path, "the plaintext keys, one a line, as `apikeyctl gen` wrote them")
        ->required();
    app.add_option("--directory", options.directory, "base directory of the instances");
    app.add_option("--instance", options.instance)->capture_default_str();
    app.add_option("--processes", options.processes)
        ->check(CLI::Range(1U, kProcessesMax))
        ->capture_default_str();
    app.add_option("--threads", options.threads, "of each process")
        ->check(CLI::Range(1U, kThreadsMax))
        ->capture_default_str();
    app.add_option("--seconds", options.seconds, "how long to measure")
        ->check(CLI::Range(0.01, kSecondsMax))
        ->capture_default_str();
    app.add_option("--batch", options.batch, "keys a call; 1: single calls")
        ->check(CLI::Range(1U, kBatchMax))
        ->capture_default_str();
    app.add_option("--misses", options.misses_percent, "percentage of keys that are in no key set")
        ->check(CLI::Range(0U, 100U))
        ->capture_default_str();
    app.add_option("--zipf", options.zipf_theta,
                   "draw keys by Zipf's law with this exponent, 0 < e < 1; left out: uniformly")
        ->check(CLI::Range(0.01, 0.999));
    app.add_option("--writer", options.writer_rate_per_s,
                   "changes a second by a writer that disables and enables some of the keys in shared memory")
        ->check(CLI::Range(0U, kWriterRateMax_per_s));
    app.add_option("--json", options.json_path, "write the figures to this file as well");
    app.footer("apikeyctl gen --help tells how to make keys; apikey-bench(1) tells what is measured.");
}

SharedArea* map_area(const LiveOptions& options) {
    using apikey::bench::ThreadTally;
    constexpr size_t kTalliesOffset =
        (sizeof(SharedArea) + alignof(ThreadTally) - 1) / alignof(ThreadTally) * alignof(ThreadTally);
    const size_t bytes = kTalliesOffset + sizeof(ThreadTally) * options.processes * options.threads;
    void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) {
        return nullptr;
    }
    auto* area = static_cast<SharedArea*>(mapped);
    area->threads = reinterpret_cast<ThreadTally*>(static_cast<char*>(mapped) + kTalliesOffset);
    return area;
}

/// The processes of a run. Whatever happens, all of them have ended when this object has.
class Crew {
  public:
    Crew(const LiveOptions& options, const KeyRing& ring, SharedArea* area)
        : options_(options), ring_(ring), area_(area) {}
    ~Crew() { finish(); }
    Crew(const Crew&) = delete;
    Crew& operator=(const Crew&) = delete;

    /// Forks before anybody attaches: each process maps the table for itself, as servers do. False when the
    /// system refuses.
    bool start();
    /// Runs for options.seconds once all are ready; ends early on a signal or when one of them ends.
    void measure();
    /// Stops and waits. The first exit status that is not 0, or 0.
    int finish();

  private:
    template <typename Body>
    bool fork_one(bool dies_with_parent, Body body);
    /// Takes note of those that have ended; true when there are any.
    bool anyone_ended();
    /// Lets a millisecond pass; false when the run is over.
    bool go_on();

    const LiveOptions& options_;
    const KeyRing& ring_;
    SharedArea* area_;
    std::vector<pid_t> running_;
    int status_ = 0;
};

template <typename Body>
bool Crew::fork_one(bool dies_with_parent, Body body) {
    const pid_t parent = getpid();
    std::fflush(nullptr);
    const pid_t pid = fork();
    if (pid < 0) {
        tell("cannot fork: " + apikeyd::errno_text(errno), 0);
        return false;
    }
    if (pid == 0) {
        signal(SIGINT, SIG_IGN);  // a terminal sends it to all; the parent tells when to stop
        if (dies_with_parent && (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)) {
            _exit(apikey::bench::kUnreachable);
        }
        _exit(body(parent));
    }
    running_.push_back(pid);
    return true;
}

bool Crew::start() {
    for (uint32_t process = 0; process < options_.processes; ++process) {
        if (!fork_one(true,
                      [&](pid_t) { return apikey::bench::run_process(options_, ring_, process, area_); })) {
            return false;
        }
    }
    // The writer outlives a killed parent for a moment: it has keys to enable again.
    return options_.writer_rate_per_s == 0 || fork_one(false, [&](pid_t parent) {
               return apikey::bench::run_writer(options_, ring_, area_, parent);
           });
}

bool Crew::anyone_ended() {
    const size_t before = running_.size();
    std::erase_if(running_, [this](pid_t pid) {
        int status = 0;
        if (waitpid(pid, &status, WNOHANG) != pid) {
            return false;
        }
        const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        if (WIFSIGNALED(status)) {
            tell("a process was killed by signal " + std::to_string(WTERMSIG(status)), 0);
        }
        status_ = status_ != 0 ? status_ : code;
        return true;
    });
    return running_.size() != before;
}

bool Crew::go_on() {
    constexpr timespec kPause{0, 1'000'000};
    nanosleep(&kPause, nullptr);
    return !anyone_ended() && g_interrupted == 0 && area_->stop.load(std::memory_order_relaxed) == 0;
}

void Crew::measure() {
    const uint32_t wanted = options_.processes * options_.threads + (options_.writer_rate_per_s != 0 ? 1 : 0);
    while (area_->ready.load(std::memory_order_relaxed) != wanted) {
        if (!go_on()) {
            return;
        }
    }
    area_->go.store(1, std::memory_order_release);
    const uint64_t began_ns = apikey::bench::monotonic_ns();
    const auto length_ns = static_cast<uint64_t>(options_.seconds * 1e9);
    while (apikey::bench::monotonic_ns() - began_ns < length_ns && go_on()) {
    }
}

int Crew::finish() {
    area_->stop.store(1, std::memory_order_relaxed);
    constexpr timespec kPause{0, 1'000'000};
    while (!running_.empty()) {
        if (!anyone_ended()) {
            nanosleep(&kPause, nullptr);
        }
    }
    return status_;
}

int report_wrong(const LiveOptions& options, const SharedArea& area) {
    const auto& wrong = area.wrong;
    const char* got = apikey_code_name(static_cast<apikey_code>(wrong.code));
    const char* wanted = wrong.expected == apikey::bench::kValidOrDisabled
                             ? "VALID or DISABLED"
                             : apikey_code_name(static_cast<apikey_code>(wrong.expected));
    const std::string key = wrong.is_known != 0
                                ? "the key in " + options.keys_path + ":" + std::to_string(wrong.number + 1)
                                : std::string("a key that is in no key set");
    return tell("WRONG VERDICT: " + key + " was answered " + got + ", right is " + wanted,
                apikey::bench::kWrong);
}

int run(const LiveOptions& options) {
    const auto ring = apikey::bench::make_key_ring(options);
    if (!ring) {
        return tell(ring.error().message, apikey::bench::kUsage);
    }
    SharedArea* area = map_area(options);
    if (area == nullptr) {
        return tell("cannot map memory for the results: " + apikeyd::errno_text(errno),
                    apikey::bench::kUsage);
    }
    const apikey::bench::TickClock clock;
    int status = 0;
    {
        Crew crew(options, *ring, area);
        if (crew.start()) {
            crew.measure();
        } else {
            status = apikey::bench::kUnreachable;
        }
        const int ended = crew.finish();
        status = status != 0 ? status : ended;
    }
    if (area->wrong.claimed.load(std::memory_order_relaxed) != 0) {
        return report_wrong(options, *area);
    }
    if (status != 0 || area->go.load(std::memory_order_relaxed) == 0) {
        return status != 0 ? status : tell("interrupted before it began", 128 + g_interrupted);
    }
    const auto report = apikey::bench::sum_up(options, *ring, *area, clock);
    std::fputs(apikey::bench::table_text(options, report).c_str(), stdout);
    if (!options.json_path.empty()) {
        if (const auto written =
                apikey::bench::write_file(options.json_path, apikey::bench::json_text(options, report));
            !written) {
            return tell(written.error().message, apikey::bench::kUsage);
        }
    }
    return apikey::bench::kDone;
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app{"Validates keys against a live apikeyd as fast as it goes, and checks every answer."};
    LiveOptions options;
    add_options(app, options);
    app.set_version_flag("--version", "apikey-bench " APIKEYD_VERSION);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? apikey::bench::kDone : apikey::bench::kUsage;
    }
    if (options.directory.empty()) {
        // Where apikey_open() looks when it is not told: the daemon's socket stands there too.
        options.directory = apikeyd::usual_directory(options.instance);
    }
    struct sigaction action {};
    action.sa_handler = [](int number) { g_interrupted = number; };
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);
    return run(options);
}
