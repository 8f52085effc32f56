// usage: how often keys were allowed and denied, and how often each code was answered on this host.

#include <memory>

#include "tools/read_store.h"
#include "tools/validator.h"
#include "tools/verbs/registry.h"
#include "usage/usage_reader.h"

namespace apikeyd {

namespace {

struct UsageOptions {
    std::string id;
    bool no_flush = false;
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

Outcome usage(const Context& context, const UsageOptions& options) {
    const auto path = context.usage_path();
    if (!path) {
        return tl::unexpected(path.error());
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
    return options.id.empty() ? usage_of_all(context, *reader, complete)
                              : usage_of_key(context, *reader, options.id);
}

}  // namespace

Verb add_usage(CommandLine& line) {
    auto options = std::make_shared<UsageOptions>();
    Command command = line.add_verb("usage", "show how often keys were allowed and denied");
    command.add_optional_id(options->id);
    command.add_flag("--no-flush", options->no_flush, "leave out what was counted since the last flush");
    command.set_example("apikeyctl usage --output csv > usage.csv");
    return {command, [options](const Context& context) { return usage(context, *options); }};
}

}  // namespace apikeyd
