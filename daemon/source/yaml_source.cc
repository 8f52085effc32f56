#include "source/yaml_source.h"

#include "source/key_set_visitor.h"

namespace apikeyd {

bool run_key_set(std::string_view text, const YamlLimits& limits, const RowSink& sink, YamlReporter& reporter,
                 const std::function<YamlVisitor*(YamlVisitor& parser)>& wrap, YamlSummary& summary) {
    KeySetVisitor parser(limits, sink, reporter);
    YamlVisitor* const first = wrap ? wrap(parser) : &parser;
    const bool ok = run_yaml_events(text, limits, *first, reporter);
    summary.keys = parser.keys();
    summary.policies = std::move(parser.policies());
    summary.warnings = std::move(parser.warnings());
    return ok;
}

tl::expected<YamlSummary, YamlErrors> parse_key_set(std::string_view text, const std::string& file,
                                                    const RowSink& sink, const YamlLimits& limits) {
    YamlReporter reporter(file, text);
    YamlSummary summary;
    if (!run_key_set(text, limits, sink, reporter, {}, summary)) {
        return tl::unexpected(reporter.take());
    }
    return summary;
}

Result<std::vector<KeyRow>> parse_key_rows(std::string_view text, const std::string& file,
                                           const YamlLimits& limits) {
    std::vector<KeyRow> rows;
    auto parsed = parse_key_set(
        text, file, [&](KeyRow row) { rows.push_back(std::move(row)); }, limits);
    if (!parsed) {
        return fail(parsed.error().joined());
    }
    return rows;
}

namespace {

/// Gives a document that is one mapping to a MetadataJson.
class MetadataVisitor final : public YamlVisitor {
  public:
    explicit MetadataVisitor(YamlReporter& reporter) : reporter_(reporter), json_(reporter, "") {}

    void on_scalar(const YamlScalar& scalar) override {
        if (json_.done()) {
            no_mapping(scalar.place);
        }
        json_.on_scalar(scalar);
    }
    void on_map_begin(YamlPlace place, bool) override { json_.on_begin(place, true); }
    void on_map_end() override { json_.on_end(); }
    void on_sequence_begin(YamlPlace place, bool) override {
        if (json_.done()) {
            no_mapping(place);
        }
        json_.on_begin(place, false);
    }
    void on_sequence_end() override { json_.on_end(); }

    std::optional<std::string> take() { return json_.take(); }

  private:
    [[noreturn]] void no_mapping(YamlPlace place) {
        reporter_.add(place, "no mapping (want {\"name\": value, ...})");
        throw YamlStop{};
    }

    YamlReporter& reporter_;
    MetadataJson json_;
};

}  // namespace

Result<std::string> compact_metadata(std::string_view json) {
    const std::string text = std::string(json) + "\n";
    YamlReporter reporter("metadata", text);
    MetadataVisitor visitor(reporter);
    std::optional<std::string> compact;
    if (run_yaml_events(text, {}, visitor, reporter)) {
        compact = visitor.take();
    }
    if (!compact) {
        return fail(reporter.errors().joined());
    }
    return *std::move(compact);
}

}  // namespace apikeyd
