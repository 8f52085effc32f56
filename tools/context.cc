#include "tools/context.h"

#include <algorithm>
#include <ctime>

#include "base/instance_place.h"
#include "runtime/unix_client.h"
#include "source/config_yaml.h"

namespace apikeyd {

Context::Context(GlobalOptions options) : options_(std::move(options)) {
    config_path_ = options_.config_path.empty() ? kConfigDefault : options_.config_path;
    Result<Config> config = load_config(config_path_);
    if (config) {
        config_ = *std::move(config);
    } else {
        config_error_ = config.error().message;
    }
    instance_ = !options_.instance.empty() ? options_.instance
                : config_                  ? config_->instance
                                           : apikey::shm::kInstanceDefault;
    directory_ = !options_.directory.empty() ? options_.directory
                 : config_                   ? config_->directory
                                             : usual_directory(instance_);
}

tl::expected<StoreName, Failure> Context::store() const {
    if (!options_.store.empty()) {
        const Result<StoreName> named = store_named(options_.store);
        return named ? tl::expected<StoreName, Failure>(*named)
                     : failed(Exit::kUsage, "--store: " + named.error().message);
    }
    if (!config_) {
        return failed(Exit::kUnreachable, config_error_ +
                                              "\n(name another file with --config, or the key set with "
                                              "--store)");
    }
    return config_->source;
}

tl::expected<std::string, Failure> Context::usage_path() const {
    if (!config_) {
        return failed(Exit::kUnreachable,
                      config_error_ + "\n(it names the usage store; name another with --config)");
    }
    return config_->usage_path;
}

bool Context::own_directory() const {
    return options_.directory.empty() && !config_ && directory_ != default_directory(0);
}

Context Context::on_behalf_of(std::string whom) const {
    Context context = *this;
    context.whom_ = std::move(whom);
    return context;
}

Context Context::waiting_at_most(uint32_t wait_ms) const {
    Context context = *this;
    context.wait_ms_max_ = wait_ms;
    return context;
}

Context Context::checked_by(CheckSet check) const {
    Context context = *this;
    context.check_ = std::move(check);
    return context;
}

Outcome Context::check_config() const {
    if (!config_ && !options_.config_path.empty()) {
        return failed(Exit::kUnreachable, config_error_);
    }
    return {};
}

tl::expected<std::string, Failure> Context::ask(const AdminRequest& request, int64_t wait_ms) const {
    const int64_t at_most_ms = std::min(wait_ms, int64_t{wait_ms_max_.value_or(UINT32_MAX)});
    auto answer = apikeyd::request(socket_path(), format_request(request), at_most_ms);
    if (!answer) {
        const RequestError& error = answer.error();
        const Daemon daemon = error.failure == RequestFailure::forbidden ? Daemon::kForbidden
                              : error.failure == RequestFailure::timeout ? Daemon::kSilent
                                                                         : Daemon::kDown;
        return tl::unexpected<Failure>(Failure{Exit::kUnreachable, error.message, daemon});
    }
    return *std::move(answer);
}

tl::expected<DaemonStatus, Failure> Context::ask_status() const {
    const auto answer = ask(StatusRequest{}, kStatusWait_ms);
    if (!answer) {
        return tl::unexpected(answer.error());
    }
    Result<DaemonStatus> status = parse_status(*answer);
    if (!status) {
        return failed(Exit::kUnreachable, socket_path() + ": " + status.error().message);
    }
    return *std::move(status);
}

int64_t now_s() {
    return static_cast<int64_t>(time(nullptr));
}

}  // namespace apikeyd
