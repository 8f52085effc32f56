// status: what the daemon says of itself; with the daemon down, what its shared memory says.

#include "source/rfc3339.h"
#include "tools/validator.h"
#include "tools/verbs/registry.h"

namespace apikeyd {

namespace {

Value seconds(uint64_t unix_s) {
    return unix_s != 0 ? Value(Time{static_cast<int64_t>(unix_s)}) : Value();
}

/// What is served where, and why; nothing where no snapshot is kept.
Value snapshot_of(const DaemonStatus& status) {
    if (status.snapshot.empty()) {
        return {};
    }
    const bool in_use = status.snapshot_taken_s != 0;
    const std::string taken = in_use ? format_rfc3339(static_cast<int64_t>(status.snapshot_taken_s)) : "";
    const std::string text = in_use ? "serving from a snapshot of " + taken + ": " + status.load_error
                             : status.snapshot_problem.empty() ? "kept"
                                                               : "not written: " + status.snapshot_problem;
    return TwoForms{text, json_object({{"in_use", in_use},
                                       {"taken", text_or_none(taken)},
                                       {"problem", text_or_none(status.snapshot_problem)}})};
}

/// The same fields whether the daemon answered or not; `daemon` tells which.
struct Shown {
    std::string daemon;
    DaemonStatus status;
    apikey_status_info table{};
};

Record record_of(const Shown& shown) {
    const DaemonStatus& status = shown.status;
    const bool up = shown.daemon == "up";
    uint64_t superseded_bytes = 0;
    for (const SupersededStatus& one : status.superseded) {
        superseded_bytes += one.bytes;
    }
    const auto when_up = [up](Value value) { return up ? std::move(value) : Value(); };
    return {{"daemon", shown.daemon},
            {"pid", when_up(status.pid)},
            {"version", text_or_none(status.version)},
            {"started", seconds(status.started_s)},
            {"instance", status.instance},
            {"directory", status.directory},
            {"source", text_or_none(status.source)},
            {"usage", text_or_none(status.usage)},
            {"event_loop", text_or_none(status.event_loop)},
            {"attached", std::string(shown.table.text)},
            {"heartbeat_age_ms", shown.table.generation != 0 ? Value(shown.table.heartbeat_age_ms) : Value()},
            {"generation", uint64_t{status.generation}},
            {"keys", status.keys},
            {"slots", when_up(status.slots)},
            {"dead", when_up(status.dead)},
            {"bytes", when_up(status.bytes)},
            {"huge_bytes", when_up(status.huge_bytes)},
            {"superseded", when_up(uint64_t{status.superseded.size()})},
            {"superseded_bytes", when_up(superseded_bytes)},
            {"unread", when_up(status.unread)},
            {"building", when_up(status.building)},
            {"position", status.position},
            {"fingerprint", text_or_none(status.fingerprint)},
            {"loaded", seconds(status.loaded_s)},
            {"load_error", text_or_none(status.load_error)},
            {"snapshot", snapshot_of(status)},
            {"flushed", seconds(status.flushed_s)},
            {"flush_error", text_or_none(status.flush_error)},
            {"usage_send_error", text_or_none(status.usage_send_error)},
            {"quarantined", when_up(status.quarantined)},
            {"watch_problem", text_or_none(status.watch_problem)},
            {"log_dropped", when_up(status.log_dropped)},
            {"audit_problem", text_or_none(status.audit_problem)},
            {"denials_problem", text_or_none(status.denials_problem)}};
}

Outcome status(const Context& context) {
    if (Outcome usable = context.check_config(); !usable) {
        return usable;
    }
    Shown shown;
    const Validator validator = open_validator(context);
    if (validator == nullptr) {
        return failed(Exit::kUnreachable, context.instance_directory() + ": cannot be opened as an instance");
    }
    shown.table = validator_status(validator);
    const auto answer = context.ask_status();
    if (answer) {
        shown.daemon = "up";
        shown.status = *answer;
    } else {
        const Daemon daemon = answer.error().daemon;
        shown.daemon = daemon == Daemon::kForbidden ? "forbidden"
                       : daemon == Daemon::kSilent  ? "silent"
                                                    : "down";
        shown.status.instance = context.instance();
        shown.status.directory = context.instance_directory();
        shown.status.generation = shown.table.generation;
        shown.status.keys = shown.table.keys;
        shown.status.position = shown.table.position;
    }
    if (Outcome printed = print(format_record(context.output(), record_of(shown))); !printed) {
        return printed;
    }
    return answer ? Outcome() : tl::unexpected(answer.error());
}

}  // namespace

Verb add_status(CommandLine& line) {
    Command command = line.add_verb("status", "show the daemon's state and its table, also while it is down");
    command.set_example("apikeyctl status --output json");
    return {command, status};
}

}  // namespace apikeyd
