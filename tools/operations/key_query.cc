#include "tools/operations/key_query.h"

#include "source/store_page.h"
#include "tools/key_view.h"
#include "tools/read_store.h"
#include "tools/tags.h"
#include "usage/usage_reader.h"

namespace apikeyd {

bool KeyQuery::matches(const KeyRow& row, int64_t now_s) const {
    const auto is = [](const std::string& wanted, std::string_view found) {
        return wanted.empty() || wanted == found;
    };
    return is(owner, row.owner) && is(environment, row.environment) && is(state, shown_state(row, now_s)) &&
           is(plan, terms_of(row).plan) && has_tags(row.metadata, tags);
}

Outcome read_page(const Context& context, const std::string& after,
                  const std::function<bool(const KeyRow& row)>& visit) {
    const auto store = context.store();
    if (!store) {
        return tl::unexpected(store.error());
    }
    const Result<void> read = visit_keys(*store, after, visit);
    return read ? Outcome() : failed(Exit::kUnreachable, read.error());
}

tl::expected<KeyRow, Failure> read_key(const Context& context, const std::string& id) {
    auto found = find_row(context, id);
    if (!found) {
        return tl::unexpected(found.error());
    }
    return *found ? tl::expected<KeyRow, Failure>(**std::move(found))
                  : failed(Exit::kNo, Cause::kMissing,
                           id + ": no key with this id in " + context.store()->place);
}

Record known_record(const Context& context, const KeyRow& row) {
    KeyTotal total;
    bool known = false;
    if (const auto path = context.usage_path(); path) {
        if (auto reader = UsageReader::open(*path); reader) {
            const auto found = reader->total(row.id);
            known = found.has_value();
            total = known ? found->value_or(KeyTotal{}) : KeyTotal{};
        }
    }
    Record record = full_record(row, now_s());
    record.push_back({"allowed", known ? Value(total.allowed) : Value()});
    record.push_back({"denied", known ? Value(total.denied) : Value()});
    record.push_back({"last_used", total.last_used_s != 0 ? Value(Time{total.last_used_s}) : Value()});
    return record;
}

}  // namespace apikeyd
