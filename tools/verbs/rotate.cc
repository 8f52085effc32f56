// rotate, regenerate: a successor for a key, and an end for the key.

#include <algorithm>
#include <memory>
#include <optional>

#include "source/rfc3339.h"
#include "tools/duration.h"
#include "tools/key_change.h"
#include "tools/new_key.h"
#include "tools/verbs/registry.h"

namespace apikeyd {

namespace {

struct RotateOptions {
    std::string id;
    std::string grace = "0";
};

/// Why this key can have no successor.
Outcome check_rotatable(const KeyRow& old, int64_t now_s) {
    if (old.state == KeyState::kRevoked || (old.expires_s && *old.expires_s <= now_s)) {
        return failed(Exit::kNo, old.id +
                                     (old.state == KeyState::kRevoked ? ": is revoked" : ": has expired") +
                                     ", so nothing of it is left to hand on (issue another key)");
    }
    if (!environment_fits(old.environment)) {
        return failed(Exit::kNo, old.id + ": its environment cannot stand in a key that is made here; " +
                                     kEnvironmentWanted + " (issue another key)");
    }
    return {};
}

/// The old key's row as it is from now on: revoked without a grace, else it ends at the earlier of its own
/// expiry and the grace's end.
KeyRow ending(KeyRow old, int64_t grace_s, int64_t now_s) {
    if (grace_s == 0) {
        old.state = KeyState::kRevoked;
    } else {
        old.expires_s = std::min(old.expires_s.value_or(kExpiresMax_s), now_s + grace_s);
    }
    return old;
}

Outcome rotate(const Context& context, const RotateOptions& options) {
    const std::optional<int64_t> grace_s = parse_duration_s(options.grace);
    if (!grace_s) {
        return failed(Exit::kUsage, "--grace: want a duration as 7d, 24h, 30m, 15s or 0");
    }
    if (Outcome guarded = guard_plaintext(); !guarded) {
        return guarded;
    }
    NewKey key;
    // Worth a word: the expiry may be nothing but the grace of an earlier rotation.
    std::string expiry_note;
    const KeyEdit edit = [&](KeySet& set) -> tl::expected<std::vector<Change>, Failure> {
        const int64_t now = now_s();
        const auto old = find_key(context, set, options.id);
        if (!old) {
            return tl::unexpected(old.error());
        }
        if (Outcome rotatable = check_rotatable(*old, now); !rotatable) {
            return tl::unexpected(rotatable.error());
        }
        // State, owner, name, metadata and expiry are handed on; a disabled key's successor is disabled.
        KeyRow successor = *old;
        successor.foreign = false;
        successor.created_s = now;
        if (Outcome drawn = key.draw(old->environment, successor); !drawn) {
            return tl::unexpected(drawn.error());
        }
        // The new key first: the daemon makes changes in this order.
        std::vector<Change> changes = {{Change::Kind::kUpsert, successor},
                                       {Change::Kind::kUpsert, ending(*old, *grace_s, now)}};
        for (const Change& change : changes) {
            if (const Result<void> changed = set.upsert(change.row); !changed) {
                return failed(Exit::kUnreachable, changed.error());
            }
        }
        // Printed, whole, before anything of the old key ends.
        if (Outcome printed = key.print(context.output(), successor.id); !printed) {
            return tl::unexpected(printed.error());
        }
        if (successor.expires_s) {
            expiry_note = successor.id + ": expires " + format_rfc3339(*successor.expires_s) + ", as " +
                          old->id + " did";
        }
        return changes;
    };
    Outcome changed = change_keys(context, edit);
    if (changed && !expiry_note.empty()) {
        say(expiry_note);
    }
    return changed;
}

}  // namespace

Verb add_rotate(CommandLine& line) {
    auto options = std::make_shared<RotateOptions>();
    Command command = line.add_verb("rotate", "print a successor of a key, and end the key");
    command.add_id(options->id);
    command.add_option("--grace", options->grace,
                       "how long the old key is still accepted: 7d, 24h, 30m; 0: not at all");
    command.set_example("apikeyctl rotate 2RkT9pQwX4Za --grace 24h > key.txt");
    return {command, [options](const Context& context) { return rotate(context, *options); }};
}

Verb add_regenerate(CommandLine& line) {
    auto options = std::make_shared<RotateOptions>();
    Command command = line.add_verb("regenerate", "rotate a key without a grace");
    command.add_id(options->id);
    command.set_example("apikeyctl regenerate 2RkT9pQwX4Za > key.txt");
    return {command, [options](const Context& context) { return rotate(context, *options); }};
}

}  // namespace apikeyd
