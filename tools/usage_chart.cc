#include "tools/usage_chart.h"

#include <apikey/apikey.h>

#include "tools/chart.h"
#include "tools/output.h"

namespace apikeyd {

namespace {

/// What a limit in shadow mode would have refused is counted beside the answer, which was another.
bool is_answer(uint8_t code) {
    return code < APIKEY_SHADOW_RATE_LIMITED;
}

Result<void> add_codes(UsageReader& reader, const ChartQuestion& question, Chart& chart) {
    return reader.for_each_code_rollup(question.stretch, [&](const CodeRollup& one) {
        if (question.code) {
            chart.add(one.start_s, *question.code == one.count.code ? one.count.total : 0, 0);
        } else if (is_answer(one.count.code)) {
            const bool allowed = one.count.code == APIKEY_VALID;
            chart.add(one.start_s, allowed ? one.count.total : 0, allowed ? 0 : one.count.total);
        }
    });
}

Result<void> add_keys(UsageReader& reader, const ChartQuestion& question, Chart& chart) {
    return reader.for_each_rollup(question.stretch, [&](const KeyRollup& one) {
        if (question.keys == nullptr || question.keys->find(one.key_id)) {
            chart.add(one.start_s, one.allowed, one.denied);
        }
    });
}

}  // namespace

Outcome print_chart(UsageReader& reader, const ChartQuestion& question) {
    const RollupQuery& stretch = question.stretch;
    Chart chart({stretch.step_s, stretch.since_s, stretch.until_s},
                {output_columns(), utf8_wanted(), colour_wanted()});
    const bool of_keys = question.keys != nullptr || stretch.key_id;
    const Result<void> read =
        of_keys ? add_keys(reader, question, chart) : add_codes(reader, question, chart);
    if (!read) {
        return failed(Exit::kUnreachable, read.error());
    }
    const std::string counted =
        question.code ? apikey_code_name(static_cast<apikey_code>(*question.code)) : "requests";
    return print(chart.format(counted, !question.code));
}

}  // namespace apikeyd
