// doctor: what may be wrong with an instance, one check after the other. Reads only.

#include "tools/verbs/doctor.h"

#include <algorithm>

#include "source/rfc3339.h"
#include "source/source.h"
#include "tools/validator.h"
#include "tools/verbs/registry.h"
#include "usage/usage_reader.h"

namespace apikeyd {

namespace {

constexpr uint64_t kHeartbeatAgeMax_ms = 10'000;  // what clients take for stale
constexpr int64_t kFlushAgeMin_s = 10;
constexpr int64_t kFlushIntervalsMissed = 5;

void check_config_file(const Context& context, Findings& findings) {
    if (context.config()) {
        findings.ok("config", context.config_path() + ": parses");
    } else if (Outcome named = context.check_config(); !named) {
        findings.fail("config", context.config_error(), "apikeyd --check tells all that is wrong with it");
    } else {
        findings.warn("config", context.config_error(),
                      "name it with --config; without it only shared memory can be looked at");
    }
}

/// What a server on this host would find. `status`: nullptr while the daemon is down.
void check_client(const apikey_status_info& info, const DaemonStatus* status, Findings& findings) {
    if (info.attached != APIKEY_OK) {
        findings.fail("attach", info.text, "start apikeyd, or run this as a member of the clients' group");
        return;
    }
    findings.ok("attach", "control and generation " + std::to_string(info.generation) + " are mapped, " +
                              std::to_string(info.keys) + " keys");
    const std::string age = "last sign of life " + std::to_string(info.heartbeat_age_ms) + " ms ago";
    if (info.heartbeat_age_ms <= kHeartbeatAgeMax_ms) {
        findings.ok("heartbeat", age);
    } else if (status != nullptr && status->snapshot_taken_s != 0) {
        findings.warn("heartbeat", age + ", as old as the snapshot that is served",
                      "servers flag what they answer as stale, or refuse it where they are told to");
    } else {
        findings.fail("heartbeat", age,
                      status != nullptr
                          ? "the daemon answers but its loop is slow; look at the machine's load"
                          : "start apikeyd; servers go on with the last table meanwhile");
    }
    if ((info.flags & APIKEY_FLAG_NOT_COUNTED) == 0) {
        findings.ok("cells", "counters can be written");
    } else {
        findings.warn("cells", "this user cannot write the counters: what it validates is not counted",
                      "run servers as members of the clients' group, and see that cells.* have mode 0660");
    }
}

void check_kernel(const apikey_status_info& info, Findings& findings) {
    if (std::string_view(info.kernel) == "portable") {
        findings.warn("sha256", "the portable kernel",
                      "a processor with SHA instructions validates several times faster");
    } else {
        findings.ok("sha256", std::string("kernel ") + info.kernel);
    }
}

void check_daemon(const tl::expected<DaemonStatus, Failure>& status, Findings& findings) {
    if (!status) {
        findings.fail("daemon", status.error().message,
                      "start apikeyd; changes are recorded, but not in force");
        return;
    }
    findings.ok("daemon", "process " + std::to_string(status->pid) + ", version " + status->version + ", " +
                              status->event_loop);
    if (!status->load_error.empty()) {
        findings.fail("last load", status->load_error, "mend the source; what was in force stays in force");
    } else {
        findings.ok("last load", "accepted");
    }
    if (status->snapshot_taken_s != 0) {
        findings.warn("snapshot",
                      "serves what the source said at " +
                          format_rfc3339(static_cast<int64_t>(status->snapshot_taken_s)),
                      "what was changed since is not in force until the source can be read; see 'last load'");
    } else if (!status->snapshot.empty() && status->snapshot_problem.empty()) {
        findings.ok("snapshot", status->snapshot + ": kept");
    }
    if (!status->snapshot_problem.empty()) {
        findings.warn("snapshot", status->snapshot_problem,
                      "a start without the source finds an older one, or none, until this is mended");
    }
    if (!status->watch_problem.empty()) {
        findings.warn("watch", status->watch_problem, "changes by editors are found by polling only");
    }
    if (!status->audit_problem.empty()) {
        findings.warn("audit log", status->audit_problem,
                      "what operators do is not recorded until it can be written");
    }
    if (!status->denials_problem.empty()) {
        findings.warn("denial log", status->denials_problem,
                      "who is denied is counted, but not told until it can be written");
    }
    if (status->unread != 0) {
        findings.fail("generations",
                      std::to_string(status->unread) + " of another version, which no change reaches",
                      "restart the servers that were started before the daemon's upgrade");
    }
    if (!status->superseded.empty()) {
        findings.ok("superseded", std::to_string(status->superseded.size()) +
                                      " older generations wait for the servers that still use them");
    }
}

void check_source(const Context& context, const apikey_status_info& info, Findings& findings) {
    const auto store = context.store();
    if (!store) {
        findings.warn("source", "not known without a configuration", "name it with --store");
        return;
    }
    const auto content = make_source(*store)->load(std::nullopt, [](const KeyRow&) {});
    if (!content) {
        findings.fail("source", content.error().message,
                      "mend it, or let the daemon's user and this one read it; what was in force stays so");
        return;
    }
    findings.ok("source", store->shown() + ": can be read, " + std::to_string((*content)->keys) + " keys");
    for (const std::string& warning : (*content)->warnings) {
        findings.warn("source", warning, "mend it in the source, unless it is meant");
    }
    if (info.generation == 0) {
        return;
    }
    if (info.fingerprint == fingerprint_word((*content)->fingerprint)) {
        findings.ok("in force", "the source's content is what the table was made of");
    } else {
        findings.warn("in force", "the table was made of another content of the source",
                      "apikeyctl reload; if it refuses, it says why");
    }
}

void check_usage_store(const Context& context, const tl::expected<DaemonStatus, Failure>& status,
                       Findings& findings) {
    const auto path = context.usage_path();
    if (!path) {
        findings.warn("usage", "not known without a configuration", "name one with --config");
        return;
    }
    if (const auto reader = UsageReader::open(*path); !reader) {
        findings.fail("usage", reader.error().message, "this user must be able to read the usage store");
        return;
    }
    findings.ok("usage", *path + ": readable");
    if (!status) {
        findings.warn("flush", "the daemon is down; what was counted since waits in shared memory",
                      "start apikeyd before the machine is shut down");
        return;
    }
    if (!status->usage_send_error.empty()) {
        findings.warn("fleet usage", status->usage_send_error,
                      "counts are in this host's usage store, and are sent when this is mended");
    }
    if (!status->flush_error.empty()) {
        findings.fail("flush", status->flush_error, "counts wait in shared memory until this is mended");
        return;
    }
    // A daemon that has just started owes none yet.
    const int64_t age_s = now_s() - static_cast<int64_t>(std::max(status->flushed_s, status->started_s));
    const int64_t age_max_s =
        std::max(kFlushAgeMin_s, kFlushIntervalsMissed * context.config()->flush_interval_ms / 1000);
    const std::string age =
        std::to_string(std::max<int64_t>(age_s, 0)) + " s since the last flush or the start";
    if (age_s <= age_max_s) {
        findings.ok("flush", age);
    } else {
        findings.warn("flush", age, "look for usage.flush_failed in the daemon's log");
    }
    if (status->quarantined != 0) {
        findings.warn("quarantine",
                      std::to_string(status->quarantined) + " counters hold what cannot be counts",
                      "a server writes where it should not; they are left out of the totals");
    }
}

std::string painted(std::string_view level, bool colour) {
    std::string text(level);
    if (!colour) {
        return text;
    }
    const char* code = level == "ok" ? "32" : level == "warn" ? "33" : "31";
    return std::string("\033[") + code + 'm' + text + "\033[0m";
}

/// Level, check and what was found; what to do stands under it.
std::string as_text(const Findings& findings) {
    const bool colour = colour_wanted();
    std::string text;
    for (const Finding& one : findings.all()) {
        text += painted(one.level, colour) + std::string(6 - one.level.size(), ' ') + std::string(one.check) +
                std::string(one.check.size() < 12 ? 12 - one.check.size() : 1, ' ') + one.detail + '\n';
        if (!one.advice.empty()) {
            text += std::string(18, ' ') + "-> " + one.advice + '\n';
        }
    }
    return text;
}

Outcome show(const Context& context, const Findings& findings) {
    if (context.output() == OutputForm::table) {
        return print(as_text(findings));
    }
    std::vector<Record> records;
    for (const Finding& one : findings.all()) {
        records.push_back({{"check", std::string(one.check)},
                           {"level", std::string(one.level)},
                           {"detail", one.detail},
                           {"advice", text_or_none(one.advice)}});
    }
    return print(format_list(context.output(), {"check", "level", "detail", "advice"}, records));
}

Outcome doctor(const Context& context) {
    Findings findings;
    check_config_file(context, findings);
    check_directory(context, findings);
    const auto status = context.ask_status();
    check_daemon(status, findings);
    const Validator validator = open_validator(context);
    apikey_status_info info{};
    if (validator == nullptr) {
        findings.fail("attach", context.instance_directory() + ": cannot be opened as an instance",
                      "want an instance without a slash, and a shorter path");
    } else {
        info = validator_status(validator);
        check_client(info, status ? &*status : nullptr, findings);
        check_kernel(info, findings);
    }
    check_space(context, info.generation, findings);
    check_source(context, info, findings);
    check_usage_store(context, status, findings);
    if (Outcome shown = show(context, findings); !shown) {
        return shown;
    }
    if (!status) {
        return failed(Exit::kUnreachable, "");
    }
    return findings.failed() ? failed(Exit::kNo, "") : Outcome();
}

}  // namespace

Verb add_doctor(CommandLine& line) {
    Command command =
        line.add_verb("doctor", "look for what is wrong with an instance, also while the daemon is down");
    command.set_example("apikeyctl doctor --config /etc/apikeyd/apikeyd.yaml");
    return {command, doctor};
}

}  // namespace apikeyd
