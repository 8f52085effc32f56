#include "tools/door/route.h"

#include <algorithm>
#include <cctype>

#include "base/hex.h"
#include "base/utf8.h"
#include "base/without_secrets.h"
#include "source/key_rules.h"
#include "tools/door/json_body.h"

namespace apikeyd {

namespace {

/// Takes the part before the next '/' off `path`.
std::string_view cut(std::string_view& path) {
    const size_t end = path.find('/');
    const std::string_view part = path.substr(0, end);
    path.remove_prefix(end == std::string_view::npos ? path.size() : end + 1);
    return part;
}

bool is_utf8(std::string_view text) {
    while (!text.empty()) {
        char32_t code_point = 0;
        const size_t length = utf8_sequence(text, code_point);
        if (length == 0) {
            return false;
        }
        text.remove_prefix(length);
    }
    return true;
}

}  // namespace

const std::vector<Route>& routes() {
    static const std::vector<Route> all = [] {
        std::vector<Route> joined = key_routes();
        for (const std::vector<Route>& more : {self_routes(), usage_routes(), owner_routes()}) {
            joined.insert(joined.end(), more.begin(), more.end());
        }
        return joined;
    }();
    return all;
}

HttpAnswer failure_answer(const Call& call, const Failure& failure) {
    switch (failure.cause) {
        case Cause::kMissing:
            return problem(404, "There is nothing of this name.");
        case Cause::kConflict:
            return problem(409, failure.message);
        case Cause::kWanted: {
            const std::string pointer = failure.field.empty() ? "" : pointer_part(failure.field);
            return problem(422, "A field cannot be so.",
                           {.errors = {{.detail = failure.message, .pointer = pointer}}});
        }
        case Cause::kRecorded:
        case Cause::kOther:
            break;
    }
    const bool recorded = failure.cause == Cause::kRecorded;
    call.log.error(recorded ? "door.not_in_force" : "door.store_away",
                   {{"reason", without_secrets(failure.message)}});
    HttpAnswer answer = problem(503,
                                recorded ? "The change is recorded, and not in force everywhere yet."
                                         : "The keys cannot be read or changed now.",
                                {.recorded = recorded});
    if (!recorded) {
        answer.headers.emplace_back("Retry-After", "1");
    }
    return answer;
}

HttpAnswer of_own_key(const Call& call, HttpAnswer (*answer)(const Call& call, const std::string& id)) {
    return call.caller.is_operator ? problem(403, "No API key was sent: there is no key to be told of.")
                                   : answer(call, call.caller.key_id);
}

HttpAnswer wrong_parameter(const std::string& name, std::string detail) {
    return problem(400, "A parameter of the query cannot be used.",
                   {.errors = {{.detail = std::move(detail), .parameter = name}}});
}

HttpAnswer fields_at_fault(std::vector<ProblemPart> faults) {
    return problem(422, "The body has fields that cannot be so.", {.errors = std::move(faults)});
}

Outcome check_theirs(const Caller& caller, std::string_view scope, const KeyRow& row) {
    const bool theirs = caller.holds(scope) || (caller.holds(door_scope::kSelf) && caller.owns(row));
    return theirs ? Outcome() : failed(Exit::kNo, Cause::kMissing, row.id + ": not theirs");
}

std::string percent_encoded(std::string_view text) {
    std::string encoded;
    for (const char c : text) {
        const auto byte = static_cast<uint8_t>(c);
        if (isalnum(byte) != 0 || std::string_view("-._~").find(c) != std::string_view::npos) {
            encoded += c;
        } else {
            encoded += '%';
            append_hex(encoded, {&byte, 1});
        }
    }
    return encoded;
}

std::optional<std::string> percent_decoded(std::string_view text, bool query) {
    std::string decoded;
    for (size_t at = 0; at < text.size(); ++at) {
        if (text[at] == '%') {
            uint8_t byte = 0;
            if (!from_hex(text.substr(at + 1, 2), {&byte, 1})) {
                return std::nullopt;
            }
            decoded += static_cast<char>(byte);
            at += 2;
        } else {
            decoded += query && text[at] == '+' ? ' ' : text[at];
        }
    }
    return is_utf8(decoded) ? std::optional(std::move(decoded)) : std::nullopt;
}

std::optional<std::string> match_path(std::string_view pattern, std::string_view path) {
    if (std::count(pattern.begin(), pattern.end(), '/') != std::count(path.begin(), path.end(), '/')) {
        return std::nullopt;
    }
    std::string subject;
    while (!pattern.empty()) {
        const std::string_view wanted = cut(pattern);
        const std::string_view part = cut(path);
        if (wanted == "{id}" && !key_id_fault(part)) {
            subject = part;
        } else if (wanted == "{name}") {
            auto name = percent_decoded(part, false);
            if (!name || name->empty()) {
                return std::nullopt;
            }
            subject = *std::move(name);
        } else if (wanted != part) {
            return std::nullopt;
        }
    }
    return subject;
}

}  // namespace apikeyd
