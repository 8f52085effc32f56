// issue: a new key, recorded, in force, printed once.

#include <memory>

#include "source/json_text.h"
#include "tools/duration.h"
#include "tools/operations/key_operations.h"
#include "tools/operations/key_terms.h"
#include "tools/tags.h"
#include "tools/terms_options.h"
#include "tools/verbs/registry.h"

namespace apikeyd {

namespace {

struct IssueOptions {
    std::string environment = "live";
    std::string owner;
    std::string name;
    std::string expires;
    std::string metadata;
    std::vector<std::string> tags;
    TermsOptions terms;
};

/// The row as the options ask for, without the key's own parts.
tl::expected<KeyRow, Failure> wanted_row(const IssueOptions& options) {
    KeyRow row;
    if (!environment_fits(options.environment)) {
        return failed(Exit::kUsage, std::string("--environment: ") + kEnvironmentWanted);
    }
    row.owner = options.owner;
    row.name = options.name;
    row.created_s = now_s();
    if (!options.expires.empty()) {
        const Result<int64_t> expires_s = parse_expiry(options.expires, row.created_s);
        if (!expires_s) {
            return failed(Exit::kUsage, "--expires: " + expires_s.error().message);
        }
        row.expires_s = *expires_s;
    }
    if (!options.metadata.empty()) {
        const Result<std::string> metadata = compact_metadata(options.metadata);
        if (!metadata) {
            return failed(Exit::kUsage, "--metadata: " + metadata.error().message);
        }
        row.metadata = *metadata;
    }
    if (!options.tags.empty()) {
        Result<std::string> tagged = with_tags(row.metadata, options.tags);
        if (!tagged) {
            return failed(Exit::kUsage, "--tag: " + tagged.error().message);
        }
        row.metadata = *std::move(tagged);
    }
    auto terms = read_terms(options.terms);
    if (!terms) {
        return tl::unexpected(terms.error());
    }
    row.terms = row_terms(*std::move(terms));
    return row;
}

Outcome issue(const Context& context, const IssueOptions& options) {
    auto row = wanted_row(options);
    if (!row) {
        return tl::unexpected(row.error());
    }
    if (Outcome guarded = guard_plaintext(); !guarded) {
        return guarded;
    }
    NewKey key;
    const ShowKey print_key = [&](const NewKey& drawn, const KeyRow& issued) {
        return drawn.print(context.output(), issued.id);
    };
    return by_option(issue_key(context, options.environment, *row, key, print_key), options.terms);
}

}  // namespace

Verb add_issue(CommandLine& line) {
    auto options = std::make_shared<IssueOptions>();
    Command command = line.add_verb("issue", "make a key and print it, the only time it can be seen");
    command.add_option("--environment", options->environment, "1 to 5 characters a-z and 0-9");
    command.add_option("--owner", options->owner, "the account that the key belongs to");
    command.add_option("--name", options->name, "what people call it");
    command.add_option("--expires", options->expires,
                       "2027-12-01T00:00:00Z, or from now: 90d, 24h, 30m [never]");
    command.add_option("--metadata", options->metadata, "a JSON object, at most 4 KiB");
    command.add_list("--tag", options->tags, "a word to find it by, also in place of metadata's own");
    add_terms_options(command, options->terms);
    command.set_example(
        "apikeyctl issue --owner acme --name 'CI deploy' --expires 90d --plan free > key.txt");
    return {command, [options](const Context& context) { return issue(context, *options); }};
}

}  // namespace apikeyd
