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

}  // namespace apikeyd
