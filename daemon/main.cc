// apikeyd: parse, check or run.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "core/daemon.h"
#include "core/preflight.h"
#include "runtime/signals.h"
#include "source/config_yaml.h"
#include "source/source.h"

namespace {

enum Exit : int { kDone = 0, kFailed = 1, kUsage = 2 };

int tell(const apikeyd::Error& error) {
    std::fprintf(stderr, "%s\n", error.message.c_str());
    return kFailed;
}

/// Looks at what a start would parse, open or make, and changes nothing.
int check(const std::string& config_path, const apikeyd::Config& config) {
    int status = kDone;
    for (const apikeyd::Error& error : apikeyd::preflight(config)) {
        status = tell(error);
    }
    const auto content = apikeyd::make_source(config.source)->load({}, [](const apikeyd::KeyRow&) {});
    if (!content) {
        return tell(content.error());
    }
    for (const std::string& warning : (*content)->warnings) {
        std::fprintf(stderr, "%s (a warning)\n", warning.c_str());
    }
    if (status == kDone) {
        std::printf("%s: ok\n", config_path.c_str());
    }
    std::printf("%s: ok, %llu keys\n", config.source.shown().c_str(),
                static_cast<unsigned long long>((*content)->keys));
    return status;
}

}  // namespace

int main(int argc, char** argv) {
    // First of all: a SIGHUP that comes while we start must be seen, not kill us.
    if (const auto blocked = apikeyd::block_daemon_signals(); !blocked) {
        return tell(blocked.error());
    }
    CLI::App app{"Keeps a table of API key hashes in shared memory and answers for it. See apikeyd(8)."};
    std::string config_path = "/etc/apikeyd/apikeyd.yaml";
    bool only_check = false;
    app.add_option("-c,--config", config_path, "the configuration file")->capture_default_str();
    app.add_flag("--check", only_check, "check configuration and key set, then exit: 0 good, 1 errors");
    app.set_version_flag("--version", "apikeyd " APIKEYD_VERSION);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? kDone : kUsage;
    }
    const auto config = apikeyd::load_config(config_path);
    if (!config) {
        return tell(config.error());
    }
    if (only_check) {
        return check(config_path, *config);
    }
    if (const auto ran = apikeyd::run_daemon(*config); !ran) {
        return tell(ran.error());
    }
    return kDone;
}
