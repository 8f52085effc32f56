#include "tools/terms_options.h"

#include <algorithm>
#include <utility>

#include "source/limit_option.h"
#include "source/limit_text.h"
#include "source/yaml_events.h"

namespace apikeyd {

namespace {

tl::expected<std::vector<std::string>, Failure> read_scopes(const std::vector<std::string>& names) {
    std::vector<std::string> scopes = names;
    for (const std::string& name : scopes) {
        if (const auto fault = scope_fault(name)) {
            return failed(Exit::kUsage, "--scope: " + yaml_quote(name) + " is no scope (" + *fault + ")");
        }
    }
    std::sort(scopes.begin(), scopes.end());
    scopes.erase(std::unique(scopes.begin(), scopes.end()), scopes.end());
    return scopes;
}

tl::expected<std::vector<AddressRangeRow>, Failure> read_addresses(const std::vector<std::string>& texts) {
    std::vector<AddressRangeRow> addresses;
    for (const std::string& text : texts) {
        const Result<AddressRangeRow> range = parse_address_range(text);
        if (!range) {
            return failed(Exit::kUsage, "--address: " + yaml_quote(text) + " " + range.error().message);
        }
        addresses.push_back(*range);
    }
    if (addresses.size() > kAddressesMax) {
        return failed(Exit::kUsage, "--address: more than " + std::to_string(kAddressesMax) + " (the limit)");
    }
    return addresses;
}

}  // namespace

void add_terms_options(Command& command, TermsOptions& options) {
    command.add_option("--plan", options.plan, "the plan whose limits it has");
    command.add_list("--scope", options.scopes,
                     "a scope that it is granted, reports.read, or a branch, reports.*");
    command.add_list("--address", options.addresses,
                     "an address or network that it may be used from, 192.0.2.0/24 [any]");
    command.add_list("--limit", options.limits,
                     "a limit in place of the plan's, burst=100/s,burst=200 or daily=1000/day");
}

tl::expected<std::vector<LimitRow>, Failure> read_limits(const std::vector<std::string>& texts) {
    std::vector<LimitRow> limits;
    for (const std::string& text : texts) {
        const Result<LimitRow> limit = parse_limit_option(text);
        if (!limit) {
            return failed(Exit::kUsage, "--limit: " + limit.error().message);
        }
        if (limit_named(limits, limit->name) != nullptr) {
            return failed(Exit::kUsage, "--limit: " + limit->name + " is given twice (want each limit once)");
        }
        limits.push_back(*limit);
    }
    return limits;
}

tl::expected<KeyTerms, Failure> read_terms(const TermsOptions& options) {
    KeyTerms terms;
    if (options.plan) {
        if (const auto fault = plan_name_fault(*options.plan)) {
            return failed(Exit::kUsage,
                          "--plan: " + yaml_quote(*options.plan) + " is no plan's name (" + *fault + ")");
        }
        terms.plan = *options.plan;
    }
    auto scopes = read_scopes(options.scopes);
    auto addresses = read_addresses(options.addresses);
    auto limits = read_limits(options.limits);
    if (!scopes || !addresses || !limits) {
        return tl::unexpected(!scopes ? scopes.error() : !addresses ? addresses.error() : limits.error());
    }
    terms.scopes = *std::move(scopes);
    terms.addresses = *std::move(addresses);
    terms.overrides = *std::move(limits);
    return terms;
}

Outcome change_limits(std::vector<LimitRow>& limits, const std::vector<LimitRow>& put,
                      const std::vector<std::string>& dropped, const std::string& whose) {
    for (const std::string& name : dropped) {
        if (limit_named(put, name) != nullptr) {
            return failed(Exit::kUsage, "--drop-limit: " + name + " is set by --limit");
        }
        if (std::erase_if(limits, [&](const LimitRow& one) { return one.name == name; }) == 0) {
            return failed(Exit::kNo, "--drop-limit: " + whose + " has no limit " + yaml_quote(name));
        }
    }
    for (const LimitRow& limit : put) {
        const auto there = std::find_if(limits.begin(), limits.end(),
                                        [&](const LimitRow& one) { return one.name == limit.name; });
        if (there != limits.end()) {
            *there = limit;
        } else {
            limits.push_back(limit);
        }
    }
    return {};
}

Outcome by_option(Outcome outcome, const TermsOptions& given) {
    if (outcome || outcome.error().field.empty()) {
        return outcome;
    }
    Failure failure = std::move(outcome.error());
    const std::string field = std::exchange(failure.field, {});
    if (field == "limits" && given.limits.empty()) {
        failure.message = "--plan: " + failure.message + "; see --drop-limit";
    } else {
        const std::string option = field == "limits" ? "limit" : field == "scopes" ? "scope" : field;
        failure.message = "--" + option + ": " + failure.message;
    }
    return tl::unexpected(std::move(failure));
}

}  // namespace apikeyd
