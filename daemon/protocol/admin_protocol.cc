#include "protocol/admin_protocol.h"

#include <boost/json.hpp>
#include <optional>

#include "protocol/terms_json.h"

namespace apikeyd {

namespace json = boost::json;

namespace {

/// Reads members of one object; the first thing wrong is kept and everything after reads as empty.
class Reader {
  public:
    explicit Reader(const json::object& object) : object_(object) {}

    std::string text(const char* name, bool required = false) {
        const json::value* value = find(name, required);
        if (value != nullptr && !value->is_string()) {
            problem(name, "want a string");
            value = nullptr;
        }
        return value != nullptr ? std::string(value->get_string()) : std::string();
    }
    bool flag(const char* name) {
        const json::value* value = find(name, false);
        if (value != nullptr && !value->is_bool()) {
            problem(name, "want true or false");
            value = nullptr;
        }
        return value != nullptr && value->get_bool();
    }
    std::optional<int64_t> whole(const char* name) {
        const json::value* value = find(name, false);
        if (value == nullptr || value->is_null()) {
            return std::nullopt;
        }
        if (value->is_int64()) {
            return value->get_int64();
        }
        if (value->is_uint64() && value->get_uint64() <= uint64_t{INT64_MAX}) {
            return static_cast<int64_t>(value->get_uint64());
        }
        problem(name, "want a whole number");
        return std::nullopt;
    }
    uint64_t count(const char* name) { return static_cast<uint64_t>(whole(name).value_or(0)); }
    std::array<uint8_t, 32> hash(const char* name) {
        std::array<uint8_t, 32> bytes{};
        if (!from_hex(text(name, true), bytes)) {
            problem(name, "want 64 hexadecimal digits");
        }
        return bytes;
    }
    const json::object* object(const char* name) {
        const json::value* value = find(name, true);
        if (value != nullptr && !value->is_object()) {
            problem(name, "want an object");
            value = nullptr;
        }
        return value != nullptr ? &value->get_object() : nullptr;
    }
    const json::array* array(const char* name, bool required = true) {
        const json::value* value = find(name, required);
        if (value != nullptr && !value->is_array()) {
            problem(name, "want a list");
            value = nullptr;
        }
        return value != nullptr ? &value->get_array() : nullptr;
    }
    void problem(const char* name, const char* want) {
        if (problem_.empty()) {
            problem_ = std::string(name) + ": " + want;
        }
    }
    const std::string& problem() const { return problem_; }

  private:
    const json::value* find(const char* name, bool required) {
        const json::value* value = object_.if_contains(name);
        if (value == nullptr && required) {
            problem(name, "missing");
        }
        return value;
    }

    const json::object& object_;
    std::string problem_;
};

json::object row_to_json(const KeyRow& row) {
    json::object object{{"id", row.id},
                        {"sha256", to_hex(row.digest)},
                        {"foreign", row.foreign},
                        {"state", json::string(key_state_name(row.state))},
                        {"environment", row.environment},
                        {"owner", row.owner},
                        {"name", row.name},
                        {"metadata", row.metadata},
                        {"created", row.created_s}};
    if (row.expires_s) {
        object["expires"] = *row.expires_s;
    }
    if (row.terms != nullptr) {
        object["terms"] = terms_to_json(*row.terms);
    }
    return object;
}

/// The source's limits that a slot relies on: what comes by the socket must fit one as well.
Result<KeyRow> row_from_json(const json::object& object) {
    Reader reader(object);
    KeyRow row;
    row.id = reader.text("id", true);
    row.digest = reader.hash("sha256");
    row.foreign = reader.flag("foreign");
    row.environment = reader.text("environment");
    row.owner = reader.text("owner");
    row.name = reader.text("name");
    row.metadata = reader.text("metadata");
    row.created_s = reader.whole("created").value_or(0);
    row.expires_s = reader.whole("expires");
    if (const auto state = key_state_named(reader.text("state", true))) {
        row.state = *state;
    } else {
        reader.problem("state", "want active, disabled or revoked");
    }
    if (const json::value* terms = object.if_contains("terms")) {
        auto read = terms_from_json(*terms);
        if (!read) {
            return tl::unexpected(read.error());
        }
        row.terms = *std::move(read);
    }
    if (row.id.size() != kKeyIdLength) {
        reader.problem("id", "want 12 characters");
    }
    if (row.environment.size() > kEnvironmentBytesMax || row.owner.size() > kOwnerBytesMax ||
        row.name.size() > kNameBytesMax || row.metadata.size() > kMetadataBytesMax) {
        reader.problem("row", "a text is too long");
    }
    if (row.created_s < 0 || row.created_s > UINT32_MAX) {
        reader.problem("created", "out of range");
    }
    if (row.expires_s && (*row.expires_s <= 0 || *row.expires_s > kExpiresMax_s)) {
        reader.problem("expires", "out of range");
    }
    return reader.problem().empty() ? Result<KeyRow>(std::move(row)) : fail(reader.problem());
}

Result<AdminRequest> parse_apply(Reader& reader) {
    ApplyRequest request;
    request.before = reader.hash("before");
    request.after = reader.hash("after");
    request.on_behalf_of = reader.text("on_behalf_of");
    if (request.on_behalf_of.size() > kBehalfBytesMax) {
        return fail("on_behalf_of: want at most " + std::to_string(kBehalfBytesMax) + " bytes");
    }
    const json::array* changes = reader.array("changes");
    if (changes == nullptr) {
        return fail(reader.problem());
    }
    for (size_t i = 0; i < changes->size(); ++i) {
        const std::string place = "changes[" + std::to_string(i) + "]: ";
        if (!(*changes)[i].is_object()) {
            return fail(place + "want an object");
        }
        Reader change((*changes)[i].get_object());
        const std::string op = change.text("op", true);
        const json::object* row_object = change.object("row");
        if (row_object == nullptr || (op != "upsert" && op != "remove")) {
            return fail(place + (row_object == nullptr ? change.problem() : "op: want upsert or remove"));
        }
        Result<KeyRow> row = row_from_json(*row_object);
        if (!row) {
            return fail(place + row.error().message);
        }
        request.changes.push_back(
            {op == "upsert" ? Change::Kind::kUpsert : Change::Kind::kRemove, std::move(*row)});
    }
    if (const json::array* policies = reader.array("policies", false)) {
        for (const json::value& one : *policies) {
            auto change = policy_change_from_json(one);
            if (!change) {
                return fail("policies[" + std::to_string(request.policies.size()) +
                            "]: " + change.error().message);
            }
            request.policies.push_back(*std::move(change));
        }
    }
    if (!request.policies.empty() && !request.changes.empty()) {
        reader.problem("policies", "want them without changes of keys");
    }
    return reader.problem().empty() ? Result<AdminRequest>(std::move(request)) : fail(reader.problem());
}

Result<json::object> parse_object(std::string_view line) {
    json::error_code error;
    json::value value = json::parse(json::string_view(line.data(), line.size()), error);
    if (error) {
        return fail("not JSON: " + error.message());
    }
    if (!value.is_object()) {
        return fail("want a JSON object");
    }
    return std::move(value.get_object());
}

/// An answer's object, or the error in it.
Result<json::object> parse_answer(std::string_view line) {
    Result<json::object> object = parse_object(line);
    if (!object) {
        return fail("the daemon's answer: " + object.error().message);
    }
    Reader reader(*object);
    if (!reader.flag("ok")) {
        return fail(reader.text("error"));
    }
    return object;
}

struct Formatter {
    json::object operator()(const StatusRequest&) const { return {{"verb", "status"}}; }
    json::object operator()(const FlushRequest&) const { return {{"verb", "flush"}}; }
    json::object operator()(const ReloadRequest& request) const {
        return {{"verb", "reload"}, {"force", request.force}};
    }
    json::object operator()(const ApplyRequest& request) const {
        json::array changes;
        for (const Change& change : request.changes) {
            changes.push_back(json::object{{"op", change.kind == Change::Kind::kUpsert ? "upsert" : "remove"},
                                           {"row", row_to_json(change.row)}});
        }
        json::array policies;
        for (const PolicyChange& change : request.policies) {
            policies.push_back(policy_change_to_json(change));
        }
        json::object object{{"verb", "apply"},
                            {"before", to_hex(request.before)},
                            {"after", to_hex(request.after)},
                            {"changes", std::move(changes)},
                            {"policies", std::move(policies)}};
        if (!request.on_behalf_of.empty()) {
            object["on_behalf_of"] = request.on_behalf_of;
        }
        return object;
    }
};

}  // namespace

std::string format_request(const AdminRequest& request) {
    return json::serialize(std::visit(Formatter{}, request));
}

Result<AdminRequest> parse_request(std::string_view line) {
    Result<json::object> object = parse_object(line);
    if (!object) {
        return tl::unexpected(object.error());
    }
    Reader reader(*object);
    const std::string verb = reader.text("verb", true);
    if (verb == "apply") {
        return parse_apply(reader);
    }
    AdminRequest request;
    if (verb == "status") {
        request = StatusRequest{};
    } else if (verb == "flush") {
        request = FlushRequest{};
    } else if (verb == "reload") {
        request = ReloadRequest{reader.flag("force")};
    } else {
        reader.problem("verb", "want status, reload, flush or apply");
    }
    return reader.problem().empty() ? Result<AdminRequest>(std::move(request)) : fail(reader.problem());
}

std::string format_failure(std::string_view error) {
    return json::serialize(
        json::object{{"ok", false}, {"error", json::string_view(error.data(), error.size())}});
}

std::string format_applied(uint64_t learned_ns) {
    return json::serialize(json::object{{"ok", true}, {"learned_ns", learned_ns}});
}

Result<uint64_t> parse_applied(std::string_view line) {
    const Result<json::object> object = parse_answer(line);
    if (!object) {
        return tl::unexpected(object.error());
    }
    return Reader(*object).count("learned_ns");
}

std::string format_done() {
    return json::serialize(json::object{{"ok", true}});
}

Result<void> parse_done(std::string_view line) {
    const Result<json::object> answer = parse_answer(line);
    return answer ? Result<void>() : tl::unexpected(answer.error());
}

std::string format_reload_answer(const ReloadAnswer& answer) {
    return json::serialize(json::object{{"ok", true},
                                        {"unchanged", answer.unchanged},
                                        {"keys", answer.keys},
                                        {"added", answer.added},
                                        {"updated", answer.updated},
                                        {"removed", answer.removed}});
}

Result<ReloadAnswer> parse_reload_answer(std::string_view line) {
    const Result<json::object> object = parse_answer(line);
    if (!object) {
        return tl::unexpected(object.error());
    }
    Reader reader(*object);
    return ReloadAnswer{reader.flag("unchanged"), reader.count("keys"), reader.count("added"),
                        reader.count("updated"), reader.count("removed")};
}

std::string format_status(const DaemonStatus& status) {
    json::array superseded;
    for (const SupersededStatus& one : status.superseded) {
        superseded.push_back(json::object{{"generation", one.generation}, {"bytes", one.bytes}});
    }
    return json::serialize(json::object{{"ok", true},
                                        {"pid", status.pid},
                                        {"version", status.version},
                                        {"started", status.started_s},
                                        {"instance", status.instance},
                                        {"directory", status.directory},
                                        {"source", status.source},
                                        {"usage", status.usage},
                                        {"event_loop", status.event_loop},
                                        {"generation", status.generation},
                                        {"building", status.building},
                                        {"keys", status.keys},
                                        {"slots", status.slots},
                                        {"dead", status.dead},
                                        {"bytes", status.bytes},
                                        {"huge_bytes", status.huge_bytes},
                                        {"superseded", std::move(superseded)},
                                        {"unread", status.unread},
                                        {"position", status.position},
                                        {"fingerprint", status.fingerprint},
                                        {"loaded", status.loaded_s},
                                        {"load_error", status.load_error},
                                        {"snapshot", status.snapshot},
                                        {"snapshot_taken", status.snapshot_taken_s},
                                        {"snapshot_problem", status.snapshot_problem},
                                        {"flushed", status.flushed_s},
                                        {"flush_error", status.flush_error},
                                        {"usage_send_error", status.usage_send_error},
                                        {"quarantined", status.quarantined},
                                        {"watch_problem", status.watch_problem},
                                        {"log_dropped", status.log_dropped},
                                        {"audit_problem", status.audit_problem},
                                        {"denials_problem", status.denials_problem}});
}

Result<DaemonStatus> parse_status(std::string_view line) {
    const Result<json::object> object = parse_answer(line);
    if (!object) {
        return tl::unexpected(object.error());
    }
    Reader reader(*object);
    DaemonStatus status;
    status.pid = reader.count("pid");
    status.version = reader.text("version");
    status.started_s = reader.count("started");
    status.instance = reader.text("instance");
    status.directory = reader.text("directory");
    status.source = reader.text("source");
    status.usage = reader.text("usage");
    status.event_loop = reader.text("event_loop");
    status.generation = static_cast<uint32_t>(reader.count("generation"));
    status.building = reader.flag("building");
    status.keys = reader.count("keys");
    status.slots = reader.count("slots");
    status.dead = reader.count("dead");
    status.bytes = reader.count("bytes");
    status.huge_bytes = reader.count("huge_bytes");
    if (const json::array* superseded = reader.array("superseded")) {
        for (const json::value& one : *superseded) {
            if (one.is_object()) {
                Reader entry(one.get_object());
                status.superseded.push_back(
                    {static_cast<uint32_t>(entry.count("generation")), entry.count("bytes")});
            }
        }
    }
    status.unread = reader.count("unread");
    status.position = reader.count("position");
    status.fingerprint = reader.text("fingerprint");
    status.loaded_s = reader.count("loaded");
    status.load_error = reader.text("load_error");
    status.snapshot = reader.text("snapshot");
    status.snapshot_taken_s = reader.count("snapshot_taken");
    status.snapshot_problem = reader.text("snapshot_problem");
    status.flushed_s = reader.count("flushed");
    status.flush_error = reader.text("flush_error");
    status.usage_send_error = reader.text("usage_send_error");
    status.quarantined = reader.count("quarantined");
    status.watch_problem = reader.text("watch_problem");
    status.log_dropped = reader.count("log_dropped");
    status.audit_problem = reader.text("audit_problem");
    status.denials_problem = reader.text("denials_problem");
    return reader.problem().empty() ? Result<DaemonStatus>(std::move(status))
                                    : fail("the daemon's answer: " + reader.problem());
}

}  // namespace apikeyd
