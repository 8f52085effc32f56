// reload: have the daemon read its source again, and tell the result.

#include <memory>

#include "tools/verbs/registry.h"

namespace apikeyd {

namespace {

Outcome reload(const Context& context, bool force) {
    if (Outcome usable = context.check_config(); !usable) {
        return usable;
    }
    const auto line = context.ask(ReloadRequest{force}, kReloadWait_ms);
    if (!line) {
        return tl::unexpected(line.error());
    }
    const Result<ReloadAnswer> answer = parse_reload_answer(*line);
    if (!answer) {
        return failed(Exit::kNo, answer.error());
    }
    if (context.output() != OutputForm::table) {
        return print(format_record(context.output(), {{"unchanged", answer->unchanged},
                                                      {"keys", answer->keys},
                                                      {"added", answer->added},
                                                      {"updated", answer->updated},
                                                      {"removed", answer->removed}}));
    }
    if (answer->unchanged) {
        return print("unchanged: the source is what is in force\n");
    }
    return print(std::to_string(answer->keys) + " keys: " + std::to_string(answer->added) + " added, " +
                 std::to_string(answer->updated) + " updated, " + std::to_string(answer->removed) +
                 " removed\n");
}

}  // namespace

Verb add_reload(CommandLine& line) {
    auto force = std::make_shared<bool>(false);
    Command command =
        line.add_verb("reload", "have the daemon read its source again; refused sets leave what is in force");
    command.add_flag(
        "--force", *force,
        "accept also a set that lacks many keys or brings revoked ones back, and read one that looks\n"
        "unchanged");
    command.set_example("apikeyctl reload");
    return {command, [force](const Context& context) { return reload(context, *force); }};
}

}  // namespace apikeyd
