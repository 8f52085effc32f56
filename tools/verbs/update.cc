// update: other words and terms for a key, in force when the verb has ended with 0.

#include <algorithm>
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

struct UpdateOptions {
    std::string id;
    std::optional<std::string> owner;
    std::optional<std::string> name;
    std::optional<std::string> expires;
    std::optional<std::string> metadata;
    std::vector<std::string> tags;
    TermsOptions terms;
    std::vector<std::string> dropped_limits;
    std::vector<std::string> cleared;
};

/// The options, read: what of them is wrong in itself is known before the key set is locked.
struct Update {
    std::optional<std::string> owner;
    std::optional<std::string> name;
    std::optional<int64_t> expires_s;
    std::optional<std::string> metadata;
    KeyTerms terms;
};

const std::vector<std::string> kClearable = {"owner", "name",   "expires",   "metadata",
                                             "plan",  "scopes", "addresses", "tags"};

bool clears(const UpdateOptions& options, const std::string& field) {
    return std::find(options.cleared.begin(), options.cleared.end(), field) != options.cleared.end();
}

/// Each thing is set or cleared, something is, and nothing is set to nothing.
Outcome check_options(const UpdateOptions& options) {
    const std::pair<const char*, bool> given[] = {{"owner", options.owner.has_value()},
                                                  {"name", options.name.has_value()},
                                                  {"expires", options.expires.has_value()},
                                                  {"metadata", options.metadata.has_value()},
                                                  {"plan", options.terms.plan.has_value()},
                                                  {"scopes", !options.terms.scopes.empty()},
                                                  {"addresses", !options.terms.addresses.empty()},
                                                  {"tags", !options.tags.empty()}};
    bool any = !options.terms.limits.empty() || !options.dropped_limits.empty() || !options.cleared.empty();
    for (const auto& [field, is_given] : given) {
        any = any || is_given;
        if (is_given && clears(options, field)) {
            return failed(Exit::kUsage, std::string("--clear: ") + field + " is set by another option");
        }
    }
    if (!any) {
        return failed(Exit::kUsage, "update: nothing to change (want an option, see update --help)");
    }
    for (const auto& [option, text] : {std::pair("owner", &options.owner), {"name", &options.name}}) {
        if (*text && (*text)->empty()) {
            return failed(Exit::kUsage, std::string("--") + option + ": empty (want --clear " + option + ")");
        }
    }
    return {};
}

tl::expected<Update, Failure> read_options(const UpdateOptions& options) {
    if (Outcome consistent = check_options(options); !consistent) {
        return tl::unexpected(consistent.error());
    }
    Update update{options.owner, options.name, {}, {}, {}};
    if (options.expires) {
        const Result<int64_t> expires_s = parse_expiry(*options.expires, now_s());
        if (!expires_s) {
            return failed(Exit::kUsage, "--expires: " + expires_s.error().message);
        }
        update.expires_s = *expires_s;
    }
    if (options.metadata) {
        const Result<std::string> metadata = compact_metadata(*options.metadata);
        if (!metadata) {
            return failed(Exit::kUsage, "--metadata: " + metadata.error().message);
        }
        update.metadata = *metadata;
    }
    auto terms = read_terms(options.terms);
    if (!terms) {
        return tl::unexpected(terms.error());
    }
    update.terms = *std::move(terms);
    return update;
}

/// Scopes and addresses that are given take the place of all that were; limits, of those of their names.
Outcome change_terms(KeyTerms& terms, const UpdateOptions& options, const Update& update) {
    if (options.terms.plan || clears(options, "plan")) {
        terms.plan = update.terms.plan;
    }
    if (!options.terms.scopes.empty() || clears(options, "scopes")) {
        terms.scopes = update.terms.scopes;
    }
    if (!options.terms.addresses.empty() || clears(options, "addresses")) {
        terms.addresses = update.terms.addresses;
    }
    return change_limits(terms.overrides, update.terms.overrides, options.dropped_limits,
                         "key " + options.id + " itself");
}

Outcome change_row(KeyRow& row, const UpdateOptions& options, const Update& update) {
    if (update.owner || clears(options, "owner")) {
        row.owner = update.owner.value_or("");
    }
    if (update.name || clears(options, "name")) {
        row.name = update.name.value_or("");
    }
    if (update.expires_s || clears(options, "expires")) {
        row.expires_s = update.expires_s;
    }
    if (update.metadata || clears(options, "metadata")) {
        row.metadata = update.metadata.value_or("");
    }
    if (!options.tags.empty() || clears(options, "tags")) {
        Result<std::string> tagged = with_tags(row.metadata, options.tags);
        if (!tagged) {
            return failed(Exit::kUsage, "--tag: " + tagged.error().message);
        }
        row.metadata = *std::move(tagged);
    }
    KeyTerms terms = terms_of(row);
    if (Outcome changed = change_terms(terms, options, update); !changed) {
        return changed;
    }
    row.terms = row_terms(std::move(terms));
    return {};
}

Outcome update(const Context& context, const UpdateOptions& options) {
    const auto wanted = read_options(options);
    if (!wanted) {
        return tl::unexpected(wanted.error());
    }
    const EditRow edit = [&](KeyRow& row) { return change_row(row, options, *wanted); };
    return by_option(update_key(context, options.id, edit), options.terms);
}

}  // namespace

Verb add_update(CommandLine& line) {
    auto options = std::make_shared<UpdateOptions>();
    Command command = line.add_verb("update", "change what is said of a key, and what it may do");
    command.add_id(options->id);
    command.add_option("--owner", options->owner, "the account that the key belongs to");
    command.add_option("--name", options->name, "what people call it");
    command.add_option("--expires", options->expires, "2027-12-01T00:00:00Z, or from now: 90d, 24h, 30m");
    command.add_option("--metadata", options->metadata, "a JSON object, at most 4 KiB");
    command.add_list("--tag", options->tags, "a word to find it by, in place of all that it had");
    add_terms_options(command, options->terms);
    command.add_list("--drop-limit", options->dropped_limits, "the name of a limit of its own that ends");
    command.add_choices("--clear", options->cleared, kClearable, "what it is to have no more");
    command.set_example("apikeyctl update 2RkT9pQwX4Za --plan team --limit daily=5000/day --clear expires");
    return {command, [options](const Context& context) { return update(context, *options); }};
}

}  // namespace apikeyd
