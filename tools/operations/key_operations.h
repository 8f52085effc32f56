// What is done to keys, by the command line and by the door alike: each is durable in the store first, then
// in force. Outcomes as change_keys() has them; where a field is at fault, they name it.

#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "source/key_row.h"
#include "tools/context.h"
#include "tools/key_change.h"
#include "tools/new_key.h"
#include "tools/outcome.h"

namespace apikeyd {

/// Is handed a new key and its row before anything is recorded; what it refuses leaves all as it was.
using ShowKey = std::function<Outcome(const NewKey& key, const KeyRow& row)>;

/// Looks at a key as it stands while nobody else changes it, and may refuse.
using CheckKey = std::function<Outcome(const KeyRow& row)>;

/// A change of a row that is not its state, nor the key's own parts.
using EditRow = std::function<Outcome(KeyRow& row)>;

/// Draws a key of this environment (environment_fits()) into `key`, completes `row` by it, and records it.
/// guard_plaintext() comes before.
Outcome issue_key(const Context& context, const std::string& environment, KeyRow& row, NewKey& key,
                  const ShowKey& show);

/// The old key ends as soon as its successor is recorded, or after a grace.
struct Rotation {
    std::string id;
    int64_t grace_s = 0;
    CheckKey check = {};
};
/// Draws a successor for a key. guard_plaintext() comes before.
Outcome rotate_key(const Context& context, const Rotation& rotation, NewKey& key, const ShowKey& show);

/// Another state. `after`: the row as it is then; nullptr: not wanted.
struct StateChange {
    std::string id;
    KeyState state = KeyState::kActive;
    Until until = Until::kHost;
    CheckKey check = {};
};
Outcome set_key_state(const Context& context, const StateChange& change, KeyRow* after = nullptr);

/// Other words and terms.
Outcome update_key(const Context& context, const std::string& id, const EditRow& edit,
                   KeyRow* after = nullptr);

Outcome delete_key(const Context& context, const std::string& id);

}  // namespace apikeyd
