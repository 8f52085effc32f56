// YAML text as a stream of events, with a bound on everything its author controls.
//
// The only file that knows yaml-cpp is yaml_events.cc. It never builds a tree (YAML::Load expands aliases and
// recurses); it checks the bytes first (text_check.h), then feeds yaml-cpp through a stream that refuses to
// run far ahead of the events it gets back. That bound, not yaml-cpp's own depth guard, is what keeps `[[[[…`
// cheap: yaml-cpp queues the tokens of a flow collection until the collection is closed, so depth alone,
// counted at the events, would come after the memory is spent.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "source/key_set_limits.h"

namespace apikeyd {

/// Bounds on a YAML text; each is an error with its place when it is passed.
struct YamlLimits {
    size_t file_bytes_max = kKeySetBytesMax;  ///< also the bound of a file read for it; below 2 GiB
    size_t line_bytes_max = size_t{1} << 20;
    size_t scalar_bytes_max = size_t{16} << 10;
    /// One scalar or flow collection (`[…]`, `{…}`), comment lines aside. Also bounds yaml-cpp's queue of
    /// tokens.
    size_t node_bytes_max = size_t{64} << 10;
    int depth_max = 3 + kMetadataLevelsMax;  ///< collections within each other: a key stands in three
    uint64_t keys_max = kKeySetRowsMax;
    bool whole = true;  ///< a key set whole: plans and scopes that keys name are to be defined in it
};

/// How many errors of one text are kept; the rest is counted.
inline constexpr size_t kYamlErrorsKept = 20;

/// A position in the text. The column is computed when an error is worded.
struct YamlPlace {
    uint32_t line = 1;  ///< from 1
    size_t offset = 0;  ///< in bytes, from the start of the text
};

/// What is wrong with a text: at most kYamlErrorsKept messages `file:line:column: what`, in the order found.
struct YamlErrors {
    std::vector<std::string> messages;
    uint64_t total = 0;

    /// All messages, one a line, and how many more there are.
    [[nodiscard]] std::string joined() const;
};

/// Collects errors of one text. `text` must outlive it.
class YamlReporter {
  public:
    YamlReporter(std::string file, std::string_view text) : file_(std::move(file)), text_(text) {}

    /// `file:line:column: what`.
    void add(YamlPlace place, std::string_view what);
    /// `file:line:column`; the column counts characters (code points) from 1.
    [[nodiscard]] std::string word(YamlPlace place) const;
    [[nodiscard]] bool ok() const { return errors_.total == 0; }
    [[nodiscard]] const YamlErrors& errors() const { return errors_; }
    [[nodiscard]] YamlErrors take() { return std::move(errors_); }

  private:
    std::string file_;
    std::string_view text_;
    YamlErrors errors_;
};

enum class YamlScalarKind : uint8_t {
    kNull,    ///< `null`, `~` or nothing at all; the text is empty
    kPlain,   ///< unquoted
    kQuoted,  ///< quoted or a block scalar: always a string
};

/// Valid during the call that receives it.
struct YamlScalar {
    YamlPlace place;
    std::string_view text;
    YamlScalarKind kind = YamlScalarKind::kNull;
};

/// Receives the events of one document in order. Keys and values of a mapping alternate.
class YamlVisitor {
  public:
    YamlVisitor() = default;
    YamlVisitor(const YamlVisitor&) = delete;
    YamlVisitor& operator=(const YamlVisitor&) = delete;
    virtual ~YamlVisitor() = default;

    virtual void on_scalar(const YamlScalar& scalar) = 0;
    virtual void on_map_begin(YamlPlace place, bool flow) = 0;
    virtual void on_map_end() = 0;
    virtual void on_sequence_begin(YamlPlace place, bool flow) = 0;
    virtual void on_sequence_end() = 0;
};

/// Thrown by a visitor that has reported an error it cannot go on after.
struct YamlStop {};

/// Checks `text` and gives its one document to `visitor`. Anchors, aliases, tags, a second document, broken
/// YAML and passed limits are reported. Returns reporter.ok(). Events seen before an error are provisional.
/// Thread-safe.
bool run_yaml_events(std::string_view text, const YamlLimits& limits, YamlVisitor& visitor,
                     YamlReporter& reporter);

/// `text` in single quotes for an error: control characters escaped, long texts cut, and anything that looks
/// like a key not shown at all.
std::string yaml_quote(std::string_view text);

}  // namespace apikeyd
