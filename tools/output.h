// What goes to standard output: records as a table, as JSON or as CSV. The only place that knows the forms.
//
// A record is a list of named values, the same for all forms. In JSON a time is RFC 3339 text and what is not
// there is null; the fields of each verb are listed in apikeyctl(1) and are stable.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "tools/outcome.h"

namespace apikeyd {

enum class OutputForm { table, json, csv };

/// JSON text that is put into JSON as it is.
struct RawJson {
    std::string text;
};
/// Unix seconds.
struct Time {
    int64_t unix_s;
};
/// What people and CSV are shown in another form than JSON has it, as a list.
struct TwoForms {
    std::string text;
    std::string json;
};
/// monostate: not known, or none.
using Value = std::variant<std::monostate, bool, uint64_t, Time, std::string, RawJson, TwoForms>;

struct Field {
    std::string_view name;  ///< a literal: lower case and '_'
    Value value;
};
using Record = std::vector<Field>;

/// The value, or 'none' for an empty text or an absent time.
Value text_or_none(std::string text);
Value time_or_none(std::optional<int64_t> unix_s);
/// Several texts: one behind the other, a list in JSON.
Value list_of(const std::vector<std::string>& texts);

/// One JSON object on one line, without a line feed.
std::string json_object(const Record& record);
/// A list of objects, one a line: `[` LF `{…},` LF … `]`, without a line feed at the end.
std::string json_list(const std::vector<Record>& records);

/// The records in this form, line feed included: columns under a head line, a JSON list, or CSV (RFC 4180)
/// with a head line. All records have the same names; `names` are the columns when there is no record.
/// Control characters are shown as `?` in a table, so that no name can steer a terminal.
std::string format_list(OutputForm form, const std::vector<std::string_view>& names,
                        const std::vector<Record>& records);
/// One record: `name  value` lines, one JSON object, or CSV with a head line.
std::string format_record(OutputForm form, const Record& record);

/// Writes all of `text` to standard output. A failure (a full disk, a reader that went away) is Exit::kNo.
Outcome print(std::string_view text);
/// Standard output in parts, for what is too much to be held. What cannot be written is told at the end.
class Printer {
  public:
    void add(std::string_view text);
    Outcome end();

  private:
    std::string text_;
    Outcome printed_;
};

/// format_list(), a record at a time. JSON and CSV are not held; a table is, for the widths of its columns.
class ListPrinter {
  public:
    ListPrinter(Printer& printer, OutputForm form, std::vector<std::string_view> names);
    void add(const Record& record);
    void end();

  private:
    Printer& printer_;
    OutputForm form_;
    std::vector<std::string_view> names_;
    std::vector<Record> held_;
    bool first_ = true;
};

/// A line for the operator on standard error, without_secrets().
void say(std::string_view line);

/// True when standard output is a terminal and NO_COLOR is not set.
bool colour_wanted();
/// The terminal's columns; 80 where standard output is none, or does not say.
size_t output_columns();
/// True when the locale's characters are UTF-8.
bool utf8_wanted();

}  // namespace apikeyd
