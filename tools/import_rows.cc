#include "tools/import_rows.h"

#include <string.h>

#include <algorithm>
#include <boost/json.hpp>
#include <boost/unordered/unordered_flat_map.hpp>
#include <cmath>
#include <optional>
#include <set>

#include "base/hex.h"
#include "shm/key_form.h"
#include "shm/sha256.h"
#include "source/json_text.h"
#include "source/limit_option.h"
#include "source/limit_text.h"
#include "source/yaml_source.h"
#include "tools/csv_reader.h"
#include "tools/new_key.h"

namespace apikeyd {

namespace {

namespace json = boost::json;
namespace shm = apikey::shm;

constexpr double kRandomBitsMin = 128;
constexpr std::string_view kPrefixStart = "ak_";
constexpr std::string_view kMetadata = "metadata";

void wipe(std::string& text) {
    explicit_bzero(text.data(), text.size());
}

json::array words_of(std::string_view text) {
    json::array words;
    while (!text.empty()) {
        const size_t end = std::min(text.find(' '), text.size());
        if (end != 0) {
            words.emplace_back(text.substr(0, end));
        }
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return words;
}

/// As a key set has it.
Result<json::array> limits_of(std::string_view text) {
    json::array limits;
    for (const json::value& word : words_of(text)) {
        const Result<LimitRow> limit = parse_limit_option(word.as_string());
        if (!limit) {
            return fail("limits: " + limit.error().message);
        }
        json::object one{{"name", limit->name}};
        one[limit->form == LimitForm::kRate ? "rate" : "quota"] = format_limit(*limit);
        if (limit->form == LimitForm::kRate) {
            one["burst"] = limit->burst;
        }
        if (limit->shadow) {
            one["shadow"] = true;
        }
        limits.push_back(std::move(one));
    }
    return limits;
}

void drop_nulls(json::object& object) {
    for (auto field = object.begin(); field != object.end();) {
        field = field->value().is_null() ? object.erase(field) : field + 1;
    }
}

struct Record {
    json::object fields;   ///< but metadata
    std::string metadata;  ///< as it is written, numbers with all their digits; empty for none
};

/// A record of a table as the object that the other form has.
Result<Record> record_of(const std::vector<std::string>& names, const std::vector<std::string>& values) {
    if (values.size() != names.size()) {
        return fail(std::to_string(values.size()) + " fields (want " + std::to_string(names.size()) +
                    ", as in the first line)");
    }
    Record record;
    json::object& object = record.fields;
    for (size_t i = 0; i < names.size(); ++i) {
        const std::string& name = names[i];
        const std::string& value = values[i];
        if (value.empty()) {
            continue;
        }
        if (name == "scopes" || name == "addresses") {
            object[name] = words_of(value);
        } else if (name == "limits") {
            Result<json::array> limits = limits_of(value);
            if (!limits) {
                return tl::unexpected(std::move(limits.error()));
            }
            object[name] = *std::move(limits);
        } else if (name == kMetadata) {
            record.metadata = value;
        } else if (name == "foreign") {
            object[name] = value == "true"    ? json::value(true)
                           : value == "false" ? json::value(false)
                                              : json::value(value);
        } else {
            object[name] = value;
        }
    }
    return record;
}

Result<Record> record_of(std::string_view line) {
    json::error_code error;
    json::value value = json::parse(line, error);
    if (error || !value.is_object()) {
        return fail(error ? "no JSON (" + error.message() + ")" : "no object");
    }
    Record record{std::move(value.get_object()), {}};
    const json::value* const metadata = record.fields.if_contains(kMetadata);
    if (metadata == nullptr) {
        return record;
    }
    const bool none = metadata->is_null();
    record.fields.erase(kMetadata);
    for (const JsonMember& member : none ? std::vector<JsonMember>() : json_members(line)) {
        if (member.name == kMetadata) {
            record.metadata = member.value;
        }
    }
    return none || !record.metadata.empty()
               ? Result<Record>(std::move(record))
               : Result<Record>(fail("metadata: its name is written with escapes (want \"metadata\")"));
}

/// Takes the plaintext out of the object, and puts in what is kept of it.
Result<void> take_key(json::object& object, bool allow_weak) {
    json::value* const there = object.if_contains("key");
    if (there == nullptr) {
        return {};
    }
    if (!there->is_string() || object.contains("sha256")) {
        return fail(there->is_string() ? "key and sha256 (want one of the two)" : "key: no text");
    }
    json::string& key = there->get_string();
    const size_t length = key.size();
    Result<void> fault;
    if (length < shm::kForeignKeyLengthMin || length > shm::kKeyLengthMax) {
        fault = fail("key: of " + std::to_string(length) + " bytes (want " +
                     std::to_string(shm::kForeignKeyLengthMin) + " to " + std::to_string(shm::kKeyLengthMax) +
                     ")");
    } else if (!allow_weak && random_bits_max(key) < kRandomBitsMin) {
        fault = fail("key: at most " + std::to_string(static_cast<int>(random_bits_max(key))) +
                     " random bits, so that its hash could be turned back (want 128; --allow-weak takes it)");
    }
    std::array<uint8_t, shm::kDigestLength> digest{};
    shm::sha256_kernel().hash(key.data(), length, digest.data());
    const char* const id = shm::native_key_id(key.data(), length);
    const std::string_view text(key.data(), length);
    if (id != nullptr && text.starts_with(kPrefixStart) && shm::native_key_checksum_ok(key.data(), length)) {
        const std::string_view said[] = {
            {id, shm::kIdLength},
            text.substr(kPrefixStart.size(),
                        static_cast<size_t>(id - text.data()) - 1 - kPrefixStart.size())};
        for (const auto& [field, words] : {std::pair("id", said[0]), std::pair("environment", said[1])}) {
            const json::value& stored = object.emplace(field, words).first->value();
            if (fault && (!stored.is_string() || stored.get_string() != words)) {
                fault = fail(std::string(field) + ": not what the key says (leave it out)");
            }
        }
    } else {
        object["foreign"] = true;
    }
    explicit_bzero(key.data(), length);
    object.erase("key");
    object["sha256"] = to_hex(digest);
    return fault;
}

/// A key without an id is one that was not made here.
Result<void> give_id(json::object& object) {
    if (object.contains("id")) {
        return {};
    }
    NewKey key;
    KeyRow drawn;
    if (Outcome done = key.draw("live", drawn); !done) {
        return fail(done.error().message);
    }
    object["id"] = drawn.id;
    const json::value& foreign = object.emplace("foreign", true).first->value();
    return foreign.is_bool() && foreign.get_bool()
               ? Result<void>()
               : Result<void>(fail("foreign: a key without an id is (want true, or leave it out)"));
}

/// JSON is YAML: a list entry of a key set, and judged as one.
Result<KeyRow> row_of(const json::object& object) {
    const std::string text = "keys:\n- " + json::serialize(object) + "\n";
    YamlLimits limits;
    limits.whole = false;
    std::optional<KeyRow> row;
    const auto parsed = parse_key_set(
        text, "", [&](KeyRow one) { row = std::move(one); }, limits);
    if (!parsed) {
        std::string what;
        for (const std::string& message : parsed.error().messages) {
            // Behind the place in that text, and behind what it calls its only key.
            constexpr std::string_view kOnlyKey = "key number 1: ";
            std::string_view reason = message;
            reason.remove_prefix(std::min(reason.find(": ") + 2, reason.size()));
            reason.remove_prefix(reason.starts_with(kOnlyKey) ? kOnlyKey.size() : 0);
            what.append(what.empty() ? "" : "; ").append(reason);
        }
        return fail(std::move(what));
    }
    if (!row) {
        return fail("no key");
    }
    return *std::move(row);
}

class Import {
  public:
    Import(bool allow_weak, Faults& faults, const std::function<void(size_t records)>& read)
        : allow_weak_(allow_weak), faults_(faults), read_(read) {}

    void add(size_t line, Result<Record> record) {
        read_(++records_);
        const Result<KeyRow> row = record ? make(*record) : tl::unexpected(record.error());
        if (!row) {
            faults_.add(import_fault(line, row.error().message));
            return;
        }
        if (const auto [other, is_new] = lines_.emplace(row->id, line); !is_new) {
            faults_.add(import_place(line) + "id " + row->id + ": stands in line " +
                        std::to_string(other->second) + " too");
            return;
        }
        rows_.push_back({line, *row});
    }
    std::deque<ImportedRow> take() { return std::move(rows_); }

  private:
    /// Null is a way to say nothing, but for what metadata says.
    Result<KeyRow> make(Record& record) const {
        json::object& object = record.fields;
        drop_nulls(object);
        if (json::value* const limits = object.if_contains("limits");
            limits != nullptr && limits->is_array()) {
            for (json::value& limit : limits->get_array()) {
                if (limit.is_object()) {
                    drop_nulls(limit.get_object());
                }
            }
        }
        Result<void> ready = take_key(object, allow_weak_);
        ready = ready ? give_id(object) : ready;
        Result<KeyRow> row = ready ? row_of(object) : tl::unexpected(std::move(ready.error()));
        if (row && !record.metadata.empty()) {
            Result<std::string> metadata = compact_metadata(record.metadata);
            if (!metadata) {
                return fail("metadata: " + metadata.error().message);
            }
            row->metadata = *std::move(metadata);
        }
        return row;
    }

    bool allow_weak_;
    Faults& faults_;
    const std::function<void(size_t records)>& read_;
    size_t records_ = 0;
    std::deque<ImportedRow> rows_;
    boost::unordered_flat_map<std::string, size_t> lines_;
};

void read_csv(std::string_view text, Import& import, Faults& faults) {
    CsvReader reader(text);
    std::vector<std::string> names;
    for (;;) {
        auto record = reader.next();
        if (!record) {
            faults.add(import_place(reader.line()) + record.error().message);
            return;  // where the next one begins nobody knows
        }
        if (!*record) {
            return;
        }
        if (names.empty()) {
            names = **std::move(record);
            if (std::set<std::string>(names.begin(), names.end()).size() != names.size()) {
                faults.add(import_place(reader.line()) + "a field's name stands there twice");
                return;
            }
            continue;
        }
        import.add(reader.line(), record_of(names, **record));
        std::for_each((*record)->begin(), (*record)->end(), wipe);
    }
}

void read_json_lines(std::string_view text, Import& import) {
    for (size_t line = 1; !text.empty(); ++line) {
        const size_t end = std::min(text.find('\n'), text.size());
        const std::string_view one = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        if (one.find_first_not_of(" \t\r") == std::string_view::npos) {
            continue;
        }
        import.add(line, record_of(one));
    }
}

}  // namespace

std::string import_place(size_t line) {
    return "standard input:" + std::to_string(line) + ": ";
}

std::string import_fault(size_t line, std::string what) {
    for (size_t from = what.find('\''); from != std::string::npos; from = what.find('\'', from + 1)) {
        const size_t end = std::min(what.find('\'', from + 1), what.size());
        const std::string_view quoted = std::string_view(what).substr(from + 1, end - from - 1);
        if (quoted.size() >= shm::kForeignKeyLengthMin && quoted.find(' ') == std::string_view::npos) {
            what.replace(from, end + 1 - from, "(a value that may be a key; not shown)");
        }
    }
    return import_place(line) + what;
}

double random_bits_max(std::string_view key) {
    double characters = 0;
    const auto uses = [&](auto is_one) { return std::any_of(key.begin(), key.end(), is_one); };
    const auto between = [](char first, char last) {
        return [=](char c) { return c >= first && c <= last; };
    };
    const auto small_hex = [&](char c) { return between('0', '9')(c) || between('a', 'f')(c); };
    const auto capital_hex = [&](char c) { return between('0', '9')(c) || between('A', 'F')(c); };
    if (std::all_of(key.begin(), key.end(), small_hex) || std::all_of(key.begin(), key.end(), capital_hex)) {
        characters = uses(between('a', 'f')) || uses(between('A', 'F')) ? 16 : 10;
    } else {
        const auto other = [&](char c) {
            return !between('0', '9')(c) && !between('a', 'z')(c) && !between('A', 'Z')(c);
        };
        characters = (uses(between('0', '9')) ? 10 : 0) + (uses(between('a', 'z')) ? 26 : 0) +
                     (uses(between('A', 'Z')) ? 26 : 0) + (uses(other) ? 2 : 0);
    }
    return static_cast<double>(key.size()) * std::log2(std::max(characters, 1.0));
}

std::deque<ImportedRow> read_import(std::string& text, ImportForm form, bool allow_weak, Faults& faults,
                                    const std::function<void(size_t records)>& read) {
    Import import(allow_weak, faults, read);
    if (form == ImportForm::kCsv) {
        read_csv(text, import, faults);
    } else {
        read_json_lines(text, import);
    }
    wipe(text);
    text = {};
    return import.take();
}

}  // namespace apikeyd
