// rotate, regenerate: a successor for a key, and an end for the key.

#include <memory>
#include <optional>

#include "source/rfc3339.h"
#include "tools/duration.h"
#include "tools/operations/key_operations.h"
#include "tools/verbs/registry.h"

namespace apikeyd {

namespace {

struct RotateOptions {
    std::string id;
    std::string grace = "0";
};

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
    const ShowKey print_key = [&](const NewKey& drawn, const KeyRow& successor) {
        if (successor.expires_s) {
            expiry_note = successor.id + ": expires " + format_rfc3339(*successor.expires_s) + ", as " +
                          options.id + " did";
        }
        return drawn.print(context.output(), successor.id);
    };
    Outcome changed = rotate_key(context, {options.id, *grace_s}, key, print_key);
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
