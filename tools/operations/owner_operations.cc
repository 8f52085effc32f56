#include "tools/operations/owner_operations.h"

#include <algorithm>
#include <map>

#include "source/yaml_events.h"
#include "tools/key_change.h"
#include "tools/operations/key_terms.h"
#include "tools/policy_view.h"
#include "tools/read_store.h"

namespace apikeyd {

namespace {

Failure no_owner(const Context& context, const std::string& name) {
    return {Exit::kNo, yaml_quote(name) + ": no owner with this name in " + context.store()->place,
            Daemon::kDown, Cause::kMissing};
}

bool has_owner(const KeySet& set, const std::string& name) {
    const std::vector<OwnerRow>& owners = set.policies().owners;
    return std::any_of(owners.begin(), owners.end(), [&](const OwnerRow& one) { return one.name == name; });
}

/// The one of this name, which stands first in a record.
std::optional<Record> named(const std::vector<Record>& records, const std::string& name) {
    const auto found = std::find_if(records.begin(), records.end(), [&](const Record& record) {
        return std::get<std::string>(record.front().value) == name;
    });
    return found != records.end() ? std::optional(*found) : std::nullopt;
}

tl::expected<PolicyChange, Failure> put_owner(KeySet& set, const OwnerRow& owner) {
    if (Outcome defined = check_terms({.plan = owner.plan}, set.policies()); !defined) {
        return tl::unexpected(defined.error());
    }
    if (const Result<void> put = set.upsert_owner(owner); !put) {
        return not_wanted(Exit::kNo, put.error());
    }
    return PolicyChange{Change::Kind::kUpsert, owner};
}

}  // namespace

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

tl::expected<Record, Failure> owner_record(const Context& context, const std::string& name) {
    const auto records = owner_records(context);
    if (!records) {
        return tl::unexpected(records.error());
    }
    auto found = named(*records, name);
    return found ? tl::expected<Record, Failure>(*std::move(found)) : tl::unexpected(no_owner(context, name));
}

Outcome create_owner(const Context& context, const std::string& name, const std::string& plan) {
    const PolicyEdit edit = [&](KeySet& set) -> tl::expected<PolicyChange, Failure> {
        if (has_owner(set, name)) {
            return failed(Exit::kNo, Cause::kConflict,
                          yaml_quote(name) + ": there is an owner with this name (see owner update)");
        }
        return put_owner(set, {name, plan});
    };
    return change_policies(context, edit, true);
}

Outcome update_owner(const Context& context, const std::string& name, const std::string& plan) {
    const PolicyEdit edit = [&](KeySet& set) -> tl::expected<PolicyChange, Failure> {
        return has_owner(set, name) ? put_owner(set, {name, plan}) : tl::unexpected(no_owner(context, name));
    };
    return change_policies(context, edit);
}

Outcome delete_owner(const Context& context, const std::string& name) {
    const PolicyEdit edit = [&](KeySet& set) -> tl::expected<PolicyChange, Failure> {
        if (!has_owner(set, name)) {
            return tl::unexpected(no_owner(context, name));
        }
        if (const Result<void> erased = set.erase_owner(name); !erased) {
            return failed(Exit::kNo, Cause::kConflict, erased.error().message);
        }
        return PolicyChange{Change::Kind::kRemove, OwnerRow{name, {}}};
    };
    return change_policies(context, edit);
}

tl::expected<std::vector<Record>, Failure> plan_records(const Context& context) {
    std::map<std::string, uint64_t, std::less<>> keys;
    const auto content = read_store(context, [&](const KeyRow& row) { ++keys[terms_of(row).plan]; });
    if (!content) {
        return tl::unexpected(content.error());
    }
    std::map<std::string, uint64_t, std::less<>> owners;
    for (const OwnerRow& owner : content->policies.owners) {
        ++owners[owner.plan];
    }
    std::vector<Record> records;
    for (const PlanRow& plan : content->policies.plans) {
        records.push_back({{"name", plan.name},
                           {"limits", limits_value(plan.limits)},
                           {"keys", keys[plan.name]},
                           {"owners", owners[plan.name]}});
    }
    return records;
}

tl::expected<Record, Failure> plan_record(const Context& context, const std::string& name) {
    const auto records = plan_records(context);
    if (!records) {
        return tl::unexpected(records.error());
    }
    auto found = named(*records, name);
    return found ? tl::expected<Record, Failure>(*std::move(found)) : tl::unexpected(no_plan(context, name));
}

Failure no_plan(const Context& context, const std::string& name) {
    return {Exit::kNo, yaml_quote(name) + ": no plan with this name in " + context.store()->place,
            Daemon::kDown, Cause::kMissing};
}

}  // namespace apikeyd
