// What a key may do, on the command line: plan, scopes, addresses, limits of its own.

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "source/key_row.h"
#include "tools/command.h"
#include "tools/outcome.h"

namespace apikeyd {

/// As given.
struct TermsOptions {
    std::optional<std::string> plan;
    std::vector<std::string> scopes;
    std::vector<std::string> addresses;
    std::vector<std::string> limits;
};

void add_terms_options(Command& command, TermsOptions& options);

/// What they mean. Exit::kUsage names the option that is wrong in itself.
tl::expected<KeyTerms, Failure> read_terms(const TermsOptions& options);

/// `text` as limits, each name once.
tl::expected<std::vector<LimitRow>, Failure> read_limits(const std::vector<std::string>& texts);

/// Takes `dropped` away from `limits`, and puts each of `put` in the place of the one of its name, or behind
/// all. Exit::kUsage for a name in both, Exit::kNo for one to drop that `whose` has not.
Outcome change_limits(std::vector<LimitRow>& limits, const std::vector<LimitRow>& put,
                      const std::vector<std::string>& dropped, const std::string& whose);

/// An operation's outcome in the words of the command line: where it names a field, the option that set it.
Outcome by_option(Outcome outcome, const TermsOptions& given);

}  // namespace apikeyd
