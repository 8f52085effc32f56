// owner list, show, create, update, delete: accounts, whose keys share the limits of a plan.

#include <memory>

#include "source/yaml_events.h"
#include "tools/operations/owner_operations.h"
#include "tools/output.h"
#include "tools/terms_options.h"
#include "tools/verbs/registry.h"

namespace apikeyd {

namespace {

const Noun kOwner = {"owner", "accounts, whose keys share the limits of the owner's plan"};

const std::vector<std::string_view> kOwnerNames = {"name", "plan", "keys"};

Outcome list_owners(const Context& context) {
    const auto records = owner_records(context);
    return records ? print(format_list(context.output(), kOwnerNames, *records))
                   : tl::unexpected(records.error());
}

Outcome show_owner(const Context& context, const std::string& name) {
    const auto record = owner_record(context, name);
    return record ? print(format_record(context.output(), *record)) : tl::unexpected(record.error());
}

struct OwnerOptions {
    std::string name;
    TermsOptions terms;  ///< the plan alone
    std::vector<std::string> cleared;
};

Outcome create(const Context& context, const OwnerOptions& options) {
    if (const auto fault = owner_name_fault(options.name)) {
        return failed(Exit::kUsage, yaml_quote(options.name) + " is no owner's name (" + *fault + ")");
    }
    const auto terms = read_terms(options.terms);
    if (!terms) {
        return tl::unexpected(terms.error());
    }
    return by_option(create_owner(context, options.name, terms->plan), options.terms);
}

Outcome update(const Context& context, const OwnerOptions& options) {
    const auto terms = read_terms(options.terms);
    if (!terms) {
        return tl::unexpected(terms.error());
    }
    if (options.terms.plan.has_value() != options.cleared.empty()) {
        return failed(Exit::kUsage, "owner update: want either --plan or --clear plan");
    }
    return by_option(update_owner(context, options.name, terms->plan), options.terms);
}

}  // namespace

Verb add_owner_list(CommandLine& line) {
    Command command = line.add_verb(kOwner, "list", "list owners");
    command.set_example("apikeyctl owner list");
    return {command, list_owners};
}

Verb add_owner_show(CommandLine& line) {
    auto name = std::make_shared<std::string>();
    Command command = line.add_verb(kOwner, "show", "show an owner");
    command.add_required("NAME", *name, "the owner's name");
    command.set_example("apikeyctl owner show acme");
    return {command, [name](const Context& context) { return show_owner(context, *name); }};
}

Verb add_owner_create(CommandLine& line) {
    auto options = std::make_shared<OwnerOptions>();
    Command command = line.add_verb(kOwner, "create", "define an owner");
    command.add_required("NAME", options->name, "as keys have it, at most 255 bytes");
    command.add_option("--plan", options->terms.plan, "the plan whose limits all its keys share");
    command.set_example("apikeyctl owner create acme --plan team");
    return {command, [options](const Context& context) { return create(context, *options); }};
}

Verb add_owner_update(CommandLine& line) {
    auto options = std::make_shared<OwnerOptions>();
    Command command = line.add_verb(kOwner, "update", "give an owner another plan, or none");
    command.add_required("NAME", options->name, "the owner's name");
    command.add_option("--plan", options->terms.plan, "the plan whose limits all its keys share");
    command.add_choices("--clear", options->cleared, {"plan"}, "what it is to have no more");
    command.set_example("apikeyctl owner update acme --plan team");
    return {command, [options](const Context& context) { return update(context, *options); }};
}

Verb add_owner_delete(CommandLine& line) {
    auto name = std::make_shared<std::string>();
    Command command = line.add_verb(kOwner, "delete", "forget an owner whose keys are all revoked");
    command.add_required("NAME", *name, "the owner's name");
    command.set_example("apikeyctl owner delete acme");
    return {command, [name](const Context& context) { return delete_owner(context, *name); }};
}

}  // namespace apikeyd
