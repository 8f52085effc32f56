// disable, enable, revoke: another state for one key, in force when the verb has ended with 0.

#include <memory>

#include "tools/operations/key_operations.h"
#include "tools/verbs/registry.h"

namespace apikeyd {

namespace {

Verb add_state_verb(CommandLine& line, const std::string& name, const std::string& summary, KeyState state) {
    auto id = std::make_shared<std::string>();
    auto wait = std::make_shared<std::string>("host");
    Command command = line.add_verb(name, summary);
    command.add_id(*id);
    command.add_choice("--wait", *wait, {"host", "fleet"}, "where it is in force when the verb has ended");
    command.set_example("apikeyctl " + name + " 2RkT9pQwX4Za");
    return {command, [id, wait, state](const Context& context) {
                return set_key_state(context, {*id, state, *wait == "fleet" ? Until::kFleet : Until::kHost});
            }};
}

}  // namespace

Verb add_disable(CommandLine& line) {
    return add_state_verb(line, "disable", "refuse a key until it is enabled again", KeyState::kDisabled);
}

Verb add_enable(CommandLine& line) {
    return add_state_verb(line, "enable", "accept a disabled key again", KeyState::kActive);
}

Verb add_revoke(CommandLine& line) {
    return add_state_verb(line, "revoke", "refuse a key for ever; done when no process accepts it any more",
                          KeyState::kRevoked);
}

}  // namespace apikeyd
