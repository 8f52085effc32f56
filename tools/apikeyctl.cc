// apikeyctl: parse the command line, run one verb, tell how it ended.

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <map>

#include "source/config.h"
#include "tools/verb.h"
#include "tools/verbs/registry.h"

namespace {

using apikeyd::Exit;
using apikeyd::OutputForm;

void add_globals(CLI::App& app, apikeyd::GlobalOptions& globals) {
    const std::map<std::string, OutputForm> forms = {
        {"table", OutputForm::table}, {"json", OutputForm::json}, {"csv", OutputForm::csv}};
    app.add_option("-c,--config", globals.config_path,
                   "the daemon's configuration file [/etc/apikeyd/apikeyd.yaml]");
    app.add_option("--store", globals.store, "the key set, yaml:PATH [what the configuration says]");
    app.add_option("--directory", globals.directory,
                   "the base directory of instances [what the configuration says]");
    const auto check_instance = [](const std::string& name) {
        return apikeyd::is_instance_name(name) ? std::string() : std::string("no instance's name");
    };
    app.add_option("--instance", globals.instance, "the daemon's instance [what the configuration says]")
        ->check(CLI::Validator(check_instance, ""));
    app.add_option("--output", globals.output, "table, json or csv [table]")
        ->transform(CLI::CheckedTransformer(forms).description(""));
    // Also behind the verb, where people put them.
    app.fallthrough();
}

/// CLI11's text may repeat an argument, and that may be a key given by mistake.
std::string usage_text(const CLI::Error& error) {
    if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::ExtrasError)) {
        return "an argument too many (a key is read from standard input, never from the command line)";
    }
    return error.what();
}

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
    CLI::App app{"Issues, revokes and inspects the API keys of apikeyd. See apikeyctl(1)."};
    app.require_subcommand(1);
    app.set_version_flag("--version", "apikeyctl " APIKEYD_VERSION);
    app.get_formatter()->column_width(30);
    apikeyd::GlobalOptions globals;
    add_globals(app, globals);
    std::vector<apikeyd::Verb> verbs;
    verbs.reserve(std::size(apikeyd::kVerbs));
    for (const apikeyd::AddVerb add : apikeyd::kVerbs) {
        verbs.push_back(add(app));
    }
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& asked) {
        return app.exit(asked);
    } catch (const CLI::ParseError& error) {
        apikeyd::say("apikeyctl: " + usage_text(error) + "\nTry --help.");
        return static_cast<int>(Exit::kUsage);
    }
    const apikeyd::Context context(globals);
    for (const apikeyd::Verb& verb : verbs) {
        if (verb.command->parsed()) {
            const apikeyd::Outcome outcome = verb.run(context);
            if (!outcome && !outcome.error().message.empty()) {
                apikeyd::say(outcome.error().message);
            }
            return static_cast<int>(outcome ? Exit::kDone : outcome.error().exit);
        }
    }
    return static_cast<int>(Exit::kUsage);
}
