// A key's metadata: a YAML mapping, kept as compact JSON.

#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "source/yaml_events.h"

namespace apikeyd {

/// Builds compact JSON from the events of one mapping, its own start and end included. Plain scalars get
/// their type by the YAML 1.2 core schema (null, bool, int, float); everything quoted is a string. Numbers
/// keep their digits, so that no precision is lost; `0x1F` and `0o17` become decimal. An empty mapping is an
/// empty string: no metadata.
class MetadataJson {
  public:
    /// Errors go to `reporter` with `label` in front.
    MetadataJson(YamlReporter& reporter, std::string label) : reporter_(reporter), label_(std::move(label)) {}

    void on_scalar(const YamlScalar& scalar);
    void on_begin(YamlPlace place, bool map);
    void on_end();

    [[nodiscard]] bool done() const { return levels_.empty(); }
    /// The JSON, at most kMetadataBytesMax bytes; nullopt when errors were reported. Once, when done().
    std::optional<std::string> take();

  private:
    struct Level {
        bool map = false;
        bool key_next = false;
        bool first = true;
        std::set<std::string, std::less<>> keys;
    };

    void error(YamlPlace place, std::string_view what);
    void before_value();
    void key(const YamlScalar& scalar);
    void value(const YamlScalar& scalar);

    YamlReporter& reporter_;
    std::string label_;
    YamlPlace start_;
    std::vector<Level> levels_;
    std::string json_;
    bool failed_ = false;
};

/// Appends `text` to `out` as a JSON string in quotes; the same form is a YAML double-quoted scalar.
void append_json_string(std::string& out, std::string_view text);

/// The JSON form of a plain scalar's number by the core schema; nullopt when it is no number; empty when it
/// is one that JSON cannot express (.inf, .nan, a hexadecimal number past 64 bits).
std::optional<std::string> core_schema_number(std::string_view text);

/// True, false, or nullopt when the plain scalar `text` is no bool by the core schema.
std::optional<bool> core_schema_bool(std::string_view text);

}  // namespace apikeyd
