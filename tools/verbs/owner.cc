// owner list, show, create, update, delete: accounts, whose keys share the limits of a plan.

#include <algorithm>
#include <map>
#include <memory>

#include "source/yaml_events.h"
#include "tools/key_change.h"
#include "tools/output.h"
#include "tools/read_store.h"
#include "tools/terms_options.h"
#include "tools/verbs/registry.h"

namespace apikeyd {

namespace {

const Noun kOwner = {"owner", "accounts, whose keys share the limits of the owner's plan"};

/// The owners of the store, with the number of keys of each.
tl::expected<std::vector<Record>, Failure> owner_records(const Context& context) {
    std::map<std::string, uint64_t, std::less<>> keys;
    const auto content = read_store(context, [&](const KeyRow& row) { ++keys[row.owner]; });
    if (!content) {
        return tl::unexpected(content.error());
    }
    std::vector<Record> records;
    for (const OwnerRow& owner : content->policies.owners) {
        records.push_back(
            {{"name", owner.name}, {"plan", text_or_none(owner.plan)}, {"keys", keys[owner.name]}});
    }
    return records;
}

const std::vector<std::string_view> kOwnerNames = {"name", "plan", "keys"};

Failure no_owner(const Context& context, const std::string& name) {
    return {Exit::kNo, yaml_quote(name) + ": no owner with this name in " + context.store()->place};
}

bool has_owner(const KeySet& set, const std::string& name) {
    const std::vector<OwnerRow>& owners = set.policies().owners;
    return std::any_of(owners.begin(), owners.end(), [&](const OwnerRow& one) { return one.name == name; });
}

Outcome list_owners(const Context& context) {
    const auto records = owner_records(context);
    return records ? print(format_list(context.output(), kOwnerNames, *records))
                   : tl::unexpected(records.error());
}

Outcome show_owner(const Context& context, const std::string& name) {
    const auto records = owner_records(context);
    if (!records) {
        return tl::unexpected(records.error());
    }
    const auto found = std::find_if(records->begin(), records->end(), [&](const Record& record) {
        return std::get<std::string>(record.front().value) == name;
    });
    return found != records->end() ? print(format_record(context.output(), *found))
                                   : tl::unexpected(no_owner(context, name));
}

struct OwnerOptions {
    std::string name;
    TermsOptions terms;  ///< the plan alone
    std::vector<std::string> cleared;
};

tl::expected<PolicyChange, Failure> put_owner(KeySet& set, const OwnerRow& owner) {
    if (Outcome defined = check_terms({.plan = owner.plan}, set.policies(), {}); !defined) {
        return tl::unexpected(defined.error());
    }
    if (const Result<void> put = set.upsert_owner(owner); !put) {
        return failed(Exit::kNo, put.error());
    }
    return PolicyChange{Change::Kind::kUpsert, owner};
}

Outcome create_owner(const Context& context, const OwnerOptions& options) {
    if (const auto fault = owner_name_fault(options.name)) {
        return failed(Exit::kUsage, yaml_quote(options.name) + " is no owner's name (" + *fault + ")");
    }
    const auto terms = read_terms(options.terms);
    if (!terms) {
        return tl::unexpected(terms.error());
    }
    const PolicyEdit edit = [&](KeySet& set) -> tl::expected<PolicyChange, Failure> {
        if (has_owner(set, options.name)) {
            return failed(Exit::kNo,
                          yaml_quote(options.name) + ": there is an owner with this name (see owner update)");
        }
        return put_owner(set, {options.name, terms->plan});
    };
    return change_policies(context, edit, true);
}

Outcome update_owner(const Context& context, const OwnerOptions& options) {
    const auto terms = read_terms(options.terms);
    if (!terms) {
        return tl::unexpected(terms.error());
    }
    if (options.terms.plan.has_value() != options.cleared.empty()) {
        return failed(Exit::kUsage, "owner update: want either --plan or --clear plan");
    }
    const PolicyEdit edit = [&](KeySet& set) -> tl::expected<PolicyChange, Failure> {
        return has_owner(set, options.name) ? put_owner(set, {options.name, terms->plan})
                                            : tl::unexpected(no_owner(context, options.name));
    };
    return change_policies(context, edit);
}

Outcome delete_owner(const Context& context, const std::string& name) {
    const PolicyEdit edit = [&](KeySet& set) -> tl::expected<PolicyChange, Failure> {
        if (!has_owner(set, name)) {
            return tl::unexpected(no_owner(context, name));
        }
        if (const Result<void> erased = set.erase_owner(name); !erased) {
            return failed(Exit::kNo, erased.error());
        }
        return PolicyChange{Change::Kind::kRemove, OwnerRow{name, {}}};
    };
    return change_policies(context, edit);
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
    return {command, [options](const Context& context) { return create_owner(context, *options); }};
}

Verb add_owner_update(CommandLine& line) {
    auto options = std::make_shared<OwnerOptions>();
    Command command = line.add_verb(kOwner, "update", "give an owner another plan, or none");
    command.add_required("NAME", options->name, "the owner's name");
    command.add_option("--plan", options->terms.plan, "the plan whose limits all its keys share");
    command.add_choices("--clear", options->cleared, {"plan"}, "what it is to have no more");
    command.set_example("apikeyctl owner update acme --plan team");
    return {command, [options](const Context& context) { return update_owner(context, *options); }};
}

Verb add_owner_delete(CommandLine& line) {
    auto name = std::make_shared<std::string>();
    Command command = line.add_verb(kOwner, "delete", "forget an owner whose keys are all revoked");
    command.add_required("NAME", *name, "the owner's name");
    command.set_example("apikeyctl owner delete acme");
    return {command, [name](const Context& context) { return delete_owner(context, *name); }};
}

}  // namespace apikeyd
