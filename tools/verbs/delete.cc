// delete: a key that is forgotten, and refused from then on as one that nobody issued.

#include <memory>

#include "tools/operations/key_operations.h"
#include "tools/verbs/registry.h"

namespace apikeyd {

Verb add_delete(CommandLine& line) {
    auto id = std::make_shared<std::string>();
    Command command = line.add_verb("delete", "forget a key, and that it was ever issued");
    command.add_id(*id);
    command.set_example("apikeyctl delete 2RkT9pQwX4Za");
    return {command, [id](const Context& context) { return delete_key(context, *id); }};
}

}  // namespace apikeyd
