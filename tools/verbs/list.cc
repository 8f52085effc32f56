// list, show: keys as the store has them.

#include <memory>

#include "base/hex.h"
#include "tools/key_view.h"
#include "tools/policy_view.h"
#include "tools/read_store.h"
#include "tools/verbs/registry.h"
#include "usage/usage_reader.h"

namespace apikeyd {

namespace {

struct ListOptions {
    std::string owner;
    std::string state;
    std::string environment;
    std::string plan;
};

Outcome list(const Context& context, const ListOptions& options) {
    std::vector<Record> records;
    const int64_t now = now_s();
    const auto matches = [](const std::string& wanted, std::string_view found) {
        return wanted.empty() || wanted == found;
    };
    const auto read = read_store(context, [&](const KeyRow& row) {
        if (matches(options.owner, row.owner) && matches(options.environment, row.environment) &&
            matches(options.state, shown_state(row, now)) && matches(options.plan, terms_of(row).plan)) {
            records.push_back(short_record(row, now));
        }
    });
    return read ? print(format_list(context.output(), short_record_names(), records))
                : tl::unexpected(read.error());
}

/// What the usage store knows of the key; nothing where it cannot be read.
void append_usage(const Context& context, const std::string& id, Record& record) {
    KeyTotal total;
    bool known = false;
    if (const auto path = context.usage_path(); path) {
        if (auto reader = UsageReader::open(*path); reader) {
            const auto found = reader->total(id);
            known = found.has_value();
            total = known ? found->value_or(KeyTotal{}) : KeyTotal{};
        }
    }
    record.push_back({"allowed", known ? Value(total.allowed) : Value()});
    record.push_back({"denied", known ? Value(total.denied) : Value()});
    record.push_back({"last_used", total.last_used_s != 0 ? Value(Time{total.last_used_s}) : Value()});
}

Outcome show(const Context& context, const std::string& id) {
    std::optional<KeyRow> found;
    const auto read = read_store(context, [&](KeyRow row) {
        if (row.id == id) {
            found = std::move(row);
        }
    });
    if (!read) {
        return tl::unexpected(read.error());
    }
    if (!found) {
        return failed(Exit::kNo, id + ": no key with this id in " + context.store_path().value());
    }
    Record record = short_record(*found, now_s());
    append_terms(record, terms_of(*found));
    record.push_back({"foreign", found->foreign});
    record.push_back({"metadata", found->metadata.empty() ? Value() : Value(RawJson{found->metadata})});
    record.push_back({"sha256", to_hex(found->digest)});
    append_usage(context, id, record);
    return print(format_record(context.output(), record));
}

}  // namespace

Verb add_list(CommandLine& line) {
    auto options = std::make_shared<ListOptions>();
    Command command = line.add_verb("list", "list keys");
    command.add_option("--owner", options->owner, "only this owner's");
    command.add_choice("--state", options->state, {"active", "disabled", "revoked", "expired"},
                       "only active, disabled, revoked or expired ones");
    command.add_option("--environment", options->environment, "only those of this environment");
    command.add_option("--plan", options->plan, "only those with this plan");
    command.set_example("apikeyctl list --owner acme --state active --output json");
    return {command, [options](const Context& context) { return list(context, *options); }};
}

Verb add_show(CommandLine& line) {
    auto id = std::make_shared<std::string>();
    Command command = line.add_verb("show", "show what is known of a key");
    command.add_id(*id);
    command.set_example("apikeyctl show 2RkT9pQwX4Za");
    return {command, [id](const Context& context) { return show(context, *id); }};
}

}  // namespace apikeyd
