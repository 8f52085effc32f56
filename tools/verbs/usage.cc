// usage: how often keys were allowed and denied, and how often each code was answered on this host; in all,
// or by time.

#include <map>
#include <memory>

#include "tools/read_store.h"
#include "tools/usage_period.h"
#include "tools/validator.h"
#include "tools/verbs/registry.h"
#include "usage/usage_reader.h"

namespace apikeyd {

namespace {

struct UsageOptions {
    std::string id;
    bool no_flush = false;
    UsagePeriodOptions period;
};

/// Brings the store up to date; empty, or why it is not.
std::string flush(const Context& context) {
    const auto answer = context.ask(FlushRequest{}, kStatusWait_ms);
    if (!answer) {
        return answer.error().message;
    }
    const Result<void> done = parse_done(*answer);
    return done ? std::string() : context.socket_path() + ": " + done.error().message;
}

Record total_record(const KeyTotal& total) {
    return {{"id", total.key_id},
            {"allowed", total.allowed},
            {"denied", total.denied},
            {"last_used", total.last_used_s != 0 ? Value(Time{total.last_used_s}) : Value()}};
}

const std::vector<std::string_view> kTotalNames = {"id", "allowed", "denied", "last_used"};

/// For a key without counts: zeros when the key set has it.
tl::expected<KeyTotal, Failure> uncounted(const Context& context, const std::string& id) {
    bool found = false;
    const auto read = read_store(context, [&](const KeyRow& row) { found = found || row.id == id; });
    if (!read) {
        return tl::unexpected(read.error());
    }
    if (!found) {
        return failed(Exit::kNo, id + ": no key with this id in " + context.store_path().value() +
                                     ", and no counts of one");
    }
    return KeyTotal{.key_id = id};
}

Outcome usage_of_key(const Context& context, UsageReader& reader, const std::string& id) {
    const auto total = reader.total(id);
    if (!total) {
        return failed(Exit::kUnreachable, total.error());
    }
    if (*total) {
        return print(format_record(context.output(), total_record(**total)));
    }
    const auto zeros = uncounted(context, id);
    return zeros ? print(format_record(context.output(), total_record(*zeros)))
                 : Outcome(tl::unexpected(zeros.error()));
}

Outcome usage_of_all(const Context& context, UsageReader& reader, bool complete) {
    std::vector<Record> keys;
    if (const auto walked =
            reader.for_each_total([&](const KeyTotal& total) { keys.push_back(total_record(total)); });
        !walked) {
        return failed(Exit::kUnreachable, walked.error());
    }
    const auto codes = reader.codes();
    if (!codes) {
        return failed(Exit::kUnreachable, codes.error());
    }
    Record by_code;
    std::vector<Record> code_lines;
    for (const CodeCount& one : *codes) {
        const char* name = apikey_code_name(static_cast<apikey_code>(one.code));
        by_code.push_back({name, one.total});
        code_lines.push_back({{"code", std::string(name)}, {"total", one.total}});
    }
    switch (context.output()) {
        case OutputForm::json:
            return print(json_object({{"complete", complete},
                                      {"keys", RawJson{json_list(keys)}},
                                      {"codes", RawJson{json_object(by_code)}}}) +
                         '\n');
        case OutputForm::csv:  // one table only, so that it can be read by a machine
            return print(format_list(OutputForm::csv, kTotalNames, keys));
        case OutputForm::table:
            break;
    }
    return print(format_list(OutputForm::table, kTotalNames, keys) + '\n' +
                 format_list(OutputForm::table, {"code", "total"}, code_lines));
}

/// Counts by time: of the whole stretch, or of each step of it.
class UsageByTime {
  public:
    UsageByTime(UsageReader& reader, const RollupQuery& query, bool each_step, OutputForm form)
        : reader_(reader), query_(query), each_step_(each_step), form_(form) {}

    Outcome print_it(bool complete) {
        const bool json = form_ == OutputForm::json;
        if (json) {
            printer_.add(R"({"complete":)" + std::string(complete ? "true" : "false") + R"(,"keys":)");
        }
        Result<void> read = print_keys();
        if (read && !query_.key_id && form_ != OutputForm::csv) {  // CSV: one table only, as without a time
            printer_.add(json ? R"(,"codes":)" : "\n");
            read = print_codes();
        }
        if (!read) {
            return failed(Exit::kUnreachable, read.error());
        }
        printer_.add(json ? "}\n" : "");
        return printer_.end();
    }

  private:
    Result<void> print_keys() {
        ListPrinter list = begin({"id", "allowed", "denied"});
        const auto add = [&](const KeyRollup& one) {
            list.add(
                record(one.start_s, {{"id", one.key_id}, {"allowed", one.allowed}, {"denied", one.denied}}));
        };
        Result<void> read =
            each_step_ ? reader_.for_each_rollup(query_, add) : reader_.for_each_sum(query_, add);
        list.end();
        return read;
    }

    Result<void> print_codes() {
        ListPrinter list = begin({"code", "total"});
        const auto add = [&](int64_t start_s, const CodeCount& one) {
            const char* name = apikey_code_name(static_cast<apikey_code>(one.code));
            list.add(record(start_s, {{"code", std::string(name)}, {"total", one.total}}));
        };
        std::map<uint8_t, uint64_t> sums;
        Result<void> read = reader_.for_each_code_rollup(query_, [&](const CodeRollup& one) {
            each_step_ ? add(one.start_s, one.count) : void(sums[one.count.code] += one.count.total);
        });
        for (const auto& [code, total] : sums) {
            add(query_.since_s, {code, total});
        }
        list.end();
        return read;
    }

    ListPrinter begin(std::vector<std::string_view> names) {
        if (each_step_) {
            names.insert(names.begin(), "start");
        }
        return {printer_, form_, std::move(names)};
    }
    Record record(int64_t start_s, Record fields) const {
        if (each_step_) {
            fields.insert(fields.begin(), {"start", Time{start_s}});
        }
        return fields;
    }

    UsageReader& reader_;
    const RollupQuery& query_;
    bool each_step_;
    OutputForm form_;
    Printer printer_;
};

Outcome usage_by_time(const Context& context, UsageReader& reader, const UsageOptions& options,
                      RollupQuery query, bool complete) {
    if (!options.id.empty()) {
        const auto total = reader.total(options.id);
        if (!total) {
            return failed(Exit::kUnreachable, total.error());
        }
        if (const auto zeros = *total ? KeyTotal{} : uncounted(context, options.id); !zeros) {
            return tl::unexpected(zeros.error());
        }
        query.key_id = options.id;
    }
    return UsageByTime(reader, query, !options.period.by.empty(), context.output()).print_it(complete);
}

Outcome usage(const Context& context, const UsageOptions& options) {
    const auto path = context.usage_path();
    if (!path) {
        return tl::unexpected(path.error());
    }
    const Result<RollupQuery> query = parse_usage_period(options.period, unix_now_s());
    if (!query) {
        return failed(Exit::kUsage, query.error());
    }
    bool complete = false;
    if (!options.no_flush) {
        const std::string problem = flush(context);
        complete = problem.empty();
        if (!complete) {
            say(problem + "\n(counts since the last flush are missing)");
        }
    }
    Result<UsageReader> reader = UsageReader::open(*path);
    if (!reader) {
        return failed(Exit::kUnreachable, reader.error());
    }
    if (options.period.given()) {
        return usage_by_time(context, *reader, options, *query, complete);
    }
    return options.id.empty() ? usage_of_all(context, *reader, complete)
                              : usage_of_key(context, *reader, options.id);
}

}  // namespace

Verb add_usage(CommandLine& line) {
    auto options = std::make_shared<UsageOptions>();
    Command command = line.add_verb("usage", "show how often keys were allowed and denied");
    command.add_optional_id(options->id);
    command.add_option("--since", options->period.since,
                       "from this time on, 2026-11-01, or as long ago as 30d");
    command.add_option("--until", options->period.until, "before this time [now]");
    command.add_choice("--by", options->period.by, {"minute", "hour", "day"}, "one line for each of these");
    command.add_flag("--no-flush", options->no_flush, "leave out what was counted since the last flush");
    command.set_example("apikeyctl usage --since 2026-11-01 --until 2026-12-01 --output csv > november.csv");
    return {command, [options](const Context& context) { return usage(context, *options); }};
}

}  // namespace apikeyd
