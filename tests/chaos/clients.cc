#include "clients.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <random>
#include <stdexcept>
#include <thread>

namespace apikeyd::test {
namespace {

constexpr unsigned kBetweenCalls_us = 500;  // so that the machine stays usable
constexpr unsigned kHousekeeping_us = 1000000;
constexpr unsigned kForkEvery_us = 100000;
constexpr unsigned kForkedCalls = 20;
constexpr unsigned kPassingCalls = 20;  // between open and close

/// Which keys a lane asks for.
struct Among {
    size_t first_limited;
    size_t stable =
        0;  ///< not 0: the first so many alone, of limited ones a few, and of those revoked lately

    /// Of so many calls for a limited key alone one is made, and of so many keys in a batch one is limited.
    unsigned limited_calls() const { return stable == 0 ? 3 : 50; }
    unsigned limited_keys() const { return stable == 0 ? 8 : 200; }
};

/// One lane's calls.
class Caller {
  public:
    Caller(KeyBoard& board, unsigned lane, unsigned seed, Among among)
        : board_(board), lane_(lane), among_(among), pick_(seed) {}
    ~Caller() { board_.leave(lane_); }
    Caller(const Caller&) = delete;
    Caller& operator=(const Caller&) = delete;

    void call(apikey_client* client) {
        board_.before_call(lane_);
        if (draw() % among_.limited_calls() == 0) {
            call_limited(client);
        } else {
            call_some(client);
        }
        usleep(kBetweenCalls_us);
    }

  private:
    size_t draw() { return pick_() >> 4; }
    size_t limited_key() { return among_.first_limited + draw() % LimitedKeys::kKeys; }

    void call_some(apikey_client* client) {
        size_t keys[kBatchMax];
        const size_t count = draw() % 2 == 0 ? 1 : kBatchMax;
        for (size_t i = 0; i < count; ++i) {
            keys[i] = draw() % 4 == 0 ? board_.revoked_lately(draw())
                      : draw() % among_.limited_keys() == 0
                          ? limited_key()
                          : draw() % (among_.stable != 0 ? among_.stable : board_.size());
        }
        board_.call(lane_, client, keys, count);
    }
    void call_limited(apikey_client* client) {
        apikey_request request = APIKEY_REQUEST_INIT;
        request.cost = static_cast<uint32_t>(draw() % 16 == 0 ? 1 + draw() % 40 : 1 + draw() % 3);
        board_.call_one(lane_, client, limited_key(), request);
    }

    KeyBoard& board_;
    unsigned lane_;
    Among among_;
    std::minstd_rand pick_;
};

/// Ends with the process that forked it.
void follow(pid_t parent) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent) {
        _exit(1);
    }
}

void fork_one(KeyBoard& board, unsigned lane, apikey_client* client, unsigned seed, Among among) {
    const pid_t parent = getpid();
    const pid_t pid = fork();
    if (pid == 0) {
        follow(parent);
        {
            Caller caller(board, lane, seed, among);
            for (unsigned i = 0; i < kForkedCalls && !board.stopped(); ++i) {
                caller.call(client);
            }
        }
        _exit(0);
    }
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
        _exit(2);
    }
}

void run_threads(const Site& site, KeyBoard& board, ClientKind kind, Among among, unsigned lane,
                 unsigned seed) {
    apikey_client* client = site.open_client();
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < 2; ++i) {
        threads.emplace_back([&, i] {
            Caller caller(board, lane + i, seed + i, among);
            while (!board.stopped()) {
                caller.call(client);
            }
        });
    }
    for (unsigned round = 0; kind != ClientKind::kPlain && !board.stopped(); ++round) {
        if (kind == ClientKind::kKept) {
            apikey_refresh(client);
            usleep(kHousekeeping_us);
        } else {
            fork_one(board, lane + 2, client, seed + 2 + round, among);
            usleep(kForkEvery_us);
        }
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    apikey_close(client);
}

void run_passing(const Site& site, KeyBoard& board, Among among, unsigned lane, unsigned seed) {
    Caller caller(board, lane, seed, among);
    while (!board.stopped()) {
        apikey_client* client = site.open_client();
        for (unsigned i = 0; i < kPassingCalls; ++i) {
            caller.call(client);
        }
        apikey_close(client);
    }
}

}  // namespace

Clients::~Clients() {
    for (unsigned client = 0; client < kClientKinds; ++client) {
        if (pids_[client] > 0) {
            kill(-pids_[client], SIGKILL);
            reap(client);
        }
    }
}

void Clients::start_all() {
    // A killed client's children come to this process, so that their end can be waited for.
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    for (unsigned client = 0; client < kClientKinds; ++client) {
        start(client);
    }
}

void Clients::start(unsigned client) {
    const pid_t parent = getpid();
    const unsigned seed = 1000 * ++started_;
    const pid_t pid = fork();
    if (pid < 0) {
        throw std::runtime_error("cannot fork a client");
    }
    if (pid == 0) {
        setpgid(0, 0);
        follow(parent);
        const auto kind = static_cast<ClientKind>(client);
        // Whose requests leave the switch to the housekeeping asks for few keys that would be refused.
        const Among among{limits_.first(), kind == ClientKind::kKept ? stable_ : 0};
        if (kind == ClientKind::kPassing) {
            run_passing(site_, board_, among, client * kLanesPerClient, seed);
        } else {
            run_threads(site_, board_, kind, among, client * kLanesPerClient, seed);
        }
        _exit(0);
    }
    setpgid(pid, pid);
    pids_[client] = pid;
}

/// Waits for the whole group, which has been killed or has ended.
void Clients::reap(unsigned client) {
    while (waitpid(-pids_[client], nullptr, 0) > 0 || errno == EINTR) {
    }
    pids_[client] = -1;
    for (unsigned lane = 0; lane < kLanesPerClient; ++lane) {
        board_.lane_ended(client * kLanesPerClient + lane);
        limits_.lane_ended(client * kLanesPerClient + lane);
    }
}

void Clients::replace(unsigned client) {
    kill(-pids_[client], SIGKILL);
    reap(client);
    start(client);
}

void Clients::replace_all() {
    for (unsigned client = 0; client < kClientKinds; ++client) {
        replace(client);
    }
}

void Clients::halt(unsigned client) const {
    kill(-pids_[client], SIGSTOP);
}

void Clients::go_on(unsigned client) const {
    kill(-pids_[client], SIGCONT);
}

std::vector<int> Clients::replace_ended() {
    std::vector<int> statuses;
    for (unsigned client = 0; client < kClientKinds; ++client) {
        int status = 0;
        if (waitpid(pids_[client], &status, WNOHANG) == pids_[client]) {
            statuses.push_back(status);
            replace(client);
        }
    }
    return statuses;
}

std::vector<int> Clients::end_all() {
    board_.stop();
    std::vector<int> statuses;
    for (unsigned client = 0; client < kClientKinds; ++client) {
        int status = 0;
        while (waitpid(pids_[client], &status, 0) < 0 && errno == EINTR) {
        }
        if (status != 0) {
            statuses.push_back(status);
        }
        kill(-pids_[client], SIGKILL);
        reap(client);
    }
    return statuses;
}

}  // namespace apikeyd::test
