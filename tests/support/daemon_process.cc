#include "support/daemon_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <thread>

#include "runtime/unix_client.h"
#include "source/config_yaml.h"

namespace apikeyd::test {
namespace {

using namespace std::chrono_literals;

/// The program, opened before a test changes its user: a folder on the way to it may be closed to others.
const int g_program = [] {
    const char* path = getenv("APIKEYD");
    return path != nullptr ? open(path, O_RDONLY | O_CLOEXEC) : -1;
}();

constexpr auto kPatience = 300s;  // what hangs ends; a busy machine with sanitizers does not

int reap(pid_t pid) {
    int status = 0;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            throw std::runtime_error("waitpid");
        }
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

DaemonProcess::~DaemonProcess() {
    if (pid_ > 0) {
        kill9();
    }
}

void DaemonProcess::start() {
    if (g_program < 0) {
        throw std::runtime_error("APIKEYD is not set: run this test by meson");
    }
    pid_ = fork();
    if (pid_ == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);  // a test that is killed leaves no daemon behind
        setpgid(0, 0);                     // and the terminal's signals are for the test
        const int log = open(stderr_path().c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        dup2(log, STDERR_FILENO);
        const std::string name = "apikeyd";
        const std::string option = "--config";
        char* const arguments[] = {const_cast<char*>(name.c_str()), const_cast<char*>(option.c_str()),
                                   const_cast<char*>(config_.c_str()), nullptr};
        fexecve(g_program, arguments, environ);
        _exit(127);
    }
    if (pid_ < 0) {
        throw std::runtime_error("fork");
    }
}

void DaemonProcess::kill9() {
    kill(pid_, SIGKILL);
    wait();
}

int DaemonProcess::terminate() {
    kill(pid_, SIGTERM);
    return wait();
}

int DaemonProcess::wait() {
    const int status = reap(pid_);
    pid_ = -1;
    return status;
}

std::string DaemonProcess::socket_path() const {
    const auto config = load_config(config_);
    if (!config) {
        throw std::runtime_error(config.error().message);
    }
    return config->directory + "/" + config->instance + "/admin.sock";
}

void DaemonProcess::wait_ready() {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    const std::string path = socket_path();
    const std::string mine = "\"pid\":" + std::to_string(pid_) + ",";
    for (;;) {
        const auto answer = apikeyd::request(path, R"({"verb":"status"})", 10000);
        if (answer && answer->find(mine) != std::string::npos) {
            return;
        }
        int status = 0;
        if (waitpid(pid_, &status, WNOHANG) == pid_) {
            pid_ = -1;
            std::ifstream said(stderr_path());
            throw std::runtime_error("the daemon ended before it was ready (wait status " +
                                     std::to_string(status) +
                                     "): " + std::string(std::istreambuf_iterator<char>(said), {}));
        }
        if (std::chrono::steady_clock::now() > deadline) {
            throw std::runtime_error("the daemon does not get ready; see " + stderr_path());
        }
        std::this_thread::sleep_for(5ms);
    }
}

std::string DaemonProcess::request(const std::string& line) const {
    const auto answer = apikeyd::request(socket_path(), line, 300000);
    if (!answer) {
        throw std::runtime_error(answer.error().message);
    }
    return *answer;
}

}  // namespace apikeyd::test
