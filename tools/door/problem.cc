#include "tools/door/problem.h"

#include "base/without_secrets.h"
#include "source/metadata_json.h"

namespace apikeyd {

namespace {

void append_member(std::string& json, std::string_view name, std::string_view text) {
    json += json.back() == '{' ? "\"" : ",\"";
    json.append(name).append("\":");
    append_json_string(json, without_secrets(text));
}

std::string part_json(const ProblemPart& part) {
    std::string json = "{";
    append_member(json, "detail", part.detail);
    if (part.pointer) {
        append_member(json, "pointer", *part.pointer);
    }
    if (part.parameter) {
        append_member(json, "parameter", *part.parameter);
    }
    if (part.offset) {
        json += ",\"offset\":" + std::to_string(*part.offset);
    }
    return json + '}';
}

}  // namespace

std::string_view status_text(unsigned status) {
    static constexpr std::pair<unsigned, std::string_view> kTexts[] = {
        {200, "OK"},
        {201, "Created"},
        {204, "No Content"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {409, "Conflict"},
        {411, "Length Required"},
        {413, "Content Too Large"},
        {415, "Unsupported Media Type"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {503, "Service Unavailable"},
    };
    for (const auto& [number, text] : kTexts) {
        if (number == status) {
            return text;
        }
    }
    return "Unknown";
}

HttpAnswer problem(unsigned status, std::string_view detail, const ProblemMore& more) {
    std::string json = "{";
    append_member(json, "type", "about:blank");
    append_member(json, "title", status_text(status));
    json += ",\"status\":" + std::to_string(status);
    append_member(json, "detail", detail);
    if (more.recorded) {
        json += std::string(",\"recorded\":") + (*more.recorded ? "true" : "false");
    }
    if (!more.errors.empty()) {
        json += ",\"errors\":[";
        for (const ProblemPart& part : more.errors) {
            json += (json.back() == '[' ? "" : ",") + part_json(part);
        }
        json += ']';
    }
    HttpAnswer answer = json_answer(status, json + '}');
    answer.content_type = "application/problem+json";
    return answer;
}

HttpAnswer json_answer(unsigned status, std::string_view json) {
    HttpAnswer answer{.status = status, .content_type = "application/json"};
    answer.headers.emplace_back("Cache-Control", "no-store");
    answer.body.assign(json);
    answer.body += '\n';
    return answer;
}

}  // namespace apikeyd
