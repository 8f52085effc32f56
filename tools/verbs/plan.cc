// plan list, show, create, update, delete: named sets of limits, changed for all who have them at once.

#include <algorithm>
#include <memory>

#include "source/yaml_events.h"
#include "tools/key_change.h"
#include "tools/operations/owner_operations.h"
#include "tools/terms_options.h"
#include "tools/verbs/registry.h"

namespace apikeyd {

namespace {

const Noun kPlan = {"plan", "limits that keys and owners have by the plan's name"};

const std::vector<std::string_view> kPlanNames = {"name", "limits", "keys", "owners"};

const PlanRow* find_plan(const KeySet& set, const std::string& name) {
    const std::vector<PlanRow>& plans = set.policies().plans;
    const auto found =
        std::find_if(plans.begin(), plans.end(), [&](const PlanRow& one) { return one.name == name; });
    return found != plans.end() ? &*found : nullptr;
}

Outcome list_plans(const Context& context) {
    const auto records = plan_records(context);
    return records ? print(format_list(context.output(), kPlanNames, *records))
                   : tl::unexpected(records.error());
}

Outcome show_plan(const Context& context, const std::string& name) {
    const auto record = plan_record(context, name);
    return record ? print(format_record(context.output(), *record)) : tl::unexpected(record.error());
}

struct PlanOptions {
    std::string name;
    std::vector<std::string> limits;
    std::vector<std::string> dropped_limits;
};

tl::expected<PolicyChange, Failure> put_plan(KeySet& set, PlanRow plan) {
    if (plan.limits.size() > kLimitsMax) {
        return failed(Exit::kUsage, "--limit: " + std::to_string(plan.limits.size()) +
                                        " limits (want at most " + std::to_string(kLimitsMax) + ")");
    }
    if (const Result<void> put = set.upsert_plan(plan); !put) {
        return failed(Exit::kNo, put.error());
    }
    return PolicyChange{Change::Kind::kUpsert, std::move(plan)};
}

Outcome create_plan(const Context& context, const PlanOptions& options) {
    if (const auto fault = plan_name_fault(options.name)) {
        return failed(Exit::kUsage, yaml_quote(options.name) + " is no plan's name (" + *fault + ")");
    }
    const auto limits = read_limits(options.limits);
    if (!limits) {
        return tl::unexpected(limits.error());
    }
    const PolicyEdit edit = [&](KeySet& set) -> tl::expected<PolicyChange, Failure> {
        if (find_plan(set, options.name) != nullptr) {
            return failed(Exit::kNo, options.name + ": there is a plan with this name (see plan update)");
        }
        return put_plan(set, {options.name, *limits});
    };
    return change_policies(context, edit, true);
}

Outcome update_plan(const Context& context, const PlanOptions& options) {
    const auto limits = read_limits(options.limits);
    if (!limits) {
        return tl::unexpected(limits.error());
    }
    if (limits->empty() && options.dropped_limits.empty()) {
        return failed(Exit::kUsage, "plan update: nothing to change (want --limit or --drop-limit)");
    }
    const PolicyEdit edit = [&](KeySet& set) -> tl::expected<PolicyChange, Failure> {
        const PlanRow* there = find_plan(set, options.name);
        if (there == nullptr) {
            return tl::unexpected(no_plan(context, options.name));
        }
        PlanRow plan = *there;
        if (Outcome changed =
                change_limits(plan.limits, *limits, options.dropped_limits, "plan " + plan.name);
            !changed) {
            return tl::unexpected(changed.error());
        }
        return put_plan(set, std::move(plan));
    };
    return change_policies(context, edit);
}

Outcome delete_plan(const Context& context, const std::string& name) {
    const PolicyEdit edit = [&](KeySet& set) -> tl::expected<PolicyChange, Failure> {
        if (find_plan(set, name) == nullptr) {
            return tl::unexpected(no_plan(context, name));
        }
        if (const Result<void> erased = set.erase_plan(name); !erased) {
            return failed(Exit::kNo, erased.error());
        }
        return PolicyChange{Change::Kind::kRemove, PlanRow{name, {}}};
    };
    return change_policies(context, edit);
}

constexpr const char* kLimitHelp = "burst=100/s,burst=200 or monthly=1000000/month, with ,shadow to try it";

}  // namespace

Verb add_plan_list(CommandLine& line) {
    Command command = line.add_verb(kPlan, "list", "list plans");
    command.set_example("apikeyctl plan list");
    return {command, list_plans};
}

Verb add_plan_show(CommandLine& line) {
    auto name = std::make_shared<std::string>();
    Command command = line.add_verb(kPlan, "show", "show a plan");
    command.add_required("NAME", *name, "the plan's name");
    command.set_example("apikeyctl plan show free");
    return {command, [name](const Context& context) { return show_plan(context, *name); }};
}

Verb add_plan_create(CommandLine& line) {
    auto options = std::make_shared<PlanOptions>();
    Command command = line.add_verb(kPlan, "create", "define a plan");
    command.add_required("NAME", options->name, "1 to 63 characters a-z, 0-9, _, - and .");
    command.add_list("--limit", options->limits, kLimitHelp);
    command.set_example(
        "apikeyctl plan create free --limit burst=10/s,burst=20 --limit monthly=100000/month");
    return {command, [options](const Context& context) { return create_plan(context, *options); }};
}

Verb add_plan_update(CommandLine& line) {
    auto options = std::make_shared<PlanOptions>();
    Command command = line.add_verb(kPlan, "update", "change a plan's limits, for all who have it at once");
    command.add_required("NAME", options->name, "the plan's name");
    command.add_list("--limit", options->limits,
                     std::string(kLimitHelp) + "; takes the place of the one of its name");
    command.add_list("--drop-limit", options->dropped_limits, "the name of a limit that ends");
    command.set_example("apikeyctl plan update free --limit monthly=200000/month --drop-limit burst");
    return {command, [options](const Context& context) { return update_plan(context, *options); }};
}

Verb add_plan_delete(CommandLine& line) {
    auto name = std::make_shared<std::string>();
    Command command = line.add_verb(kPlan, "delete", "forget a plan that nobody has");
    command.add_required("NAME", *name, "the plan's name");
    command.set_example("apikeyctl plan delete free");
    return {command, [name](const Context& context) { return delete_plan(context, *name); }};
}

}  // namespace apikeyd
