// Forked children of a test: run a function there, tell how it ended.

#pragma once

#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <exception>

namespace apikey::test {

/// A function ran in a forked child answers with its exit status; 0 is what tests expect. An exception there
/// is printed and answered with 99. Signals of the child's end show as 128 + signal.
class Child {
  public:
    template <typename Function>
    explicit Child(Function function) : pid_(fork()) {
        if (pid_ == 0) {
            int status = 99;
            try {
                status = function();
            } catch (const std::exception& error) {
                fprintf(stderr, "child: %s\n", error.what());
            }
            _exit(status);  // no destructor of the parent's objects runs here
        }
    }
    ~Child() {
        if (!waited_ && pid_ > 0) {  // the test has failed, and the child may wait for it for ever
            kill(pid_, SIGKILL);
            wait();
        }
    }
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;

    pid_t pid() const { return pid_; }

    int wait() {
        int status = 0;
        waited_ = true;
        while (waitpid(pid_, &status, 0) < 0) {
            if (errno != EINTR) {
                return -1;
            }
        }
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }

  private:
    pid_t pid_;
    bool waited_ = false;
};

/// Runs `function` in a forked child and waits.
template <typename Function>
int in_child(Function function) {
    return Child(function).wait();
}

}  // namespace apikey::test
