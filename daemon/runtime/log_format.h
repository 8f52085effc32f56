// How one log line looks. Pure text: no clock, no descriptor, no state.

#pragma once

#include <chrono>
#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>

namespace apikeyd {

enum class LogLevel { debug, info, warn, error };
enum class LogFormat { logfmt, json };

/// "debug", "info", "warn", "error".
std::string_view level_name(LogLevel level);

/// One name and value of a line. Views: both outlive the call that logs. Names come from the code, not from
/// data: lower case letters, digits, '_' and '.'.
class LogField {
  public:
    LogField(std::string_view name, bool value) : name_(name), value_(value) {}
    LogField(std::string_view name, std::signed_integral auto value)
        : name_(name), value_(std::int64_t{value}) {}
    LogField(std::string_view name, std::unsigned_integral auto value)
        : name_(name), value_(std::uint64_t{value}) {}
    LogField(std::string_view name, double value) : name_(name), value_(value) {}
    LogField(std::string_view name, std::string_view value) : name_(name), value_(value) {}
    LogField(std::string_view name, const std::string& value) : LogField(name, std::string_view(value)) {}
    LogField(std::string_view name, const char* value) : LogField(name, std::string_view(value)) {}

    using Value = std::variant<bool, std::int64_t, std::uint64_t, double, std::string_view>;
    std::string_view name() const { return name_; }
    const Value& value() const { return value_; }

  private:
    std::string_view name_;
    Value value_;
};

/// A text value is cut here and ends in "..." then, so that no input can make a line of any length. All
/// scopes that a key can be granted fit.
constexpr std::size_t kLogValueBytesMax = 32768;

/// "2026-01-31T23:59:59.123Z" (RFC 3339).
std::string rfc3339_ms(std::chrono::system_clock::time_point time);

/// One line, line feed included: time, level, event, fields. An empty `time` leaves the time out. Text is
/// escaped so that a value can neither end the line nor look like another field, nor steer a terminal; bytes
/// that are no UTF-8 become U+FFFD. `prefix` goes in front as it is.
std::string format_log_line(LogFormat format, std::string_view prefix, std::string_view time, LogLevel level,
                            std::string_view event, std::span<const LogField> fields);

}  // namespace apikeyd
