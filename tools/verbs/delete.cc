// delete: a key that is forgotten, and refused from then on as one that nobody issued.

#include <memory>

#include "tools/key_change.h"
#include "tools/verbs/registry.h"

namespace apikeyd {

namespace {

Outcome delete_key(const Context& context, const std::string& id) {
    const KeyEdit edit = [&](KeySet& set) -> tl::expected<std::vector<Change>, Failure> {
        const auto row = find_key(context, set, id);
        if (!row) {
            return tl::unexpected(row.error());
        }
        if (const Result<bool> erased = set.erase(id); !erased) {
            return failed(Exit::kUnreachable, erased.error());
        }
        return std::vector<Change>{{Change::Kind::kRemove, *row}};
    };
    return change_keys(context, edit);
}

}  // namespace

Verb add_delete(CommandLine& line) {
    auto id = std::make_shared<std::string>();
    Command command = line.add_verb("delete", "forget a key, and that it was ever issued");
    command.add_id(*id);
    command.set_example("apikeyctl delete 2RkT9pQwX4Za");
    return {command, [id](const Context& context) { return delete_key(context, *id); }};
}

}  // namespace apikeyd
