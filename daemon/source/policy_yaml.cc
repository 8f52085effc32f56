#include "source/policy_yaml.h"

#include <algorithm>
#include <functional>
#include <set>

#include "shm/scope_name.h"
#include "source/limit_text.h"
#include "source/metadata_json.h"

namespace apikeyd {

namespace {

std::string_view kind_name(const YamlNode& node) {
    switch (node.kind) {
        case YamlNode::Kind::kList:
            return "a list";
        case YamlNode::Kind::kMap:
            return "a mapping";
        case YamlNode::Kind::kScalar:
            break;
    }
    return node.scalar == YamlScalarKind::kNull ? "nothing" : "a single value";
}

std::string quoted(const YamlNode& node) {
    return node.kind == YamlNode::Kind::kScalar ? yaml_quote(node.text) : std::string(kind_name(node));
}

std::string no_plan_name(const std::string& quoted_name, const std::string& fault) {
    return quoted_name + " is no plan's name (" + fault + ")";
}

}  // namespace

/// The fields of a mapping, each told of once.
struct PolicyYaml::Fields {
    std::map<std::string, const YamlNode*, std::less<>> values;
    std::map<std::string, YamlPlace, std::less<>> places;
    bool ok = true;

    Fields(PolicyYaml& yaml, const YamlNode& map, const std::string& label,
           std::initializer_list<std::string_view> known) {
        for (size_t i = 0; i + 1 < map.children.size(); i += 2) {
            const YamlNode& name = map.children[i];
            const bool is_known = name.kind == YamlNode::Kind::kScalar &&
                                  std::find(known.begin(), known.end(), name.text) != known.end();
            if (!is_known) {
                std::string want;
                for (const std::string_view one : known) {
                    want += (want.empty()                ? ""
                             : one == *(known.end() - 1) ? " or "
                                                         : ", ") +
                            std::string(one);
                }
                ok = yaml.error(name.place, label, "unknown field " + quoted(name) + " (want " + want + ")");
            } else if (!values.emplace(name.text, &map.children[i + 1]).second) {
                ok = yaml.error(name.place, label, name.text + ": stands twice (want it once)");
            } else {
                places.emplace(name.text, name.place);
            }
        }
    }
    /// nullptr where it is missing or nothing.
    const YamlNode* get(std::string_view name) const {
        const auto found = values.find(name);
        const bool given = found != values.end() && !(found->second->kind == YamlNode::Kind::kScalar &&
                                                      found->second->scalar == YamlScalarKind::kNull);
        return given ? found->second : nullptr;
    }
    /// The text of a field that is a scalar; empty otherwise.
    std::string text(std::string_view name) const {
        const YamlNode* node = get(name);
        return node != nullptr && node->kind == YamlNode::Kind::kScalar ? node->text : "";
    }
};

bool PolicyYaml::error(YamlPlace place, const std::string& label, std::string_view what) {
    reporter_.add(place, label + std::string(what));
    return false;
}

bool PolicyYaml::is_list(const YamlNode& node, const std::string& label, const char* of) {
    return node.kind == YamlNode::Kind::kList ||
           error(node.place, label, std::string(kind_name(node)) + " (want a list of " + of + ")");
}

void PolicyYaml::read_scopes(const YamlNode& node, PolicySet& set) {
    const std::string label = "scopes: ";
    if (!is_list(node, label, "names")) {
        return;
    }
    for (const YamlNode& name : node.children) {
        const auto fault = name.kind == YamlNode::Kind::kScalar
                               ? scope_fault(name.text)
                               : std::optional<std::string>("want a dotted name");
        if (fault || apikey::shm::is_branch(name.text)) {
            error(name.place, label,
                  quoted(name) + " is no scope (" + fault.value_or("a branch is granted, not defined") + ")");
        } else if (!defined_scopes_.emplace(name.text, name.place).second) {
            error(name.place, label, yaml_quote(name.text) + " stands twice (want it once)");
        } else {
            set.scopes.push_back(name.text);
        }
    }
}

bool PolicyYaml::read_limit(const YamlNode& map, const std::string& label, LimitRow& limit) {
    if (map.kind != YamlNode::Kind::kMap) {
        return error(map.place, label,
                     std::string(kind_name(map)) + " (want {name: ..., rate: ... or quota: ...})");
    }
    const Fields fields(*this, map, label, {"name", "rate", "burst", "quota", "shadow"});
    bool ok = fields.ok;
    limit.name = fields.text("name");
    if (const auto fault = limit_name_fault(limit.name)) {
        const YamlNode* name = fields.get("name");
        return error(name != nullptr ? name->place : map.place, label,
                     "name: " + (name != nullptr ? quoted(*name) : "missing") + " (" + *fault + ")");
    }
    const std::string named = label + limit.name + ": ";
    const YamlNode* rate = fields.get("rate");
    const YamlNode* quota = fields.get("quota");
    if ((rate != nullptr) == (quota != nullptr)) {
        return error(map.place, named, "want either rate, e.g. 100/s, or quota, e.g. 1000000/month");
    }
    const auto read = [&](const char* field, Result<void> (*parse)(std::string_view, LimitRow&)) {
        const YamlNode* node = fields.get(field);
        if (node == nullptr) {
            return true;
        }
        const Result<void> done =
            node->kind == YamlNode::Kind::kScalar ? parse(node->text, limit) : fail("want a single value");
        return done || error(node->place, named,
                             std::string(field) + ": " + quoted(*node) + " " + done.error().message);
    };
    ok = read("rate", parse_rate) && read("quota", parse_quota) && ok;
    if (const YamlNode* burst = fields.get("burst"); burst != nullptr && quota != nullptr) {
        ok = error(burst->place, named, "burst: a quota has none (want it with rate)");
    } else {
        ok = read("burst", parse_burst) && ok;
    }
    if (const YamlNode* shadow = fields.get("shadow")) {
        const auto truth =
            shadow->scalar == YamlScalarKind::kPlain ? core_schema_bool(shadow->text) : std::nullopt;
        ok = (truth || error(shadow->place, named,
                             "shadow: " + quoted(*shadow) + " is no truth value (want true or false)")) &&
             ok;
        limit.shadow = truth.value_or(false);
    }
    const Result<void> possible = ok ? check_limit(limit) : Result<void>();
    return ok &&
           (possible || error(rate->place, named, "rate: " + quoted(*rate) + " " + possible.error().message));
}

bool PolicyYaml::read_limits(const YamlNode& list, const std::string& label, std::vector<LimitRow>& limits) {
    if (!is_list(list, label, "limits")) {
        return false;
    }
    bool ok = true;
    std::set<std::string> names;
    for (const YamlNode& node : list.children) {
        LimitRow limit;
        if (!read_limit(node, label, limit)) {
            ok = false;
        } else if (!names.insert(limit.name).second) {
            ok = error(node.place, label, limit.name + ": stands twice (want each limit once)");
        } else {
            limits.push_back(std::move(limit));
        }
    }
    if (limits.size() > kLimitsMax) {
        ok = error(
            list.place, label,
            std::to_string(limits.size()) + " limits (want at most " + std::to_string(kLimitsMax) + ")");
    }
    return ok;
}

void PolicyYaml::read_plans(const YamlNode& node, PolicySet& set) {
    if (!is_list(node, "plans: ", "plans")) {
        return;
    }
    std::set<std::string, std::less<>> names;
    for (const YamlNode& map : node.children) {
        const std::string place_label = "plan number " + std::to_string(set.plans.size() + 1) + ": ";
        if (map.kind != YamlNode::Kind::kMap) {
            error(map.place, place_label, std::string(kind_name(map)) + " (want {name: ..., limits: [...]})");
            continue;
        }
        const Fields fields(*this, map, place_label, {"name", "limits"});
        PlanRow plan;
        plan.name = fields.text("name");
        if (const auto fault = plan_name_fault(plan.name)) {
            const YamlNode* name = fields.get("name");
            error(name != nullptr ? name->place : map.place, place_label,
                  name != nullptr ? "name: " + no_plan_name(quoted(*name), *fault)
                                  : "name: missing (required)");
            continue;
        }
        const std::string label = "plan " + plan.name + ": ";
        if (!names.insert(plan.name).second) {
            error(map.place, label, "stands twice (want each plan once)");
            continue;
        }
        if (const YamlNode* limits = fields.get("limits")) {
            read_limits(*limits, label + "limits: ", plan.limits);
        }
        set.plans.push_back(std::move(plan));
    }
    if (set.plans.size() > kPlansMax) {
        error(node.place, "plans: ", "more than " + std::to_string(kPlansMax) + " (the limit)");
    }
}

void PolicyYaml::read_owners(const YamlNode& node, PolicySet& set) {
    if (!is_list(node, "owners: ", "owners")) {
        return;
    }
    std::set<std::string, std::less<>> names;
    for (const YamlNode& map : node.children) {
        const std::string place_label = "owner number " + std::to_string(set.owners.size() + 1) + ": ";
        if (map.kind != YamlNode::Kind::kMap) {
            error(map.place, place_label, std::string(kind_name(map)) + " (want {name: ..., plan: ...})");
            continue;
        }
        const Fields fields(*this, map, place_label, {"name", "plan"});
        OwnerRow owner;
        owner.name = fields.text("name");
        if (const auto fault = owner_name_fault(owner.name)) {
            error(map.place, place_label, "name: " + *fault);
            continue;
        }
        const std::string label = "owner " + yaml_quote(owner.name) + ": ";
        if (!names.insert(owner.name).second) {
            error(map.place, label, "stands twice (want each owner once)");
            continue;
        }
        if (const YamlNode* plan = fields.get("plan")) {
            KeyTerms terms;
            if (read_plan_name(plan->text, plan->place, label, terms)) {
                owner.plan = terms.plan;
                note_terms(terms, plan->place, label);
            }
        }
        set.owners.push_back(std::move(owner));
    }
    if (set.owners.size() > kOwnersMax) {
        error(node.place, "owners: ", "more than " + std::to_string(kOwnersMax) + " (the limit)");
    }
}

bool PolicyYaml::read_granted(const YamlNode& node, const std::string& label, KeyTerms& terms) {
    const std::string field = label + "scopes: ";
    if (!is_list(node, field, "names")) {
        return false;
    }
    bool ok = true;
    for (const YamlNode& name : node.children) {
        const auto fault = name.kind == YamlNode::Kind::kScalar
                               ? scope_fault(name.text)
                               : std::optional<std::string>("want a dotted name");
        if (fault) {
            ok = error(name.place, field, quoted(name) + " is no scope (" + *fault + ")");
        } else {
            terms.scopes.push_back(name.text);
        }
    }
    std::sort(terms.scopes.begin(), terms.scopes.end());
    terms.scopes.erase(std::unique(terms.scopes.begin(), terms.scopes.end()), terms.scopes.end());
    return ok;
}

bool PolicyYaml::read_addresses(const YamlNode& node, const std::string& label, KeyTerms& terms) {
    const std::string field = label + "addresses: ";
    if (!is_list(node, field, "addresses")) {
        return false;
    }
    bool ok = true;
    for (const YamlNode& one : node.children) {
        const auto range = one.kind == YamlNode::Kind::kScalar ? parse_address_range(one.text)
                                                               : fail("is no address (want a single value)");
        if (!range) {
            ok = error(one.place, field, quoted(one) + " " + range.error().message);
        } else {
            terms.addresses.push_back(*range);
        }
    }
    if (terms.addresses.size() > kAddressesMax) {
        ok = error(node.place, field, "more than " + std::to_string(kAddressesMax) + " (the limit)");
    }
    return ok;
}

bool PolicyYaml::read_overrides(const YamlNode& node, const std::string& label, KeyTerms& terms) {
    return read_limits(node, label + "limits: ", terms.overrides);
}

bool PolicyYaml::read_plan_name(const std::string& name, YamlPlace place, const std::string& label,
                                KeyTerms& terms) {
    if (const auto fault = plan_name_fault(name)) {
        return error(place, label, "plan: " + no_plan_name(yaml_quote(name), *fault));
    }
    terms.plan = name;
    return true;
}

void PolicyYaml::note_terms(const KeyTerms& terms, YamlPlace place, const std::string& label) {
    const auto note = [&](std::string use, KeyTerms part) {
        if (!uses_.contains(use)) {
            uses_.emplace(std::move(use), Use{std::move(part), place, label});
        }
    };
    if (!terms.plan.empty()) {
        note("plan " + terms.plan, {.plan = terms.plan});
    }
    for (const std::string& scope : terms.scopes) {
        note("scope " + scope, {.scopes = {scope}});
    }
    for (const LimitRow& limit : terms.overrides) {
        note("limit " + terms.plan + " " + limit.name + " " + std::to_string(static_cast<int>(limit.form)),
             {.plan = terms.plan, .overrides = {limit}});
    }
}

std::vector<std::string> PolicyYaml::check_references(const PolicySet& set) {
    std::vector<std::string> granted;
    size_t branches = 0;
    std::map<std::string_view, const PlanRow*> plans;
    for (const PlanRow& plan : set.plans) {
        plans.emplace(plan.name, &plan);
    }
    for (const auto& [name, use] : uses_) {
        const auto plan = plans.find(use.terms.plan);
        if (const auto fault =
                terms_fault(use.terms, plan != plans.end() ? plan->second : nullptr, set.scopes)) {
            error(use.place, use.label, *fault);
        }
        granted.insert(granted.end(), use.terms.scopes.begin(), use.terms.scopes.end());
        branches += !use.terms.scopes.empty() && apikey::shm::is_branch(use.terms.scopes.front()) ? 1 : 0;
    }
    if (set.scopes.size() + branches > kScopesMax) {
        error({}, "scopes: ",
              std::to_string(set.scopes.size() + branches) + " names and branches (want at most " +
                  std::to_string(kScopesMax) + ")");
    }
    std::vector<std::string> unused;
    for (const auto& [defined, place] : defined_scopes_) {
        const bool is_granted = std::any_of(
            granted.begin(), granted.end(),
            [&, &scope = defined](const auto& one) { return apikey::shm::scope_covers(one, scope); });
        if (!is_granted) {
            unused.push_back(reporter_.word(place) + ": scopes: " + yaml_quote(defined) +
                             " is granted to no key");
        }
    }
    return unused;
}

}  // namespace apikeyd
