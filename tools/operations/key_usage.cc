#include "tools/operations/key_usage.h"

#include "tools/read_store.h"

namespace apikeyd {

tl::expected<KeyTotal, Failure> total_of(const Context& context, UsageReader& reader, const std::string& id) {
    const auto total = reader.total(id);
    if (!total) {
        return failed(Exit::kUnreachable, total.error());
    }
    if (*total) {
        return **total;
    }
    const auto found = find_row(context, id);
    if (!found) {
        return tl::unexpected(found.error());
    }
    return *found
               ? tl::expected<KeyTotal, Failure>(KeyTotal{.key_id = id})
               : failed(Exit::kNo, Cause::kMissing,
                        id + ": no key with this id in " + context.store()->place + ", and no counts of one");
}

Record total_record(const KeyTotal& total) {
    return {{"id", total.key_id},
            {"allowed", total.allowed},
            {"denied", total.denied},
            {"last_used", total.last_used_s != 0 ? Value(Time{total.last_used_s}) : Value()}};
}

tl::expected<KeptStretch, Failure> kept_of(UsageReader& reader, const RollupQuery& stretch,
                                           bool from_its_start) {
    const auto kept = reader.kept(stretch);
    if (!kept) {
        return failed(Exit::kUnreachable, kept.error());
    }
    const int64_t first_s = kept->first_s.value_or(stretch.until_s);
    const bool partial =
        kept->lost && (from_its_start ? stretch.since_s < first_s : stretch.until_s <= first_s);
    return KeptStretch{kept->first_s, partial};
}

}  // namespace apikeyd
