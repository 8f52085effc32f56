// list, show: keys as the store has them.

#include <algorithm>
#include <functional>
#include <memory>
#include <utility>

#include "source/key_set_limits.h"
#include "source/yaml_events.h"
#include "tools/duration.h"
#include "tools/key_view.h"
#include "tools/operations/key_query.h"
#include "tools/read_store.h"
#include "tools/usage_access.h"
#include "tools/verbs/registry.h"

namespace apikeyd {

namespace {

struct ListOptions {
    KeyQuery query;
    std::optional<std::string> unused;
    std::optional<std::string> expiring;
    uint64_t limit = 0;  ///< 0: none
    std::string after;

    [[nodiscard]] bool paged() const { return limit != 0 || !after.empty(); }
};

/// Seconds of an option that takes a duration; nullopt where it is not given.
tl::expected<std::optional<int64_t>, Failure> duration_of(std::string_view option,
                                                          const std::optional<std::string>& text) {
    const std::optional<int64_t> duration_s = text ? parse_duration_s(*text) : std::nullopt;
    if (text && !duration_s) {
        return failed(Exit::kUsage, std::string(option) + ": " + yaml_quote(*text) +
                                        " is no duration (want 90d, 24h, 30m or 15s)");
    }
    return duration_s;
}

/// When keys were last used, by the usage store: some 40 bytes a key that ever was.
class LastUses {
  public:
    /// Flushed first: a key in use is not to look unused because its counts wait.
    static tl::expected<LastUses, Failure> read(const Context& context) {
        auto usage = open_usage(context, true);
        if (!usage) {
            return tl::unexpected(usage.error());
        }
        LastUses uses;
        const auto walked = usage->reader.for_each_total(
            [&](const KeyTotal& total) { uses.by_id_.emplace_back(total.key_id, total.last_used_s); });
        if (!walked) {
            return failed(Exit::kUnreachable, walked.error());
        }
        return uses;
    }

    [[nodiscard]] std::optional<int64_t> of(const std::string& id) const {
        const auto found =
            std::lower_bound(by_id_.begin(), by_id_.end(), id,
                             [](const auto& one, const std::string& wanted) { return one.first < wanted; });
        return found != by_id_.end() && found->first == id ? std::optional(found->second) : std::nullopt;
    }

  private:
    std::vector<std::pair<std::string, int64_t>> by_id_;  // in the store's order, of bytes
};

/// Neither used since `before_s` nor made since: a new key has had no time to be used.
bool is_unused(const KeyRow& row, std::optional<int64_t> last_used_s, int64_t before_s) {
    return last_used_s.value_or(0) < before_s && row.created_s < before_s;
}

bool expires_within(const KeyRow& row, int64_t now_s, int64_t duration_s) {
    return row.expires_s && *row.expires_s > now_s && *row.expires_s <= now_s + duration_s;
}

/// In the order of the store.
Outcome read_all(const Context& context, const RowSink& sink) {
    const auto read = read_store(context, sink);
    return read ? Outcome() : tl::unexpected(read.error());
}

Outcome list(const Context& context, const ListOptions& options) {
    const auto unused_s = duration_of("--unused", options.unused);
    const auto expiring_s = duration_of("--expiring", options.expiring);
    if (!unused_s || !expiring_s) {
        return tl::unexpected(unused_s ? expiring_s.error() : unused_s.error());
    }
    LastUses uses;
    if (*unused_s) {
        auto read = LastUses::read(context);
        if (!read) {
            return tl::unexpected(read.error());
        }
        uses = *std::move(read);
    }
    std::vector<Record> records;
    const int64_t now = now_s();
    const auto add = [&](const KeyRow& row) {
        const std::optional<int64_t> last_used_s = uses.of(row.id);
        if (!options.query.matches(row, now) ||
            (*unused_s && !is_unused(row, last_used_s, now - **unused_s)) ||
            (*expiring_s && !expires_within(row, now, **expiring_s))) {
            return;
        }
        records.push_back(short_record(row, now));
        if (*unused_s) {
            records.back().push_back({"last_used", time_or_none(last_used_s)});
        }
    };
    const Outcome read = options.paged()
                             ? read_page(context, options.after,
                                         [&](const KeyRow& row) {
                                             add(row);
                                             return options.limit == 0 || records.size() < options.limit;
                                         })
                             : read_all(context, add);
    std::vector<std::string_view> names = short_record_names();
    if (*unused_s) {
        names.emplace_back("last_used");
    }
    return read ? print(format_list(context.output(), names, records)) : read;
}

Outcome show(const Context& context, const std::string& id) {
    const auto row = read_key(context, id);
    return row ? print(format_record(context.output(), known_record(context, *row)))
               : tl::unexpected(row.error());
}

}  // namespace

Verb add_list(CommandLine& line) {
    auto options = std::make_shared<ListOptions>();
    Command command = line.add_verb("list", "list keys");
    command.add_option("--owner", options->query.owner, "only this owner's");
    command.add_choice("--state", options->query.state, {"active", "disabled", "revoked", "expired"},
                       "only active, disabled, revoked or expired ones");
    command.add_option("--environment", options->query.environment, "only those of this environment");
    command.add_option("--plan", options->query.plan, "only those with this plan");
    command.add_list("--tag", options->query.tags,
                     "only those that have this tag, and each other that is given");
    command.add_option("--unused", options->unused, "only those neither used nor made for so long, as 90d");
    command.add_option("--expiring", options->expiring, "only those that expire within so long, as 30d");
    command.add_number("--limit", options->limit, 0, kKeySetRowsMax,
                       "so many at most, in the order of their ids; 0: all");
    command.add_option("--after", options->after, "only those behind this id, in the order of ids");
    command.set_example("apikeyctl list --owner acme --state active --unused 90d --output json");
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
