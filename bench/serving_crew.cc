#include "bench/serving_crew.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "base/errno_text.h"

namespace apikey::bench {
namespace {

constexpr timespec kPause{0, 500'000};
constexpr unsigned kPatiencePauses = 20'000;  // ten seconds for a process to notice that it should end

void pause_briefly() {
    nanosleep(&kPause, nullptr);
}

/// Signals that end programs wait while a TemporaryDirectory exists; they are looked for, not taken.
int waiting_signal() {
    sigset_t waiting;
    sigpending(&waiting);
    for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
        if (sigismember(&waiting, number) == 1) {
            return number;
        }
    }
    return 0;
}

}  // namespace

SharedPages::SharedPages(size_t bytes)
    : data_(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)), bytes_(bytes) {
    if (data_ == MAP_FAILED) {
        throw RunEnded(kUnreachable, "cannot map memory to share: " + apikeyd::errno_text(errno));
    }
}

SharedPages::~SharedPages() {
    munmap(data_, bytes_);
}

void Crew::Step::wrong(const std::string& words) const {
    State& state = *crew_->shared_;
    uint32_t nobody = 0;
    if (state.wrong.compare_exchange_strong(nobody, 1, std::memory_order_relaxed)) {
        std::snprintf(state.words, sizeof state.words, "%s", words.c_str());
        state.wrong.store(2, std::memory_order_release);
    }
    state.stopped.store(1, std::memory_order_relaxed);
}

apikey_client* Crew::Step::open_client() const {
    apikey_options options{};
    options.size = sizeof options;
    options.directory = crew_->base_.c_str();
    options.instance = kInstance;
    apikey_client* client = nullptr;
    const apikey_result opened = apikey_open(&options, &client);
    if (opened != APIKEY_OK) {
        apikey_close(client);
        throw RunEnded(kUnreachable, std::string("a client cannot attach: ") + apikey_result_text(opened));
    }
    return client;
}

Crew::Crew(std::string base, uint32_t processes, Body body)
    : base_(std::move(base)), body_(std::move(body)), processes_(processes) {
    const pid_t parent = getpid();
    std::fflush(nullptr);
    for (uint32_t process = 0; process < processes; ++process) {
        const pid_t pid = fork();
        if (pid < 0) {
            throw RunEnded(kUnreachable, "cannot fork: " + apikeyd::errno_text(errno));
        }
        if (pid == 0) {
            process_main(process, parent);
        }
        running_.push_back(pid);
    }
}

Crew::~Crew() {
    shared_->stopped.store(1, std::memory_order_relaxed);
    shared_->quit.store(1, std::memory_order_release);
    for (const pid_t pid : running_) {
        unsigned pauses = 0;
        while (waitpid(pid, nullptr, WNOHANG) == 0) {
            if (++pauses == kPatiencePauses) {
                kill(pid, SIGKILL);
            }
            pause_briefly();
        }
    }
}

void Crew::process_main(uint32_t process, pid_t parent) {
    int status = kDone;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent) {
        _exit(kUnreachable);
    }
    try {
        run_steps(process);
    } catch (const RunEnded& ended) {
        std::fprintf(stderr, "serving: %s\n", ended.what());
        status = ended.exit();
    }
    _exit(status);
}

void Crew::run_steps(uint32_t process) {
    State& state = *shared_;
    for (uint32_t seen = 0;;) {
        while (state.turn.load(std::memory_order_acquire) == seen) {
            if (state.quit.load(std::memory_order_acquire) != 0) {
                return;
            }
            pause_briefly();
        }
        ++seen;
        Step step;
        step.crew_ = this;
        step.process_ = process;
        step.number_ = state.step.load(std::memory_order_relaxed);
        body_(step);
        state.idle.fetch_add(1, std::memory_order_release);
    }
}

void Crew::begin(uint32_t step) {
    shared_->stopped.store(0, std::memory_order_relaxed);
    shared_->ready.store(0, std::memory_order_relaxed);
    shared_->idle.store(0, std::memory_order_relaxed);
    shared_->step.store(step, std::memory_order_relaxed);
    shared_->turn.fetch_add(1, std::memory_order_release);
}

void Crew::end() {
    shared_->stopped.store(1, std::memory_order_relaxed);
    while (shared_->idle.load(std::memory_order_acquire) != processes_) {
        check();
        pause_briefly();
    }
    check();
}

void Crew::check() {
    if (shared_->wrong.load(std::memory_order_acquire) == 2) {
        throw RunEnded(kWrong, std::string("WRONG: ") + shared_->words);
    }
    for (const pid_t pid : running_) {
        int status = 0;
        if (waitpid(pid, &status, WNOHANG) != pid) {
            continue;
        }
        std::erase(running_, pid);
        throw RunEnded(kUnreachable, WIFSIGNALED(status) ? "a client process was killed by signal " +
                                                               std::to_string(WTERMSIG(status))
                                                         : std::string("a client process gave up"));
    }
    if (const int number = waiting_signal(); number != 0) {
        throw RunEnded(kUnreachable, std::string("interrupted: ") + strsignal(number));
    }
}

}  // namespace apikey::bench
