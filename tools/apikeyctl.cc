// apikeyctl: parse the command line, run one verb, tell how it ended.

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <optional>
#include <vector>

#include "tools/verb.h"
#include "tools/verbs/registry.h"

namespace {

using apikeyd::Exit;

/// A closed standard descriptor would be the number of the next file that is opened, and what is printed
/// would end there: a plaintext key in the lock file. A directory takes its place, which nobody reads or
/// writes.
void keep_standard_descriptors() {
    int fd = 0;
    while (fd >= 0 && fd <= STDERR_FILENO) {
        fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (fd >= 0) {
        close(fd);
    }
}

}  // namespace

int main(int argc, char** argv) {
    // A reader of our output that went away is an error of write(), told like any other.
    signal(SIGPIPE, SIG_IGN);
    keep_standard_descriptors();
    apikeyd::CommandLine line;
    std::vector<apikeyd::Verb> verbs;
    verbs.reserve(std::size(apikeyd::kVerbs));
    for (const apikeyd::AddVerb add : apikeyd::kVerbs) {
        verbs.push_back(add(line));
    }
    if (const std::optional<Exit> ended = line.parse(argc, argv)) {
        return static_cast<int>(*ended);
    }
    const apikeyd::Context context(line.globals());
    for (const apikeyd::Verb& verb : verbs) {
        if (verb.command.chosen()) {
            const apikeyd::Outcome outcome = verb.run(context);
            if (!outcome && !outcome.error().message.empty()) {
                apikeyd::say(outcome.error().message);
            }
            return static_cast<int>(outcome ? Exit::kDone : outcome.error().exit);
        }
    }
    return static_cast<int>(Exit::kUsage);
}
