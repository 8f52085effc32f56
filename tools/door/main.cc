// apikeyd-door: the admin door of one instance, over HTTP.

#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include "base/errno_text.h"
#include "core/preflight.h"
#include "tools/door/door.h"
#include "tools/door/http_server.h"
#include "tools/new_key.h"

namespace apikeyd {

namespace {

/// Removes the socket file of a door that is dead; one that is alive is an error.
Result<void> remove_stale_socket(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) {
        return fail(path + ": a socket's path has at most " + std::to_string(sizeof address.sun_path - 1) +
                    " bytes");
    }
    std::memcpy(address.sun_path, path.data(), path.size());
    struct stat status {};
    if (lstat(path.c_str(), &status) != 0) {
        return errno == ENOENT ? Result<void>() : fail(path + ": " + errno_text(errno));
    }
    if (!S_ISSOCK(status.st_mode)) {
        return fail(path + ": is there and is no socket (move it away)");
    }
    const OwnedFd probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!probe.is_open()) {
        return fail(path + ": socket: " + errno_text(errno));
    }
    if (connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
        return fail(path + ": another door listens there (end it first)");
    }
    if (errno != ECONNREFUSED || unlink(path.c_str()) != 0) {
        return fail(path + ": cannot take the place of the socket that is there: " + errno_text(errno));
    }
    return {};
}

Result<std::unique_ptr<Log>> open_log(const LogConfig& config) {
    const char* journal = getenv("JOURNAL_STREAM");
    return Log::open({.format = config.format,
                      .level_min = config.level,
                      .journal_stream = journal != nullptr ? journal : ""});
}

Result<void> run(const Context& context) {
    if (!context.config()) {
        return fail(context.config_error());
    }
    if (const auto store = context.store(); !store) {
        return fail(store.error().message);
    }
    const Config& config = *context.config();
    const Result<Groups> groups = find_groups(config);
    const auto log = open_log(config.log);
    if (!groups || !log) {
        return tl::unexpected(groups ? log.error() : groups.error());
    }
    const std::string path = context.instance_directory() + "/door.sock";
    if (Result<void> free = remove_stale_socket(path); !free) {
        return free;
    }
    constexpr mode_t kMode = 0660;
    auto listener = listen_on(path, kMode, groups->operators);
    if (!listener) {
        return fail(listener.error().message + " (start apikeyd first: it makes the directory)");
    }
    const Door door(context, groups->operators, **log);
    HttpServerOptions options{.unix_listener = *std::move(listener),
                              .tcp = config.door,
                              .handler = [&](const HttpRequest& request) { return door.answer(request); },
                              .every_second = [&] { door.keep_house(); },
                              .on_ready =
                                  [&](const std::string& tcp) {
                                      (*log)->info("door.ready", {{"socket", path}, {"tcp", tcp}});
                                  },
                              .on_problem =
                                  [&](const std::string& event, const std::string& reason) {
                                      (*log)->warn(event, {{"reason", reason}});
                                  }};
    Result<void> served = serve_http(std::move(options));
    unlink(path.c_str());
    return served;
}

}  // namespace

}  // namespace apikeyd

int main(int argc, char** argv) {
    using namespace apikeyd;
    // First of all: from here on no core, and no other process of this user, sees what is held.
    if (const Outcome guarded = guard_plaintext(); !guarded) {
        say(guarded.error().message);
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    CLI::App app{"Serves the verbs of apikeyctl over HTTP. See apikeyd-door(8)."};
    GlobalOptions options;
    options.config_path = kConfigDefault;
    app.add_option("-c,--config", options.config_path, "the daemon's configuration file")
        ->capture_default_str();
    app.add_option("--store", options.store,
                   "the key set, yaml:PATH, sqlite:PATH or postgresql://... [what the configuration says]");
    app.set_version_flag("--version", "apikeyd-door " APIKEYD_VERSION);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        constexpr int kUsage = 2;
        return app.exit(error) == 0 ? 0 : kUsage;
    }
    const Context context(options);
    if (const Result<void> ran = run(context); !ran) {
        say(ran.error().message);
        return 1;
    }
    return 0;
}
