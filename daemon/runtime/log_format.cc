#include "runtime/log_format.h"

#include <fmt/format.h>
#include <time.h>

#include <array>
#include <cmath>
#include <iterator>

#include "base/utf8.h"
#include "base/without_secrets.h"

namespace apikeyd {
namespace {

void append_escaped(std::string& out, char32_t value) {
    switch (value) {
        case '\n':
            out += "\\n";
            break;
        case '\r':
            out += "\\r";
            break;
        case '\t':
            out += "\\t";
            break;
        default:
            fmt::format_to(std::back_inserter(out), "\\u{:04x}", std::uint32_t{value});
    }
}

/// A JSON string; logfmt's quoted values are the same.
void append_quoted(std::string& out, std::string_view text) {
    const bool cut = text.size() > kLogValueBytesMax;
    text = text.substr(0, kLogValueBytesMax);
    out += '"';
    while (!text.empty()) {
        char32_t character = 0;
        const std::size_t length = utf8_sequence(text, character);
        if (length == 0) {
            out += "\xEF\xBF\xBD";  // U+FFFD
            text.remove_prefix(1);
            continue;
        }
        if (misleads(character)) {
            append_escaped(out, character);
        } else {
            if (character == '"' || character == '\\') {
                out += '\\';
            }
            out.append(text.substr(0, length));
        }
        text.remove_prefix(length);
    }
    out += cut ? "...\"" : "\"";
}

bool is_bare_word(std::string_view text) {
    if (text.empty() || text.size() > kLogValueBytesMax) {
        return false;
    }
    for (const char c : text) {
        if (c <= ' ' || c > '~' || c == '"' || c == '=' || c == '\\') {
            return false;
        }
    }
    return true;
}

struct AppendValue {
    std::string& out;
    LogFormat format;

    void operator()(bool value) const { out += value ? "true" : "false"; }
    void operator()(std::int64_t value) const { fmt::format_to(std::back_inserter(out), "{}", value); }
    void operator()(std::uint64_t value) const { fmt::format_to(std::back_inserter(out), "{}", value); }
    void operator()(double value) const {
        if (format == LogFormat::json && !std::isfinite(value)) {
            append_quoted(out, std::isnan(value) ? "nan"
                               : value > 0       ? "inf"
                                                 : "-inf");  // JSON has no word for these
        } else {
            fmt::format_to(std::back_inserter(out), "{}", value);
        }
    }
    void operator()(std::string_view text) const {
        const std::string value = without_secrets(text);
        if (format == LogFormat::logfmt && is_bare_word(value)) {
            out += value;
        } else {
            append_quoted(out, value);
        }
    }
};

/// The field, then what stands between it and the next one.
void append_field(std::string& out, LogFormat format, const LogField& field) {
    if (format == LogFormat::json) {
        append_quoted(out, field.name());
        out += ':';
    } else {
        out += field.name();
        out += '=';
    }
    std::visit(AppendValue{out, format}, field.value());
    out += format == LogFormat::json ? ',' : ' ';
}

}  // namespace

std::string_view level_name(LogLevel level) {
    constexpr std::array<std::string_view, 4> names = {"debug", "info", "warn", "error"};
    return names[static_cast<std::size_t>(level)];
}

std::string rfc3339_ms(std::chrono::system_clock::time_point time) {
    const auto since_epoch = std::chrono::floor<std::chrono::milliseconds>(time.time_since_epoch());
    const auto seconds = std::chrono::floor<std::chrono::seconds>(since_epoch);
    const time_t unix_time = seconds.count();
    tm parts{};
    ::gmtime_r(&unix_time, &parts);
    return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                       parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                       (since_epoch - seconds).count());
}

std::string format_log_line(LogFormat format, std::string_view prefix, std::string_view time, LogLevel level,
                            std::string_view event, std::span<const LogField> fields) {
    std::string line(prefix);
    if (format == LogFormat::json) {
        line += '{';
    }
    if (!time.empty()) {
        append_field(line, format, LogField("time", time));
    }
    append_field(line, format, LogField("level", level_name(level)));
    append_field(line, format, LogField("event", event));
    for (const LogField& field : fields) {
        append_field(line, format, field);
    }
    line.pop_back();  // what would stand before one field more
    line += format == LogFormat::json ? "}\n" : "\n";
    return line;
}

}  // namespace apikeyd
