#include "runtime/log_format.h"

#include <fmt/format.h>
#include <time.h>

#include <array>
#include <cmath>
#include <iterator>

#include "base/without_secrets.h"

namespace apikeyd {
namespace {

struct CodePoint {
    std::uint32_t value;
    std::size_t bytes;  ///< 0: not well-formed
};

bool is_continuation(std::string_view text, std::size_t at) {
    return at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U;
}

/// The code point at the front of `text`, by table 3-7 of the Unicode standard.
CodePoint decode(std::string_view text) {
    const auto byte = [&](std::size_t i) { return std::uint32_t{static_cast<unsigned char>(text[i])}; };
    const std::uint32_t lead = byte(0);
    if (lead < 0x80) {
        return {lead, 1};
    }
    if (lead >= 0xC2 && lead <= 0xDF && is_continuation(text, 1)) {
        return {(lead & 0x1FU) << 6U | (byte(1) & 0x3FU), 2};
    }
    if (lead >= 0xE0 && lead <= 0xEF && is_continuation(text, 1) && is_continuation(text, 2)) {
        const std::uint32_t value = (lead & 0x0FU) << 12U | (byte(1) & 0x3FU) << 6U | (byte(2) & 0x3FU);
        const bool surrogate = value >= 0xD800 && value <= 0xDFFF;
        return {value, value >= 0x800 && !surrogate ? std::size_t{3} : std::size_t{0}};
    }
    if (lead >= 0xF0 && lead <= 0xF4 && is_continuation(text, 1) && is_continuation(text, 2) &&
        is_continuation(text, 3)) {
        const std::uint32_t value =
            (lead & 0x07U) << 18U | (byte(1) & 0x3FU) << 12U | (byte(2) & 0x3FU) << 6U | (byte(3) & 0x3FU);
        return {value, value >= 0x10000 && value <= 0x10FFFF ? std::size_t{4} : std::size_t{0}};
    }
    return {0, 0};
}

/// Controls, and the marks that break lines or turn the direction of writing: harmless to a parser, not to a
/// reader.
bool must_be_escaped(std::uint32_t value) {
    return value < 0x20 || (value >= 0x7F && value <= 0x9F) || (value >= 0x2028 && value <= 0x202E) ||
           (value >= 0x2066 && value <= 0x2069);
}

void append_escaped(std::string& out, std::uint32_t value) {
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
            fmt::format_to(std::back_inserter(out), "\\u{:04x}", value);
    }
}

/// A JSON string; logfmt's quoted values are the same.
void append_quoted(std::string& out, std::string_view text) {
    const bool cut = text.size() > kLogValueBytesMax;
    text = text.substr(0, kLogValueBytesMax);
    out += '"';
    while (!text.empty()) {
        const CodePoint point = decode(text);
        if (point.bytes == 0) {
            out += "\xEF\xBF\xBD";  // U+FFFD
            text.remove_prefix(1);
            continue;
        }
        if (must_be_escaped(point.value)) {
            append_escaped(out, point.value);
        } else {
            if (point.value == '"' || point.value == '\\') {
                out += '\\';
            }
            out.append(text.substr(0, point.bytes));
        }
        text.remove_prefix(point.bytes);
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
