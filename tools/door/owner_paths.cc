// /v1/owners and /v1/plans: who keys belong to, and what limits there are.

#include <boost/json.hpp>

#include "source/policy_rows.h"
#include "tools/door/json_body.h"
#include "tools/door/route.h"
#include "tools/operations/owner_operations.h"

namespace apikeyd {

namespace {

constexpr std::string_view kJson = "application/json";
constexpr std::string_view kMergePatch = "application/merge-patch+json";

HttpAnswer list_answer(const Call& call, std::string_view name,
                       const tl::expected<std::vector<Record>, Failure>& records) {
    return records ? json_answer(200, "{\"" + std::string(name) + "\":" + json_list(*records) + "}")
                   : failure_answer(call, records.error());
}

HttpAnswer record_answer(const Call& call, const tl::expected<Record, Failure>& record) {
    return record ? json_answer(200, json_object(*record)) : failure_answer(call, record.error());
}

/// An owner as a change leaves it.
HttpAnswer owner_answer(unsigned status, const std::string& name, const std::string& plan) {
    return json_answer(status, json_object({{"name", name}, {"plan", text_or_none(plan)}}));
}

/// The plan that a body names; "" for none.
std::string read_plan(JsonBody& body) {
    const boost::json::string* plan = body.text("plan");
    const auto fault = plan != nullptr ? plan_name_fault(std::string_view(*plan)) : std::nullopt;
    if (fault) {
        body.fault("plan", *fault);
    }
    return plan != nullptr ? std::string(*plan) : std::string();
}

HttpAnswer create(const Call& call) {
    auto body = JsonBody::read(call.request, true, {kJson});
    if (!body) {
        return body.error();
    }
    const boost::json::value* given = body->find("name");
    const boost::json::string* text = body->text("name");  // tells of what is no string
    const std::string name = text != nullptr ? std::string(*text) : std::string();
    if (const auto fault = owner_name_fault(name);
        fault && (text != nullptr || given == nullptr || given->is_null())) {
        body->fault("name", *fault);
    }
    const std::string plan = read_plan(*body);
    if (std::vector<ProblemPart> faults = body->faults(); !faults.empty()) {
        return fields_at_fault(std::move(faults));
    }
    const Outcome created = create_owner(call.context, name, plan);
    if (!created) {
        return failure_answer(call, created.error());
    }
    HttpAnswer answer = owner_answer(201, name, plan);
    answer.headers.emplace_back("Location", "/v1/owners/" + percent_encoded(name));
    return answer;
}

HttpAnswer update(const Call& call) {
    auto body = JsonBody::read(call.request, true, {kMergePatch, kJson});
    if (!body) {
        return body.error();
    }
    const std::string plan = read_plan(*body);
    if (body->find("plan") == nullptr) {
        body->fault("plan", "want a plan's name, or null for none");
    }
    if (std::vector<ProblemPart> faults = body->faults(); !faults.empty()) {
        return fields_at_fault(std::move(faults));
    }
    const Outcome updated = update_owner(call.context, call.subject, plan);
    return updated ? owner_answer(200, call.subject, plan) : failure_answer(call, updated.error());
}

HttpAnswer erase(const Call& call) {
    const Outcome erased = delete_owner(call.context, call.subject);
    return erased ? HttpAnswer{.status = 204} : failure_answer(call, erased.error());
}

HttpAnswer list_owners(const Call& call) {
    return list_answer(call, "owners", owner_records(call.context));
}
HttpAnswer show_owner(const Call& call) {
    return record_answer(call, owner_record(call.context, call.subject));
}
HttpAnswer list_plans(const Call& call) {
    return list_answer(call, "plans", plan_records(call.context));
}
HttpAnswer show_plan(const Call& call) {
    return record_answer(call, plan_record(call.context, call.subject));
}

}  // namespace

std::vector<Route> owner_routes() {
    using namespace door_scope;
    return {
        {"GET", "/v1/owners", {kOwnersRead}, {}, list_owners, false},
        {"POST", "/v1/owners", {kOwnersWrite}, {}, create, true},
        {"GET", "/v1/owners/{name}", {kOwnersRead}, {}, show_owner, false},
        {"PATCH", "/v1/owners/{name}", {kOwnersWrite}, {}, update, true},
        {"DELETE", "/v1/owners/{name}", {kOwnersWrite}, {}, erase, true},
        {"GET", "/v1/plans", {kPlansRead}, {}, list_plans, false},
        {"GET", "/v1/plans/{name}", {kPlansRead}, {}, show_plan, false},
    };
}

}  // namespace apikeyd
