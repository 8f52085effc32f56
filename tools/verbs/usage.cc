// usage: how often keys were allowed and denied, and how often each code was answered on this host; in all,
// or by time.

#include <algorithm>
#include <memory>

#include "source/rfc3339.h"
#include "source/yaml_events.h"
#include "tools/operations/key_usage.h"
#include "tools/read_store.h"
#include "tools/usage_access.h"
#include "tools/usage_chart.h"
#include "tools/usage_fleet.h"
#include "tools/usage_period.h"
#include "tools/usage_report.h"
#include "tools/validator.h"
#include "tools/verbs/registry.h"

namespace apikeyd {

namespace {

struct UsageOptions {
    std::string id;
    KeyFilter filter;
    std::string code;
    std::string group_by;
    bool chart = false;
    bool no_flush = false;
    bool fleet = false;
    UsagePeriodOptions period;

    [[nodiscard]] bool of_codes() const { return !code.empty() || group_by == "code"; }
};

/// What the fleet's database cannot tell.
Outcome check_fleet_options(const UsageOptions& options) {
    if (options.chart || options.filter.plan || !options.code.empty() || options.group_by == "plan" ||
        options.no_flush || options.period.by == "minute") {
        return failed(Exit::kUsage,
                      "--fleet: is summed up by the hour, key, owner, host and code (want it without --plan, "
                      "--code, --chart, --no-flush, --group-by plan and --by minute)");
    }
    return {};
}

/// What cannot be asked, with what can.
Outcome check(const UsageOptions& options, OutputForm form) {
    if (options.chart && form != OutputForm::table) {
        return failed(Exit::kUsage,
                      "--chart: is drawn for a terminal (want it without --output json or csv)");
    }
    if (options.chart && !options.group_by.empty()) {
        return failed(Exit::kUsage,
                      "--chart: draws one sum (want it without --group-by; an ID, --owner, "
                      "--plan or --code says of what)");
    }
    const bool by_host = options.group_by == "host";
    if (by_host && !options.fleet) {
        return failed(Exit::kUsage,
                      "--group-by host: is for --fleet; all that is counted here is this host's");
    }
    if (options.fleet) {
        if (Outcome known = check_fleet_options(options); !known) {
            return known;
        }
    }
    if (!options.id.empty() && (options.filter.given() || !(options.group_by.empty() || by_host))) {
        return failed(Exit::kUsage,
                      "usage: want either the ID of one key, or --owner, --plan and --group-by");
    }
    if (options.of_codes() && (!options.id.empty() || options.filter.given())) {
        return failed(Exit::kUsage,
                      "usage: codes are counted for the host, not for a key, an owner or a plan: want --code "
                      "and --group-by code without these (of a key there is what was allowed and denied)");
    }
    if (!options.code.empty() && !options.group_by.empty() && options.group_by != "code") {
        return failed(Exit::kUsage, "usage: codes are counted for the host, not by " + options.group_by +
                                        ": want --code without --group-by");
    }
    return {};
}

std::vector<std::string> code_names() {
    std::vector<std::string> names;
    for (int code = 0; code <= APIKEY_SHADOW_USAGE_EXCEEDED; ++code) {
        names.emplace_back(apikey_code_name(static_cast<apikey_code>(code)));
    }
    return names;
}

std::optional<uint8_t> code_named(const std::string& name) {
    const std::vector<std::string> names = code_names();
    for (size_t code = 0; code < names.size(); ++code) {
        if (names[code] == name) {
            return static_cast<uint8_t>(code);
        }
    }
    return std::nullopt;
}

GroupBy group_named(const std::string& name) {
    return name == "owner" ? GroupBy::kOwner : name == "plan" ? GroupBy::kPlan : GroupBy::kKey;
}

Outcome check_names(const Context& context, const KeyFilter& filter, const KeyGroups& keys,
                    const PolicySet& policies) {
    const auto is_named = [](const auto& rows, const std::string& name) {
        return std::any_of(rows.begin(), rows.end(), [&](const auto& row) { return row.name == name; });
    };
    const std::string in = " in " + context.store()->place;
    if (filter.plan && !filter.plan->empty() && !is_named(policies.plans, *filter.plan)) {
        return failed(Exit::kNo, yaml_quote(*filter.plan) + ": no plan with this name" + in);
    }
    if (filter.owner && keys.empty() && !is_named(policies.owners, *filter.owner)) {
        return failed(Exit::kNo, yaml_quote(*filter.owner) + ": no owner with this name, and no key of one" +
                                     (filter.plan ? " with that plan" : "") + in);
    }
    return {};
}

tl::expected<std::unique_ptr<KeyGroups>, Failure> read_groups(const Context& context,
                                                              const UsageOptions& options) {
    auto keys = std::make_unique<KeyGroups>(options.filter, group_named(options.group_by));
    const auto content = read_store(context, [&](const KeyRow& row) { keys->add(row); });
    if (!content) {
        return tl::unexpected(content.error());
    }
    if (Outcome named = check_names(context, options.filter, *keys, content->policies); !named) {
        return tl::unexpected(named.error());
    }
    keys->seal();
    return keys;
}

/// Sums of a stretch that began before what is kept would be taken for whole. Without --since what is asked
/// for is what there is, unless it ends before that. A chart begins there then.
tl::expected<bool, Failure> is_partial(UsageReader& reader, const UsageOptions& options,
                                       RollupQuery& stretch) {
    // Of steps, those that are kept are what was asked for where nobody said since when; of a sum, all are.
    const bool asked_from = options.period.since || (options.period.by.empty() && !options.chart);
    const auto kept = kept_of(reader, stretch, asked_from);
    if (!kept) {
        return tl::unexpected(kept.error());
    }
    const int64_t first_s = kept->first_s.value_or(stretch.until_s);
    if (options.chart && !options.period.since) {
        stretch.since_s = std::min(first_s, stretch.until_s);
    }
    if (kept->partial) {
        say("usage: this is not all of the stretch: counts by " + std::string(step_name(stretch.step_s)) +
            " are kept from " + (kept->first_s ? format_rfc3339(first_s) : "later") +
            " on (see retention in apikeyd.yaml(5))");
    }
    return kept->partial;
}

/// The keys that the options name; nullptr: all, and each by itself.
tl::expected<std::unique_ptr<KeyGroups>, Failure> wanted_keys(const Context& context,
                                                              const UsageOptions& options) {
    if (options.filter.given() || options.group_by == "owner" || options.group_by == "plan") {
        return read_groups(context, options);
    }
    return nullptr;
}

UsageQuestion question_of(const UsageOptions& options, const KeyGroups* keys) {
    UsageQuestion question;
    question.keys = keys;
    question.group_by = group_named(options.group_by);
    question.each_step = !options.period.by.empty();
    question.with_keys = !options.of_codes();
    question.with_codes =
        options.of_codes() || (options.id.empty() && !options.filter.given() && options.group_by.empty());
    question.code = code_named(options.code);
    return question;
}

Outcome answer(const Context& context, const UsageOptions& options, std::optional<RollupQuery> stretch) {
    const auto keys = wanted_keys(context, options);
    if (!keys) {
        return tl::unexpected(keys.error());
    }
    auto usage = open_usage(context, !options.no_flush);
    if (!usage) {
        return tl::unexpected(usage.error());
    }
    if (!options.id.empty()) {
        const auto total = total_of(context, usage->reader, options.id);
        if (!total) {
            return tl::unexpected(total.error());
        }
        if (!stretch) {
            return print(format_record(context.output(), total_record(*total)));
        }
        stretch->key_id = options.id;
    }
    UsageNotes notes{usage->complete, usage->unflushed, false};
    if (stretch) {
        const auto partial = is_partial(usage->reader, options, *stretch);
        if (!partial) {
            return tl::unexpected(partial.error());
        }
        notes.partial = *partial;
    }
    if (options.chart) {
        return print_chart(usage->reader, {*stretch, keys->get(), code_named(options.code)});
    }
    UsageQuestion question = question_of(options, keys->get());
    question.stretch = stretch;
    return print_usage(usage->reader, question, notes, context.output());
}

/// What hosts sent to the fleet's database; no daemon is asked.
Outcome fleet_usage(const Context& context, const UsageOptions& options) {
    std::optional<RollupQuery> stretch;
    if (options.period.given()) {
        const Result<RollupQuery> parsed = parse_usage_period(options.period, unix_now_s());
        if (!parsed) {
            return failed(Exit::kUsage, parsed.error());
        }
        if (parsed->step_s < kRollupSteps_s[1]) {
            return failed(Exit::kUsage,
                          "--fleet: is summed up by the hour (want --since and --until at full hours)");
        }
        stretch = *parsed;
    }
    return print_fleet_usage(
        context, {options.id, options.filter.owner, options.group_by, !options.period.by.empty()}, stretch);
}

Outcome usage(const Context& context, UsageOptions options) {
    if (Outcome sensible = check(options, context.output()); !sensible) {
        return sensible;
    }
    if (options.chart && !options.period.given()) {
        options.period = {.since = "24h", .by = "hour"};
    }
    if (options.fleet) {
        return fleet_usage(context, options);
    }
    const auto path = context.usage_path();
    if (!path) {
        return tl::unexpected(path.error());
    }
    if (!options.period.given()) {
        return answer(context, options, std::nullopt);
    }
    const Result<RollupQuery> stretch = options.chart ? parse_chart_period(options.period, unix_now_s())
                                                      : parse_usage_period(options.period, unix_now_s());
    return stretch ? answer(context, options, *stretch) : failed(Exit::kUsage, stretch.error());
}

}  // namespace

Verb add_usage(CommandLine& line) {
    auto options = std::make_shared<UsageOptions>();
    Command command = line.add_verb("usage", "show how often keys were allowed and denied");
    command.add_optional_id(options->id);
    command.add_option("--owner", options->filter.owner, "only this owner's keys");
    command.add_option("--plan", options->filter.plan, "only keys with this plan");
    command.add_choice("--code", options->code, code_names(), "only how often the host answered this");
    command.add_choice("--group-by", options->group_by, {"key", "owner", "plan", "code", "host"},
                       "one sum for each of these");
    command.add_option("--since", options->period.since,
                       "from this time on, 2026-11-01, or as long ago as 30d");
    command.add_option("--until", options->period.until, "before this time [now]");
    command.add_choice("--by", options->period.by, {"minute", "hour", "day"}, "one line for each of these");
    command.add_flag("--chart", options->chart, "draw it by time, the last 24 hours unless told otherwise");
    command.add_flag("--no-flush", options->no_flush, "leave out what was counted since the last flush");
    command.add_flag("--fleet", options->fleet, "of all hosts of the fleet, as they sent it to its database");
    command.set_example(
        "apikeyctl usage --since 2026-11-01 --until 2026-12-01 --group-by owner --output csv > november.csv");
    return {command, [options](const Context& context) { return usage(context, *options); }};
}

}  // namespace apikeyd
