// explain: why a request with a key would pass or fail, check by check, from shared memory.

#include "client/explain.h"

#include <chrono>
#include <memory>

#include "source/rfc3339.h"
#include "source/yaml_events.h"
#include "tools/validator.h"
#include "tools/verbs/registry.h"

namespace apikeyd {

namespace {

using apikey::client::Explanation;
using apikey::client::Finding;
using Look = apikey::client::Bill::Look;

struct ExplainOptions {
    std::string id;
    std::optional<std::string> scope;
    std::optional<std::string> address;
    std::optional<std::string> environment;
    uint64_t cost = 1;
};

/// A request's parts, in the client's form.
struct Wanted {
    struct FreeScopes {
        void operator()(apikey_scopes* scopes) const { apikey_scopes_free(scopes); }
    };
    std::unique_ptr<apikey_scopes, FreeScopes> scopes;
    std::optional<apikey_address> address;
};

tl::expected<Wanted, Failure> wanted_of(const Validator& validator, const ExplainOptions& options) {
    Wanted wanted;
    if (options.scope) {
        apikey_scopes* scopes = nullptr;
        size_t at = 0;
        const apikey_result result =
            apikey_scopes_compile(validator.get(), options.scope->c_str(), &scopes, &at);
        if (result != APIKEY_OK) {
            return failed(Exit::kUsage, "--scope: " + yaml_quote(*options.scope) + ", character " +
                                            std::to_string(at + 1) + ": " + apikey_result_text(result));
        }
        wanted.scopes.reset(scopes);
    }
    if (options.address) {
        apikey_address address;
        if (apikey_address_parse(options.address->data(), options.address->size(), &address) != APIKEY_OK) {
            return failed(Exit::kUsage, "--address: " + yaml_quote(*options.address) +
                                            " is no address (want e.g. 192.0.2.7 or 2001:db8::7)");
        }
        wanted.address = address;
    }
    return wanted;
}

const char* word(Finding finding) {
    return finding == Finding::kNotAsked ? "not asked" : finding == Finding::kPassed ? "passed" : "failed";
}

Record row(const char* check, const char* result, std::string detail) {
    return {{"check", std::string(check)},
            {"result", std::string(result)},
            {"detail", text_or_none(std::move(detail))},
            {"limit", {}},
            {"of", {}},
            {"shadow", {}},
            {"allowance", {}},
            {"remaining", {}},
            {"reset_ms", {}}};
}

const std::vector<std::string_view> kRowNames = {"check",  "result",    "detail",    "limit",   "of",
                                                 "shadow", "allowance", "remaining", "reset_ms"};

/// Unix time.
uint64_t now_ms() {
    using namespace std::chrono;
    return static_cast<uint64_t>(duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count());
}

std::string limit_detail(const Look& look) {
    if (look.passes) {
        return "";
    }
    const uint64_t wait_ms = look.state.retry_after_ms;
    const std::string when =
        wait_ms == UINT64_MAX
            ? "the cost is more than it ever allows"
            : "not before " + format_rfc3339(static_cast<int64_t>((now_ms() + wait_ms + 500) / 1000));
    return look.shadow ? "in shadow mode; would refuse: " + when : when;
}

Record limit_row(const Look& look) {
    return {{"check", std::string(look.rate ? "rate" : "quota")},
            {"result", std::string(word(look.passes || look.shadow ? Finding::kPassed : Finding::kFailed))},
            {"detail", text_or_none(limit_detail(look))},
            {"limit", std::string(look.state.name)},
            {"of", std::string(look.of_owner ? "owner" : "key")},
            {"shadow", look.shadow},
            {"allowance", look.state.allowance},
            {"remaining", look.state.remaining},
            {"reset_ms", look.state.reset_ms}};
}

std::string address_detail(const Explanation& found, const ExplainOptions& options) {
    const std::string networks = std::to_string(found.networks) + " networks";
    if (found.address == Finding::kNotAsked) {
        return "from anywhere";
    }
    if (!options.address) {
        return "none is given, and the key is bound to " + networks;
    }
    return (found.address == Finding::kPassed ? "in one of its " : "in none of its ") + networks;
}

std::vector<Record> rows_of(const Explanation& found, const ExplainOptions& options) {
    std::vector<Record> rows = {
        row("known", word(found.known), found.known == Finding::kPassed ? "" : "no such key in the table")};
    if (found.known != Finding::kPassed) {
        return rows;
    }
    rows.push_back(row("state", word(found.state),
                       found.state_code == APIKEY_VALID     ? "active"
                       : found.state_code == APIKEY_REVOKED ? "revoked"
                                                            : "disabled"));
    rows.push_back(row("expiry", word(found.expiry),
                       found.expires_at == 0 ? "never" : format_rfc3339(found.expires_at)));
    rows.push_back(row("environment", word(found.environment), found.key_environment));
    rows.push_back(row("address", word(found.address), address_detail(found, options)));
    rows.push_back(row("scopes", word(found.scopes), options.scope.value_or("")));
    if (found.metered == apikey::client::Spent::kNotMetered) {
        rows.push_back(row("limits", word(Finding::kFailed), "this process cannot write the meters"));
    } else if (found.limit_count == 0) {
        rows.push_back(row("limits", word(Finding::kNotAsked), "it has none"));
    }
    for (uint32_t i = 0; i < found.limit_count; ++i) {
        rows.push_back(limit_row(found.limits[i]));
    }
    return rows;
}

Outcome print_explanation(const Context& context, const Explanation& found, const ExplainOptions& options) {
    std::vector<Record> rows = rows_of(found, options);
    const std::string code = apikey_code_name(found.code);
    if (context.output() == OutputForm::json) {
        return print(json_object({{"id", options.id},
                                  {"code", code},
                                  {"stale", (found.flags & APIKEY_FLAG_STALE) != 0},
                                  {"checks", RawJson{json_list(rows)}}}) +
                     '\n');
    }
    rows.push_back(
        row("verdict", word(found.code == APIKEY_VALID ? Finding::kPassed : Finding::kFailed), code));
    return print(format_list(context.output(), kRowNames, rows));
}

Outcome explain(const Context& context, const ExplainOptions& options) {
    if (Outcome usable = context.check_config(); !usable) {
        return usable;
    }
    if (options.environment &&
        (options.environment->empty() || options.environment->size() > kEnvironmentBytesMax)) {
        return failed(Exit::kUsage,
                      "--environment: want 1 to " + std::to_string(kEnvironmentBytesMax) + " characters");
    }
    const Validator validator = open_validator(context, options.environment.value_or(""));
    if (validator == nullptr) {
        return failed(Exit::kUnreachable, context.instance_directory() + ": cannot be opened as an instance");
    }
    if (const apikey_status_info status = validator_status(validator); status.generation == 0) {
        return failed(Exit::kUnreachable, context.instance_directory() + ": " + status.text);
    }
    const auto wanted = wanted_of(validator, options);
    if (!wanted) {
        return tl::unexpected(wanted.error());
    }
    const apikey::client::Asked asked{wanted->scopes.get(), wanted->address ? &*wanted->address : nullptr,
                                      static_cast<uint32_t>(options.cost), nullptr};
    const Explanation found = apikey::client::explain(validator.get(), options.id.c_str(), asked);
    if (Outcome printed = print_explanation(context, found, options); !printed) {
        return printed;
    }
    return found.code == APIKEY_VALID ? Outcome() : failed(Exit::kNo, "");
}

}  // namespace

Verb add_explain(CommandLine& line) {
    auto options = std::make_shared<ExplainOptions>();
    Command command = line.add_verb(
        "explain", "tell why a request with a key would pass or fail, check by check; nothing is spent");
    command.add_id(options->id);
    command.add_option("--scope", options->scope,
                       "what is asked for: '(reports.read OR admin) AND billing.read'");
    command.add_option("--address", options->address, "where the request comes from");
    command.add_option("--environment", options->environment, "the one that the server takes keys of");
    command.add_number("--cost", options->cost, 1, UINT32_MAX, "requests that it counts as");
    command.set_example("apikeyctl explain 2RkT9pQwX4Za --scope reports.read --address 192.0.2.7");
    return {command, [options](const Context& context) { return explain(context, *options); }};
}

}  // namespace apikeyd
