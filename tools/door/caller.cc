#include "tools/door/caller.h"

#include <strings.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "shm/scope_name.h"
#include "tools/door/problem.h"
#include "tools/read_store.h"

namespace apikeyd {

namespace {

constexpr const char* kRealm = "Bearer realm=\"apikeyd\"";

/// `error` of RFC 6750; empty: none.
HttpAnswer challenge(unsigned status, std::string_view detail, std::string_view error,
                     std::string_view scopes = {}) {
    HttpAnswer answer = problem(status, detail);
    std::string value = kRealm;
    if (!error.empty()) {
        value.append(", error=\"").append(error).append("\"");
    }
    if (!scopes.empty()) {
        value.append(", scope=\"").append(scopes).append("\"");
    }
    answer.headers.emplace_back("WWW-Authenticate", std::move(value));
    return answer;
}

/// One and the same for all keys that are not accepted.
HttpAnswer not_accepted() {
    return challenge(401, "The API key is not accepted.", "invalid_token");
}

HttpAnswer lacks_scope(const std::vector<std::string_view>& scopes) {
    return challenge(403, "The API key does not permit this.", "insufficient_scope", scopes.front());
}

HttpAnswer cannot_check() {
    HttpAnswer answer = problem(503, "Keys cannot be checked now.", {.recorded = false});
    answer.headers.emplace_back("Retry-After", "1");
    return answer;
}

HttpAnswer limit_reached(const apikey_limits& limits) {
    HttpAnswer answer = problem(429, "A limit of the API key is reached.");
    const uint64_t wait_ms = std::max(limits.rate.retry_after_ms, limits.quota.retry_after_ms);
    constexpr uint64_t kSecond_ms = 1000;
    if (wait_ms != UINT64_MAX) {
        const uint64_t wait_s = std::max<uint64_t>((wait_ms + kSecond_ms - 1) / kSecond_ms, 1);
        answer.headers.emplace_back("Retry-After", std::to_string(wait_s));
    }
    return answer;
}

/// Points into the request.
struct Credential {
    std::optional<std::string_view> key;
    bool conflicting = false;  ///< two different ones were sent
};

/// `Authorization: Bearer KEY`, then `X-API-Key: KEY`. Never from the URL: URLs end up in logs.
Credential credential_of(const HttpRequest& request) {
    Credential credential;
    const auto add = [&credential](std::string_view key) {
        credential.conflicting = credential.conflicting || (credential.key && *credential.key != key);
        credential.key = credential.key.value_or(key);
    };
    constexpr std::string_view kScheme = "Bearer ";
    for (const SecretText& sent : request.authorization) {
        std::string_view value = sent;
        if (value.size() >= kScheme.size() &&
            strncasecmp(value.data(), kScheme.data(), kScheme.size()) == 0) {
            value.remove_prefix(std::min(value.find_first_not_of(' ', kScheme.size()), value.size()));
            add(value);
        }
    }
    for (const SecretText& sent : request.api_key) {
        add(sent);
    }
    return credential;
}

bool is_usable(const KeyRow& row) {
    return row.state == KeyState::kActive && (!row.expires_s || *row.expires_s > now_s());
}

struct FreeScopes {
    void operator()(apikey_scopes* scopes) const { apikey_scopes_free(scopes); }
};
using Scopes = std::unique_ptr<apikey_scopes, FreeScopes>;

/// Any of `scopes`, as far as the key set defines them: nobody can hold the others. nullptr: no memory, or
/// none is defined.
Scopes any_of(apikey_client* client, const std::vector<std::string_view>& scopes) {
    std::string expression;
    apikey_scopes* compiled = nullptr;
    for (const std::string_view scope : scopes) {
        const std::string more = expression + (expression.empty() ? "" : " OR ") + std::string(scope);
        apikey_scopes* with_it = nullptr;
        if (apikey_scopes_compile(client, more.c_str(), &with_it, nullptr) == APIKEY_OK) {
            apikey_scopes_free(std::exchange(compiled, with_it));
            expression = more;
        }
    }
    return Scopes(compiled);
}

}  // namespace

bool is_door_scope(std::string_view scope) {
    constexpr std::string_view kPrefix = "apikeyd.";
    return scope.starts_with(kPrefix) ||
           (apikey::shm::is_branch(scope) && kPrefix.starts_with(scope.substr(0, scope.size() - 1)));
}

bool Caller::holds(std::string_view scope) const {
    return is_operator ||
           std::any_of(terms.scopes.begin(), terms.scopes.end(),
                       [&](const std::string& granted) { return apikey::shm::scope_covers(granted, scope); });
}

bool Caller::owns(const KeyRow& row) const {
    return row.id == key_id || (!owner.empty() && row.owner == owner);
}

std::string_view Caller::not_to_grant(const std::vector<std::string>& scopes_granted) const {
    const auto found =
        std::find_if(scopes_granted.begin(), scopes_granted.end(),
                     [&](const std::string& one) { return is_door_scope(one) && !holds(one); });
    return found != scopes_granted.end() ? std::string_view(*found) : std::string_view();
}

std::optional<HttpAnswer> let_in_no_more(const Caller& caller, KeySet& set) {
    if (caller.is_operator) {
        return std::nullopt;
    }
    const Result<std::optional<KeyRow>> row = set.key(caller.key_id);
    if (!row) {
        say(row.error().message);
        return cannot_check();
    }
    if (!*row || !is_usable(**row)) {
        return not_accepted();
    }
    // What else it may now, they find out when they ask again.
    const bool as_before = (*row)->owner == caller.owner && terms_of(**row) == caller.terms;
    return as_before ? std::nullopt : std::optional(cannot_check());
}

Gate::Gate(const Context& context, gid_t operators)
    : context_(context), operators_(operators), validator_(open_validator(context)) {}

void Gate::keep_house() const {
    apikey_refresh(validator_.get());
}

tl::expected<Caller, HttpAnswer> Gate::admit(const HttpRequest& request,
                                             const std::vector<std::string_view>& scopes) const {
    const Credential credential = credential_of(request);
    if (credential.conflicting) {
        return tl::unexpected(challenge(400, "Two different API keys were sent.", "invalid_request"));
    }
    // Also on the Unix socket a key makes its holder the caller: who passes on others' requests there must
    // not lend them their own rights.
    if (credential.key) {
        return admit_key(request, *credential.key, scopes);
    }
    return request.peer ? admit_operator(request)
                        : tl::unexpected(challenge(401, "No API key was sent.", ""));
}

tl::expected<Caller, HttpAnswer> Gate::admit_operator(const HttpRequest& request) const {
    const Peer& peer = *request.peer;
    if (peer.uid != 0 && peer.uid != geteuid() && !peer.in_group(operators_)) {
        return tl::unexpected(
            problem(403, "This needs root, the daemon's user or the operators' group, or an API key."));
    }
    Caller caller;
    caller.is_operator = true;
    caller.uid = peer.uid;
    return caller;
}

tl::expected<Caller, HttpAnswer> Gate::admit_key(const HttpRequest& request, std::string_view key,
                                                 const std::vector<std::string_view>& scopes) const {
    if (validator_ == nullptr) {
        return tl::unexpected(cannot_check());
    }
    const Scopes required = any_of(validator_.get(), scopes);
    apikey_limits limits{};
    limits.size = sizeof limits;
    apikey_request asked = APIKEY_REQUEST_INIT;
    asked.scopes = required.get();
    asked.address = request.address ? &*request.address : nullptr;
    asked.limits = &limits;
    apikey_verdict verdict{};
    apikey_validate_request(validator_.get(), key.data(), key.size(), &asked, &verdict);
    switch (verdict.code) {
        case APIKEY_VALID:
            break;
        case APIKEY_UNAVAILABLE:
            return tl::unexpected(cannot_check());
        case APIKEY_IP_NOT_ALLOWED:
        case APIKEY_INSUFFICIENT_PERMISSIONS:
            return tl::unexpected(lacks_scope(scopes));
        case APIKEY_RATE_LIMITED:
        case APIKEY_USAGE_EXCEEDED:
            return tl::unexpected(limit_reached(limits));
        default:
            return tl::unexpected(not_accepted());
    }
    return required != nullptr ? caller_of(verdict, scopes) : tl::unexpected(lacks_scope(scopes));
}

tl::expected<Caller, HttpAnswer> Gate::caller_of(const apikey_verdict& verdict,
                                                 const std::vector<std::string_view>& scopes) const {
    char buffer[APIKEY_DESCRIPTION_MAX];
    apikey_description who{};
    who.size = sizeof who;
    if (apikey_describe(validator_.get(), &verdict, buffer, sizeof buffer, &who) != 1) {
        return tl::unexpected(not_accepted());  // it went this moment
    }
    const auto row = find_row(context_, who.key_id);
    if (!row) {
        say(row.error().message);
        return tl::unexpected(cannot_check());
    }
    // What the store says is never older than what is in force.
    if (!*row || !is_usable(**row)) {
        return tl::unexpected(not_accepted());
    }
    Caller caller;
    caller.key_id = (*row)->id;
    caller.owner = (*row)->owner;
    caller.terms = terms_of(**row);
    const bool permitted = std::any_of(scopes.begin(), scopes.end(),
                                       [&](std::string_view scope) { return caller.holds(scope); });
    return permitted ? tl::expected<Caller, HttpAnswer>(std::move(caller))
                     : tl::unexpected(lacks_scope(scopes));
}

}  // namespace apikeyd
