#include "bench/child_program.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "base/errno_text.h"
#include "bench/serving_run.h"

namespace apikey::bench {

namespace {

constexpr int kCannotRun = 127;  // as a shell says it

[[noreturn]] void become(char* const* arguments, const char* log, pid_t parent) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    const int out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == parent && dup2(out, STDOUT_FILENO) >= 0 &&
        dup2(out, STDERR_FILENO) >= 0) {
        execv(arguments[0], arguments);
    }
    _exit(kCannotRun);
}

}  // namespace

std::string built_program(const std::string& name) {
    std::error_code error;
    const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
    std::string path = self.parent_path().parent_path() / name;
    if (access(path.c_str(), X_OK) != 0) {
        throw RunEnded(kUnreachable, path + ": " + apikeyd::errno_text(errno) + "; `ninja -C " +
                                         self.parent_path().parent_path().string() + " " + name +
                                         "` makes it");
    }
    return path;
}

ChildProgram::ChildProgram(std::vector<std::string> command, const std::string& log) {
    std::vector<char*> arguments;
    arguments.reserve(command.size() + 1);
    for (std::string& word : command) {
        arguments.push_back(word.data());
    }
    arguments.push_back(nullptr);
    const pid_t parent = getpid();
    pid_ = fork();
    if (pid_ < 0) {
        throw RunEnded(kUnreachable, "cannot fork: " + apikeyd::errno_text(errno));
    }
    if (pid_ == 0) {
        become(arguments.data(), log.c_str(), parent);
    }
}

ChildProgram::~ChildProgram() {
    if (!status_) {
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
    }
}

std::optional<int> ChildProgram::ended() {
    int status = 0;
    if (!status_ && waitpid(pid_, &status, WNOHANG) == pid_) {
        status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
    return status_;
}

}  // namespace apikey::bench
