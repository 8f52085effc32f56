#include "source/yaml_locate.h"

#include <algorithm>

#include "source/text_check.h"

namespace apikeyd {

namespace {

bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

size_t indent_of(std::string_view line) {
    return std::min(line.find_first_not_of(' '), line.size());
}

/// A block scalar ends with its last line that is not blank; its indentation is that of the first such line.
size_t block_scalar_end(std::string_view text, size_t begin) {
    size_t at = line_end(text, begin);
    size_t end = at > begin && text[at - 1] == '\n' ? at - 1 : at;
    const size_t key_indent = indent_of(text.substr(line_begin(text, begin)));
    size_t indent = 0;
    while (at < text.size()) {
        const size_t next = line_end(text, at);
        std::string_view line = text.substr(at, next - at);
        while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) {
            line.remove_suffix(1);
        }
        const size_t spaces = indent_of(line);
        if (spaces < line.size()) {
            indent = indent == 0 ? std::max(spaces, key_indent + 1) : indent;
            if (spaces < indent) {
                break;
            }
            end = at + line.size();
        }
        at = next;
    }
    return end;
}

/// A plain scalar's text is its value but for the folding of white space between words.
size_t plain_end(std::string_view text, size_t begin, std::string_view value) {
    size_t i = begin;
    for (size_t v = 0; v < value.size();) {
        if (is_blank(value[v])) {
            while (v < value.size() && is_blank(value[v])) {
                ++v;
            }
            while (i < text.size() && is_blank(text[i])) {
                ++i;
            }
        } else {
            ++v;
            ++i;
        }
    }
    return std::min(i, text.size());
}

size_t scalar_end(std::string_view text, const YamlScalar& scalar) {
    const size_t begin = scalar.place.offset;
    if (begin >= text.size()) {
        return text.size();
    }
    switch (scalar.kind) {
        case YamlScalarKind::kNull:
            for (const std::string_view null : {"null", "Null", "NULL", "~"}) {
                if (text.substr(begin).starts_with(null)) {
                    return begin + null.size();
                }
            }
            return begin;
        case YamlScalarKind::kPlain:
            return plain_end(text, begin, scalar.text);
        case YamlScalarKind::kQuoted:
            break;
    }
    return text[begin] == '|' || text[begin] == '>' ? block_scalar_end(text, begin)
                                                    : std::min(quoted_scalar_end(text, begin), text.size());
}

/// Sits in front of the parser: passes each event on and notes where it stands. What it notes is of use only
/// when the parser accepts the whole text.
class Locator final : public YamlVisitor {
  public:
    Locator(std::string_view text, Locate what, YamlVisitor& next, KeySetSpans& spans)
        : text_(text), what_(what), next_(next), spans_(spans) {}

    void on_scalar(const YamlScalar& scalar) override {
        const TextRange range{scalar.place.offset, scalar_end(text_, scalar)};
        const bool name = in_map() && levels_.back().name_next;
        if (name) {
            on_name(scalar.text, range);
        } else {
            before_node();
            after_node(range, scalar.kind == YamlScalarKind::kNull);
        }
        collect_scalar(scalar, range, name);
        // A null that is not written has the place of what follows.
        if (scalar.kind != YamlScalarKind::kNull) {
            last_end_ = range.end;
        } else if (range.end > range.begin) {
            last_end_ = std::max(last_end_, range.end);
        }
        next_.on_scalar(scalar);
    }
    void on_map_begin(YamlPlace place, bool flow) override {
        begin(place, flow, true);
        next_.on_map_begin(place, flow);
    }
    void on_map_end() override {
        end();
        next_.on_map_end();
    }
    void on_sequence_begin(YamlPlace place, bool flow) override {
        begin(place, flow, false);
        next_.on_sequence_begin(place, flow);
    }
    void on_sequence_end() override {
        end();
        next_.on_sequence_end();
    }

  private:
    struct Level {
        size_t begin = 0;
        bool map = false;
        bool bracket = false;
        bool name_next = false;
    };

    // Depths: 1 root mapping, 2 list of keys, 3 a key, 4 and more its metadata.
    static constexpr size_t kRoot = 1, kList = 2, kRow = 3;

    [[nodiscard]] bool in_map() const { return !levels_.empty() && levels_.back().map; }

    void on_name(std::string_view name, TextRange range) {
        levels_.back().name_next = false;
        if (levels_.size() == kRoot) {
            in_keys_ = name == "keys";
            if (in_keys_) {
                spans_.keys_name = range;
                spans_.keys_colon_end = colon_end(range.end);
            } else if (what_ == Locate::kSections) {
                spans_.sections.push_back({std::string(name), range, colon_end(range.end), {}, {}});
            }
        } else if (levels_.size() == kRow && in_keys_ && what_ == Locate::kFields && !spans_.rows.empty()) {
            const auto* const found = std::find(kKeyFieldNames.begin(), kKeyFieldNames.end(), name);
            if (found != kKeyFieldNames.end()) {
                spans_.rows.back().fields.push_back(
                    {static_cast<KeyField>(found - kKeyFieldNames.begin()), range, {}, {}});
            }
        }
    }

    /// Offset behind the colon that follows a name; the name's own end when there is none (`{a}`).
    [[nodiscard]] size_t colon_end(size_t name_end) const {
        const size_t colon = skip_blanks_and_comments(text_, name_end);
        return colon < text_.size() && text_[colon] == ':' ? colon + 1 : name_end;
    }

    /// Where the value behind this name stands: one that is not written, right behind the colon.
    [[nodiscard]] TextRange value_range(TextRange range, bool null, size_t name_end) const {
        const size_t colon = colon_end(name_end);
        const bool written =
            !null || (range.end > range.begin && skip_blanks_and_comments(text_, colon) == range.begin);
        return written ? range : TextRange{colon, colon};
    }

    /// The field of a key, or the part of the root, that a value at this depth belongs to; nullptr for what
    /// is not asked for.
    FieldSpan* field_here() {
        return levels_.size() == kRow && in_keys_ && what_ == Locate::kFields && !spans_.rows.empty() &&
                       !spans_.rows.back().fields.empty()
                   ? &spans_.rows.back().fields.back()
                   : nullptr;
    }
    SectionSpan* section_here() {
        return levels_.size() == kRoot && !in_keys_ && !spans_.sections.empty() ? &spans_.sections.back()
                                                                                : nullptr;
    }

    void collect_scalar(const YamlScalar& scalar, TextRange range, bool name) {
        if (collecting_.empty()) {
            return;
        }
        std::vector<YamlSpan>& children = collecting_.back().children;
        if (!name && in_map() && !children.empty()) {
            range = value_range(range, scalar.kind == YamlScalarKind::kNull, children.back().range.end);
        }
        children.push_back({YamlNode::Kind::kScalar, false, range, std::string(scalar.text), {}});
    }

    void collect_end(TextRange range) {
        if (collecting_.empty()) {
            return;
        }
        YamlSpan done = std::move(collecting_.back());
        done.range = range;
        collecting_.pop_back();
        if (!collecting_.empty()) {
            collecting_.back().children.push_back(std::move(done));
        } else if (FieldSpan* field = field_here()) {
            field->tree = std::move(done);
        } else if (SectionSpan* section = section_here()) {
            section->tree = std::move(done);
        }
    }

    void before_node() {
        if (in_map()) {
            levels_.back().name_next = true;
        }
    }

    /// A value is complete; notes it when it is the list, a key's field or another part of the root.
    void after_node(TextRange range, bool null) {
        if (levels_.size() == kRoot && in_keys_) {
            spans_.keys = null ? TextRange{spans_.keys_colon_end, spans_.keys_colon_end} : range;
        } else if (FieldSpan* field = field_here()) {
            field->value = value_range(range, null, field->name.end);
        } else if (SectionSpan* section = section_here()) {
            section->value = value_range(range, null, section->name.end);
        }
    }

    void begin(YamlPlace place, bool flow, bool map) {
        before_node();
        const char first = place.offset < text_.size() ? text_[place.offset] : '\0';
        const bool bracket = flow && first == (map ? '{' : '[');  // `[a: b]` has a mapping without braces
        if (!collecting_.empty() || field_here() != nullptr || section_here() != nullptr) {
            const auto kind = map ? YamlNode::Kind::kMap : YamlNode::Kind::kList;
            collecting_.push_back({kind, flow, {}, {}, {}});
        }
        levels_.push_back({place.offset, map, bracket, map});
        if (bracket) {
            last_end_ = place.offset + 1;
        }
        if (levels_.size() == kRoot) {
            spans_.root_flow = flow;
            spans_.root_begin = place.offset;
        } else if (levels_.size() == kList && in_keys_) {
            spans_.flow = flow;
        } else if (levels_.size() == kRow && in_keys_) {
            spans_.rows.push_back({{place.offset, place.offset}, flow, {}});
        }
    }

    void end() {
        const Level level = levels_.back();
        levels_.pop_back();
        if (level.bracket) {
            last_end_ = closing_bracket_end(level.map ? '}' : ']');
        }
        const TextRange range{level.begin, last_end_};
        if (levels_.size() + 1 == kRow && in_keys_ && !spans_.rows.empty()) {
            spans_.rows.back().map = range;
        }
        after_node(range, false);
        collect_end(range);
    }

    [[nodiscard]] size_t closing_bracket_end(char bracket) const {
        size_t at = last_end_;
        while ((at = skip_blanks_and_comments(text_, at)) < text_.size()) {
            if (text_[at] == bracket) {
                return at + 1;
            }
            ++at;  // a comma, or the colon or question mark of a name without a value
        }
        return at;
    }

    std::string_view text_;
    Locate what_;
    YamlVisitor& next_;
    KeySetSpans& spans_;
    std::vector<Level> levels_;
    std::vector<YamlSpan> collecting_;  // the collections that are open, the outermost first
    size_t last_end_ = 0;
    bool in_keys_ = false;
};

}  // namespace

size_t skip_blanks_and_comments(std::string_view text, size_t at) {
    while (at < text.size()) {
        if (text[at] == '#' && (at == 0 || is_blank(text[at - 1]))) {
            at = line_end(text, at);
        } else if (is_blank(text[at])) {
            ++at;
        } else {
            break;
        }
    }
    return at;
}

size_t line_end(std::string_view text, size_t at) {
    const size_t newline = text.find('\n', at);
    return newline == std::string_view::npos ? text.size() : newline + 1;
}

size_t line_begin(std::string_view text, size_t at) {
    const size_t newline = at == 0 ? std::string_view::npos : text.rfind('\n', at - 1);
    return newline == std::string_view::npos ? 0 : newline + 1;
}

Result<LocatedKeySet> locate_key_set(std::string_view text, const std::string& file, Locate what,
                                     const YamlLimits& limits) {
    LocatedKeySet located;
    YamlReporter reporter(file, text);
    YamlSummary summary;
    std::optional<Locator> locator;
    const auto wrap = [&](YamlVisitor& parser) -> YamlVisitor* {
        return &locator.emplace(text, what, parser, located.spans);
    };
    const auto sink = [&](KeyRow row) { located.rows.push_back(std::move(row)); };
    if (!run_key_set(text, limits, sink, reporter, wrap, summary)) {
        return fail(reporter.errors().joined());
    }
    located.policies = std::move(summary.policies);
    return located;
}

}  // namespace apikeyd
