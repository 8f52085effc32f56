// scope list, create, delete: what servers may ask of a key.

#include <algorithm>
#include <map>
#include <memory>

#include "shm/scope_name.h"
#include "source/yaml_events.h"
#include "tools/key_change.h"
#include "tools/output.h"
#include "tools/read_store.h"
#include "tools/verbs/registry.h"

namespace apikeyd {

namespace {

const Noun kScope = {"scope", "names of what servers may ask of a key"};

const std::vector<std::string_view> kScopeNames = {"name", "keys"};

Outcome list_scopes(const Context& context) {
    std::map<std::string, uint64_t, std::less<>> granted;  // also branches
    const auto content = read_store(context, [&](const KeyRow& row) {
        for (const std::string& scope : terms_of(row).scopes) {
            ++granted[scope];
        }
    });
    if (!content) {
        return tl::unexpected(content.error());
    }
    std::vector<Record> records;
    for (const std::string& scope : content->policies.scopes) {
        records.push_back({{"name", scope}, {"keys", granted[scope]}});
    }
    return print(format_list(context.output(), kScopeNames, records));
}

bool has_scope(const KeySet& set, const std::string& name) {
    const std::vector<std::string>& scopes = set.policies().scopes;
    return std::find(scopes.begin(), scopes.end(), name) != scopes.end();
}

Outcome create_scope(const Context& context, const std::string& name) {
    const auto fault = scope_fault(name);
    if (fault || apikey::shm::is_branch(name)) {
        return failed(Exit::kUsage, yaml_quote(name) + " is no scope (" +
                                        fault.value_or("a branch is granted, not defined") + ")");
    }
    const PolicyEdit edit = [&](KeySet& set) -> tl::expected<PolicyChange, Failure> {
        if (has_scope(set, name)) {
            return failed(Exit::kNo, name + ": there is a scope with this name");
        }
        if (const Result<void> added = set.add_scope(name); !added) {
            return failed(Exit::kNo, added.error());
        }
        return PolicyChange{Change::Kind::kUpsert, name};
    };
    return change_policies(context, edit, true);
}

Outcome delete_scope(const Context& context, const std::string& name) {
    const PolicyEdit edit = [&](KeySet& set) -> tl::expected<PolicyChange, Failure> {
        if (!has_scope(set, name)) {
            return failed(Exit::kNo,
                          yaml_quote(name) + ": no scope with this name in " + context.store()->place);
        }
        if (const Result<void> erased = set.erase_scope(name); !erased) {
            return failed(Exit::kNo, erased.error());
        }
        return PolicyChange{Change::Kind::kRemove, name};
    };
    return change_policies(context, edit);
}

}  // namespace

Verb add_scope_list(CommandLine& line) {
    Command command = line.add_verb(kScope, "list", "list scopes");
    command.set_example("apikeyctl scope list");
    return {command, list_scopes};
}

Verb add_scope_create(CommandLine& line) {
    auto name = std::make_shared<std::string>();
    Command command = line.add_verb(kScope, "create", "define a scope");
    command.add_required("NAME", *name, "words of a-z, 0-9, _ and - with dots between them");
    command.set_example("apikeyctl scope create reports.read");
    return {command, [name](const Context& context) { return create_scope(context, *name); }};
}

Verb add_scope_delete(CommandLine& line) {
    auto name = std::make_shared<std::string>();
    Command command = line.add_verb(kScope, "delete", "forget a scope that no key needs to have it");
    command.add_required("NAME", *name, "the scope");
    command.set_example("apikeyctl scope delete reports.read");
    return {command, [name](const Context& context) { return delete_scope(context, *name); }};
}

}  // namespace apikeyd
