#include "tools/door/door.h"

#include <algorithm>

#include "base/without_secrets.h"
#include "tools/door/openapi.h"
#include "tools/door/route.h"

namespace apikeyd {

namespace {

/// Four changes that wait are all that are made at once: the others, and who only looks, must not wait for
/// long.
constexpr uint32_t kDoorWait_ms = 5'000;

constexpr std::string_view kDocument = "/v1/openapi.json";

/// The query's parameters; else what is wrong with one.
tl::expected<std::multimap<std::string, std::string>, HttpAnswer> parameters_of(std::string_view query,
                                                                                const Route& route) {
    std::multimap<std::string, std::string> parameters;
    while (!query.empty()) {
        const std::string_view one = query.substr(0, query.find('&'));
        query.remove_prefix(std::min(query.size(), one.size() + 1));
        if (one.empty()) {
            continue;
        }
        const size_t equals = one.find('=');
        const auto name = percent_decoded(one.substr(0, equals), true);
        const auto value =
            percent_decoded(equals == std::string_view::npos ? "" : one.substr(equals + 1), true);
        if (!name || !value) {
            return tl::unexpected(
                wrong_parameter(std::string(one.substr(0, equals)), "want %XX that make UTF-8"));
        }
        if (std::find(route.parameters.begin(), route.parameters.end(), *name) == route.parameters.end()) {
            return tl::unexpected(wrong_parameter(*name, "no such parameter"));
        }
        if (*name != "tag" && parameters.count(*name) != 0) {
            return tl::unexpected(wrong_parameter(*name, "want it once"));
        }
        parameters.emplace(*name, *value);
    }
    return parameters;
}

HttpAnswer document() {
    HttpAnswer answer{.status = 200, .content_type = "application/json"};
    answer.body.assign(kOpenApi);
    return answer;
}

/// The verbs that a path has, as Allow lists them; "": there is no such path.
std::string methods_of(std::string_view path) {
    std::string methods = path == kDocument ? "GET" : "";
    for (const Route& route : routes()) {
        if (match_path(route.path, path)) {
            methods += (methods.empty() ? "" : ", ") + std::string(route.method);
        }
    }
    return methods;
}

/// Who asks, in words.
std::string named(const Caller& caller) {
    return caller.is_operator ? "uid " + std::to_string(caller.uid) : "key " + caller.key_id;
}

void log_change(Log& log, const Route& route, const Caller& caller, const std::string& subject,
                const HttpAnswer& answer) {
    const bool by_key = !caller.is_operator;
    const LogField actor = by_key ? LogField("actor", caller.key_id) : LogField("uid", uint64_t{caller.uid});
    const std::string shown = without_secrets(subject);  // somebody may have put a key there
    const LogField fields[] = {actor,
                               {"method", route.method},
                               {"path", route.path},
                               {"subject", shown},
                               {"status", uint64_t{answer.status}}};
    constexpr unsigned kRefused = 400;
    log.write(answer.status < kRefused ? LogLevel::info : LogLevel::warn, "door.change", fields);
}

}  // namespace

HttpAnswer Door::answer(const HttpRequest& request) const try {
    const std::string_view target = request.target;
    const size_t question = std::min(target.find('?'), target.size());
    const std::string_view path = target.substr(0, question);
    const std::string methods = methods_of(path);
    if (methods.empty()) {
        return problem(404, "There is no such path.");
    }
    if (path == kDocument && request.method == "GET") {
        return document();
    }
    for (const Route& route : routes()) {
        const auto subject = route.method == request.method ? match_path(route.path, path) : std::nullopt;
        if (!subject) {
            continue;
        }
        const auto caller = gate_.admit(request, route.scopes);
        if (!caller) {
            return caller.error();
        }
        auto query = parameters_of(target.substr(std::min(question + 1, target.size())), route);
        if (!query) {
            return query.error();
        }
        // A change may wait for others', one of which may be of the caller's key.
        std::optional<HttpAnswer> refusal;
        const CheckSet check = [&](KeySet& set) -> Outcome {
            refusal = let_in_no_more(*caller, set);
            return refusal ? failed(Exit::kNo, Cause::kConflict, "the caller's key was changed") : Outcome();
        };
        const Context context =
            context_.on_behalf_of(named(*caller)).waiting_at_most(kDoorWait_ms).checked_by(check);
        const Call call{context, request, *caller, log_, *subject, *std::move(query)};
        HttpAnswer answer = route.answer(call);
        if (refusal) {
            answer = *std::move(refusal);
        }
        if (route.changes) {
            log_change(log_, route, *caller, *subject, answer);
        }
        return answer;
    }
    HttpAnswer answer = problem(405, "The path does not have this method.");
    answer.headers.emplace_back("Allow", methods);
    return answer;
} catch (const std::exception& error) {
    log_.error("door.failed", {{"reason", error.what()}});
    return problem(500, "The door failed; its log has more.");
}

}  // namespace apikeyd
