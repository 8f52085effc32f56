#include "tools/output.h"

#include <langinfo.h>
#include <locale.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "base/errno_text.h"
#include "base/file_io.h"
#include "base/utf8.h"
#include "base/without_secrets.h"
#include "source/metadata_json.h"
#include "source/rfc3339.h"

namespace apikeyd {

namespace shm = apikey::shm;

namespace {

struct ToText {
    std::string operator()(std::monostate) const { return ""; }
    std::string operator()(bool value) const { return value ? "true" : "false"; }
    std::string operator()(uint64_t value) const { return std::to_string(value); }
    std::string operator()(Time value) const { return format_rfc3339(value.unix_s); }
    std::string operator()(const std::string& value) const { return value; }
    std::string operator()(const RawJson& value) const { return value.text; }
    std::string operator()(const TwoForms& value) const { return value.text; }
};

struct ToJson {
    std::string operator()(std::monostate) const { return "null"; }
    std::string operator()(const std::string& value) const {
        std::string quoted;
        append_json_string(quoted, value);
        return quoted;
    }
    std::string operator()(Time value) const { return '"' + format_rfc3339(value.unix_s) + '"'; }
    std::string operator()(const TwoForms& value) const { return value.json; }
    template <typename Plain>
    std::string operator()(const Plain& value) const {
        return ToText{}(value);
    }
};

std::string text_of(const Value& value) {
    return std::visit(ToText{}, value);
}

/// For a terminal: '-' for nothing, '?' for what would move its cursor or mislead its reader.
std::string cell_of(const Value& value) {
    const std::string whole = text_of(value);
    std::string shown;
    for (std::string_view text = whole; !text.empty();) {
        char32_t character = 0;
        const size_t length = utf8_sequence(text, character);
        shown += length == 0 || misleads(character) ? std::string_view("?") : text.substr(0, length);
        text.remove_prefix(std::max<size_t>(length, 1));
    }
    return shown.empty() ? "-" : shown;
}

/// How many columns a terminal gives to UTF-8 text, taking every character for one column wide.
size_t width_of(std::string_view text) {
    return static_cast<size_t>(std::count_if(
        text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

void append_padded(std::string& line, std::string_view cell, size_t width) {
    line += cell;
    line.append(width - width_of(cell) + 2, ' ');
}

void end_line(std::string& text) {
    text.erase(text.find_last_not_of(' ') + 1);
    text += '\n';
}

std::string upper(std::string_view name) {
    std::string text(name);
    for (char& c : text) {
        c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    }
    return text;
}

std::string format_table(const std::vector<std::string_view>& names, const std::vector<Record>& records) {
    std::vector<std::vector<std::string>> lines(1);
    std::vector<size_t> widths;
    for (const std::string_view name : names) {
        lines[0].push_back(upper(name));
        widths.push_back(name.size());
    }
    for (const Record& record : records) {
        std::vector<std::string>& line = lines.emplace_back();
        for (size_t i = 0; i < record.size(); ++i) {
            line.push_back(cell_of(record[i].value));
            widths[i] = std::max(widths[i], width_of(line[i]));
        }
    }
    std::string text;
    for (const auto& line : lines) {
        for (size_t i = 0; i < line.size(); ++i) {
            append_padded(text, line[i], widths[i]);
        }
        end_line(text);
    }
    return text;
}

std::string csv_cell(const std::string& text) {
    if (text.find_first_of("\",\r\n") == std::string::npos) {
        return text;
    }
    std::string quoted = "\"";
    for (const char c : text) {
        quoted += c == '"' ? "\"\"" : std::string(1, c);
    }
    return quoted + '"';
}

std::string csv_head(const std::vector<std::string_view>& names) {
    std::string text;
    for (const std::string_view name : names) {
        text += (text.empty() ? "" : ",") + std::string(name);
    }
    return text + "\r\n";
}

std::string csv_line(const Record& record) {
    std::string text;
    for (size_t i = 0; i < record.size(); ++i) {
        text += (i == 0 ? "" : ",") + csv_cell(text_of(record[i].value));
    }
    return text + "\r\n";
}

std::string format_csv(const std::vector<std::string_view>& names, const std::vector<Record>& records) {
    std::string text = csv_head(names);
    for (const Record& record : records) {
        text += csv_line(record);
    }
    return text;
}

constexpr size_t kPrintedAtOnce = 65536;

}  // namespace

Value text_or_none(std::string text) {
    return text.empty() ? Value() : Value(std::move(text));
}

Value time_or_none(std::optional<int64_t> unix_s) {
    return unix_s ? Value(Time{*unix_s}) : Value();
}

Value list_of(const std::vector<std::string>& texts) {
    TwoForms list{"", "["};
    for (const std::string& text : texts) {
        list.text += (list.text.empty() ? "" : " ") + text;
        list.json += list.json.size() > 1 ? "," : "";
        append_json_string(list.json, text);
    }
    list.json += ']';
    return list;
}

std::string json_object(const Record& record) {
    std::string text = "{";
    for (const Field& field : record) {
        text += text.size() > 1 ? "," : "";
        append_json_string(text, field.name);
        text += ':' + std::visit(ToJson{}, field.value);
    }
    return text + '}';
}

std::string json_list(const std::vector<Record>& records) {
    std::string text = "[";
    for (const Record& record : records) {
        text += (text.size() > 1 ? ",\n" : "\n") + json_object(record);
    }
    return text + (records.empty() ? "]" : "\n]");
}

std::string format_list(OutputForm form, const std::vector<std::string_view>& names,
                        const std::vector<Record>& records) {
    switch (form) {
        case OutputForm::json:
            return json_list(records) + '\n';
        case OutputForm::csv:
            return format_csv(names, records);
        case OutputForm::table:
            break;
    }
    return format_table(names, records);
}

std::string format_record(OutputForm form, const Record& record) {
    if (form == OutputForm::json) {
        return json_object(record) + '\n';
    }
    std::vector<std::string_view> names;
    size_t width = 0;
    for (const Field& field : record) {
        names.push_back(field.name);
        width = std::max(width, field.name.size());
    }
    if (form == OutputForm::csv) {
        return format_csv(names, {record});
    }
    std::string text;
    for (const Field& field : record) {
        append_padded(text, field.name, width);
        text += cell_of(field.value);
        end_line(text);
    }
    return text;
}

Outcome print(std::string_view text) {
    if (const int error = write_all(STDOUT_FILENO, text); error != 0) {
        return failed(Exit::kNo, "standard output: cannot write: " + errno_text(error));
    }
    return {};
}

void Printer::add(std::string_view text) {
    text_ += text;
    if (text_.size() >= kPrintedAtOnce) {
        printed_ = printed_ ? print(text_) : printed_;
        text_.clear();
    }
}

Outcome Printer::end() {
    return printed_ ? print(text_) : printed_;
}

ListPrinter::ListPrinter(Printer& printer, OutputForm form, std::vector<std::string_view> names)
    : printer_(printer), form_(form), names_(std::move(names)) {
    printer_.add(form_ == OutputForm::csv ? csv_head(names_) : form_ == OutputForm::json ? "[" : "");
}

void ListPrinter::add(const Record& record) {
    switch (form_) {
        case OutputForm::table:
            held_.push_back(record);
            return;
        case OutputForm::csv:
            printer_.add(csv_line(record));
            return;
        case OutputForm::json:
            printer_.add((first_ ? "\n" : ",\n") + json_object(record));
            first_ = false;
    }
}

void ListPrinter::end() {
    if (form_ == OutputForm::table) {
        printer_.add(format_table(names_, held_));
    } else if (form_ == OutputForm::json) {
        printer_.add(first_ ? "]" : "\n]");
    }
}

void say(std::string_view line) {
    // Nobody is left to be told when this fails.
    (void)write_all(STDERR_FILENO, without_secrets(line) + '\n');
}

bool colour_wanted() {
    const char* no_colour = getenv("NO_COLOR");
    return isatty(STDOUT_FILENO) == 1 && (no_colour == nullptr || *no_colour == '\0');
}

size_t output_columns() {
    struct winsize size {};
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col != 0 ? size.ws_col : 80;
}

bool utf8_wanted() {
    // A locale of its own: the process stays in "C", in which numbers are read and written.
    locale_t users = newlocale(LC_CTYPE_MASK, "", nullptr);
    if (users == nullptr) {
        return false;
    }
    const bool utf8 = std::string_view(nl_langinfo_l(CODESET, users)) == "UTF-8";
    freelocale(users);
    return utf8;
}

}  // namespace apikeyd
