// /v1/keys: keys are issued, listed, shown, changed and ended. /v1/self: the same for the caller's own key.

#include <atomic>
#include <boost/json.hpp>
#include <charconv>

#include "source/json_text.h"
#include "source/key_rules.h"
#include "tools/door/json_body.h"
#include "tools/door/key_fields.h"
#include "tools/door/route.h"
#include "tools/duration.h"
#include "tools/fleet_wait.h"
#include "tools/key_view.h"
#include "tools/operations/key_operations.h"
#include "tools/operations/key_query.h"
#include "tools/read_store.h"

namespace apikeyd {

namespace {

constexpr uint64_t kPageDefault = 100;
constexpr uint64_t kPageMax = 1000;
constexpr std::string_view kJson = "application/json";
constexpr std::string_view kMergePatch = "application/merge-patch+json";

/// To be looked at where nobody else changes the key: whose it is may have changed since it was read.
CheckKey check_may(const Caller& caller, std::string_view scope) {
    return [&caller, scope](const KeyRow& row) { return check_theirs(caller, scope, row); };
}

/// Why the caller may not make a key with these scopes; nullopt: they may.
std::optional<HttpAnswer> check_grant(const Caller& caller, const std::vector<std::string>& scopes) {
    const std::string_view missing = caller.not_to_grant(scopes);
    if (missing.empty()) {
        return std::nullopt;
    }
    HttpAnswer answer =
        problem(403, "The scope " + std::string(missing) + " cannot be granted by who does not hold it.");
    answer.headers.emplace_back(
        "WWW-Authenticate",
        "Bearer realm=\"apikeyd\", error=\"insufficient_scope\", scope=\"" + std::string(missing) + '"');
    return answer;
}

/// The same of a key that is to be used from now on as it was, by who can do all that it may: that it is the
/// caller's to change, and what stands in its row then.
CheckKey check_may_use(const Call& call, std::optional<HttpAnswer>& refusal) {
    return [&call, &refusal](const KeyRow& row) -> Outcome {
        if (Outcome theirs = check_theirs(call.caller, door_scope::kKeysWrite, row); !theirs) {
            return theirs;
        }
        refusal = check_grant(call.caller, terms_of(row).scopes);
        return refusal ? failed(Exit::kNo, Cause::kConflict, "not to be granted") : Outcome();
    };
}

/// The one answer that a plaintext stands in.
HttpAnswer key_answer(unsigned status, const KeyRow& row, const NewKey& key) {
    HttpAnswer answer = json_answer(status, "");
    answer.headers.emplace_back("Location", "/v1/keys/" + row.id);
    answer.body.clear();
    answer.body.append(R"({"id":")").append(row.id).append(R"(","key":")").append(key.text()).append("\"}\n");
    return answer;
}

/// A new key that is recorded and not in force: its holder-to-be gets it all the same, since nobody else has
/// it.
HttpAnswer unforced_key_answer(const Call& call, const Failure& failure, const KeyRow& row,
                               const NewKey& key) {
    HttpAnswer answer = failure_answer(call, failure);
    answer.body.resize(answer.body.rfind('}'));
    answer.body.append(R"(,"id":")").append(row.id).append(R"(","key":")").append(key.text()).append("\"}\n");
    return answer;
}

HttpAnswer new_key_answer(const Call& call, const Outcome& outcome, const KeyRow& row, const NewKey& key) {
    if (outcome) {
        return key_answer(201, row, key);
    }
    return outcome.error().cause == Cause::kRecorded ? unforced_key_answer(call, outcome.error(), row, key)
                                                     : failure_answer(call, outcome.error());
}

HttpAnswer record_answer(const Record& record) {
    return json_answer(200, json_object(record));
}

HttpAnswer issue(const Call& call) {
    auto body = JsonBody::read(call.request, true, {kJson});
    if (!body) {
        return body.error();
    }
    KeyRow row;
    row.created_s = now_s();
    std::string environment = "live";
    if (const boost::json::string* text = body->text("environment")) {
        environment = std::string(*text);
        if (!environment_fits(environment)) {
            body->fault("environment", kEnvironmentWanted);
        }
    }
    read_key_fields(*body, row, row.created_s);
    if (std::vector<ProblemPart> faults = body->faults(); !faults.empty()) {
        return fields_at_fault(std::move(faults));
    }
    if (auto refusal = check_grant(call.caller, terms_of(row).scopes)) {
        return *std::move(refusal);
    }
    NewKey key;
    const Outcome issued = issue_key(call.context, environment, row, key,
                                     [](const NewKey&, const KeyRow&) { return Outcome(); });
    return new_key_answer(call, issued, row, key);
}

HttpAnswer list(const Call& call) {
    KeyQuery query{.owner = call.parameter("owner"),
                   .state = call.parameter("state"),
                   .environment = call.parameter("environment"),
                   .plan = call.parameter("plan"),
                   .tags = {}};
    const auto tags = call.query.equal_range("tag");
    for (auto tag = tags.first; tag != tags.second; ++tag) {
        query.tags.push_back(tag->second);
    }
    if (!query.state.empty() && query.state != "expired" && !key_state_named(query.state)) {
        return wrong_parameter("state", "want active, disabled, revoked or expired");
    }
    const std::string after = call.parameter("after");
    if (!after.empty() && key_id_fault(after)) {
        return wrong_parameter("after", *key_id_fault(after));
    }
    uint64_t limit = kPageDefault;
    if (const std::string text = call.parameter("limit"); call.query.count("limit") != 0) {
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), limit);
        if (error != std::errc() || end != text.data() + text.size() || limit == 0 || limit > kPageMax) {
            return wrong_parameter("limit", "want a whole number from 1 to " + std::to_string(kPageMax));
        }
    }
    std::vector<Record> records;
    std::string last;
    const int64_t now = now_s();
    const Outcome read = read_page(call.context, after, [&](const KeyRow& row) {
        if (check_theirs(call.caller, door_scope::kKeysRead, row) && query.matches(row, now)) {
            records.push_back(short_record(row, now));
            last = row.id;
        }
        return records.size() < limit;
    });
    if (!read) {
        return failure_answer(call, read.error());
    }
    const bool whole = records.size() == limit;
    return json_answer(
        200, R"({"keys":)" + json_list(records) + R"(,"next":)" + (whole ? '"' + last + '"' : "null") + "}");
}

HttpAnswer show_key(const Call& call, const std::string& id) {
    const auto row = read_key(call.context, id);
    if (!row) {
        return failure_answer(call, row.error());
    }
    const Outcome theirs = check_theirs(call.caller, door_scope::kKeysRead, *row);
    return theirs ? record_answer(known_record(call.context, *row)) : failure_answer(call, theirs.error());
}

HttpAnswer show(const Call& call) {
    return show_key(call, call.subject);
}

HttpAnswer update(const Call& call) {
    auto body = JsonBody::read(call.request, true, {kMergePatch, kJson});
    if (!body) {
        return body.error();
    }
    // Once to learn what is wrong in itself; then, where nobody else changes the key, for what it comes to.
    KeyRow alone;
    const int64_t now = now_s();
    read_key_fields(*body, alone, now);
    if (std::vector<ProblemPart> faults = body->faults(); !faults.empty()) {
        return fields_at_fault(std::move(faults));
    }
    std::optional<HttpAnswer> refusal = check_grant(call.caller, terms_of(alone).scopes);
    if (refusal) {
        return *std::move(refusal);
    }
    std::vector<ProblemPart> faults;
    KeyRow after;
    const CheckKey check = check_may_use(call, refusal);
    const EditRow edit = [&](KeyRow& row) -> Outcome {
        // Its bounds, its end and its owner are what keeps others from what it may.
        if (Outcome may = check(row); !may) {
            return may;
        }
        read_key_fields(*body, row, now);
        faults = body->faults();
        return faults.empty() ? Outcome() : failed(Exit::kUsage, Cause::kWanted, "");
    };
    const Outcome updated = update_key(call.context, call.subject, edit, &after);
    if (refusal) {
        return *std::move(refusal);
    }
    if (!faults.empty()) {
        return fields_at_fault(std::move(faults));
    }
    return updated ? record_answer(full_record(after, now)) : failure_answer(call, updated.error());
}

HttpAnswer erase(const Call& call) {
    const Outcome erased = delete_key(call.context, call.subject);
    return erased ? HttpAnswer{.status = 204} : failure_answer(call, erased.error());
}

/// What takes no fields: an empty object at most.
std::optional<HttpAnswer> check_no_fields(const Call& call) {
    const auto body = JsonBody::read(call.request, false, {kJson});
    if (!body) {
        return body.error();
    }
    std::vector<ProblemPart> faults = body->faults();
    return faults.empty() ? std::nullopt : std::optional(fields_at_fault(std::move(faults)));
}

HttpAnswer set_state(const Call& call, KeyState state, Until until = Until::kHost) {
    if (auto refusal = check_no_fields(call)) {
        return *std::move(refusal);
    }
    KeyRow after;
    std::optional<HttpAnswer> refusal;
    // Whoever may change a key may end its use, also of one that can do more than they.
    const CheckKey check = state == KeyState::kActive ? check_may_use(call, refusal)
                                                      : check_may(call.caller, door_scope::kKeysWrite);
    const Outcome changed = set_key_state(call.context, {call.subject, state, until, check}, &after);
    if (refusal) {
        return *std::move(refusal);
    }
    return changed ? record_answer(full_record(after, now_s())) : failure_answer(call, changed.error());
}

/// Some of the door's handlers wait for a fleet; the others serve.
class FleetWait {
  public:
    FleetWait() : granted_(waiting_.fetch_add(1, std::memory_order_relaxed) < kAtOnceMax) {}
    ~FleetWait() { waiting_.fetch_sub(1, std::memory_order_relaxed); }
    FleetWait(const FleetWait&) = delete;
    FleetWait& operator=(const FleetWait&) = delete;
    [[nodiscard]] bool granted() const { return granted_; }

  private:
    static constexpr uint32_t kAtOnceMax = 2;
    /// Relaxed: a number, and nothing goes with it.
    static inline std::atomic<uint32_t> waiting_{0};
    const bool granted_;
};

HttpAnswer revoke_in_fleet(const Call& call) {
    const FleetWait wait;
    HttpAnswer answer = set_state(call, KeyState::kRevoked, wait.granted() ? Until::kFleet : Until::kHost);
    constexpr unsigned kDone = 200;
    if (answer.status == kDone && !wait.granted()) {
        const Failure unknown{Exit::kUnreachable, "too many wait for the fleet", Daemon::kDown,
                              Cause::kRecorded};
        answer = failure_answer(call, unknown);
    }
    return answer;
}

HttpAnswer revoke(const Call& call) {
    if (call.query.count("wait") == 0) {
        return set_state(call, KeyState::kRevoked);
    }
    if (call.parameter("wait") != "fleet") {
        return wrong_parameter("wait", "want fleet");
    }
    return check_fleet(call.context) ? revoke_in_fleet(call)
                                     : wrong_parameter("wait", "this host is in no fleet");
}

HttpAnswer disable(const Call& call) {
    return set_state(call, KeyState::kDisabled);
}
HttpAnswer enable(const Call& call) {
    return set_state(call, KeyState::kActive);
}

HttpAnswer rotate_id(const Call& call, const std::string& id) {
    auto body = JsonBody::read(call.request, false, {kJson});
    if (!body) {
        return body.error();
    }
    std::optional<int64_t> grace_s = 0;
    if (const boost::json::string* text = body->text("grace")) {
        grace_s = parse_duration_s(std::string_view(*text));
        if (!grace_s) {
            body->fault("grace", "want a duration as 7d, 24h, 30m, 15s or 0");
        }
    }
    if (std::vector<ProblemPart> faults = body->faults(); !faults.empty()) {
        return fields_at_fault(std::move(faults));
    }
    // Who gets a successor's plaintext can do all that it may.
    std::optional<HttpAnswer> refusal;
    const CheckKey check = check_may_use(call, refusal);
    NewKey key;
    KeyRow successor;
    const Outcome rotated =
        rotate_key(call.context, {id, *grace_s, check}, key, [&](const NewKey&, const KeyRow& row) {
            successor = row;
            return Outcome();
        });
    return refusal ? *std::move(refusal) : new_key_answer(call, rotated, successor, key);
}

HttpAnswer rotate(const Call& call) {
    return rotate_id(call, call.subject);
}

HttpAnswer show_self(const Call& call) {
    return of_own_key(call, show_key);
}
HttpAnswer rotate_self(const Call& call) {
    return of_own_key(call, rotate_id);
}

}  // namespace

std::vector<Route> key_routes() {
    using namespace door_scope;
    return {
        {"GET",
         "/v1/keys",
         {kKeysRead, kSelf},
         {"owner", "state", "environment", "plan", "tag", "limit", "after"},
         list,
         false},
        {"POST", "/v1/keys", {kKeysWrite}, {}, issue, true},
        {"GET", "/v1/keys/{id}", {kKeysRead, kSelf}, {}, show, false},
        {"PATCH", "/v1/keys/{id}", {kKeysWrite}, {}, update, true},
        {"DELETE", "/v1/keys/{id}", {kKeysWrite}, {}, erase, true},
        {"POST", "/v1/keys/{id}/revoke", {kKeysWrite, kSelf}, {"wait"}, revoke, true},
        {"POST", "/v1/keys/{id}/disable", {kKeysWrite}, {}, disable, true},
        {"POST", "/v1/keys/{id}/enable", {kKeysWrite}, {}, enable, true},
        {"POST", "/v1/keys/{id}/rotate", {kKeysWrite, kSelf}, {}, rotate, true},
    };
}

std::vector<Route> self_routes() {
    using door_scope::kSelf;
    return {
        {"GET", "/v1/self", {kSelf}, {}, show_self, false},
        {"POST", "/v1/self/rotate", {kSelf}, {}, rotate_self, true},
    };
}

}  // namespace apikeyd
