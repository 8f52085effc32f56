#include "core/admin.h"

#include <unistd.h>

#include <utility>

#include "base/clock.h"
#include "core/usage_sender.h"

namespace apikeyd {

namespace {

/// Logged in a second; others are counted. Whoever may connect may be refused as often as they like.
constexpr uint64_t kRefusalsMax = 10;

/// What was asked for, and of the keys the first.
std::pair<std::string_view, std::string_view> described(const AdminRequest& request) {
    if (const auto* apply = std::get_if<ApplyRequest>(&request)) {
        return {"apply", apply->changes.empty() ? std::string_view() : apply->changes.front().row.id};
    }
    return {std::holds_alternative<ReloadRequest>(request) ? "reload" : "flush", {}};
}

}  // namespace

bool Admin::may_operate(const Peer& peer) const {
    return peer.uid == 0 || peer.uid == geteuid() || peer.in_group(operators_group_);
}

void Admin::handle(const Peer& peer, const std::string& line, const Responder& responder) {
    const Result<AdminRequest> request = parse_request(line);
    if (!request) {
        responder.send(format_failure(request.error().message));
        return;
    }
    if (!std::holds_alternative<StatusRequest>(*request) && !may_operate(peer)) {
        refuse(peer, *request, responder);
        return;
    }
    std::visit([&](const auto& one) { answer(peer, responder, one); }, *request);
}

void Admin::refuse(const Peer& peer, const AdminRequest& request, const Responder& responder) {
    const uint64_t now_s = monotonic_now_ns() / 1000000000;
    refusals_ = now_s == refusals_s_ ? refusals_ + 1 : 1;
    refusals_s_ = now_s;
    if (refusals_ > kRefusalsMax) {
        ++refusals_left_out_;
    } else {
        const auto [what, id] = described(request);
        const uint64_t left_out = std::exchange(refusals_left_out_, 0);
        log_.warn("admin.refused", {{"uid", peer.uid}, {"pid", peer.pid}, {"left_out", left_out}});
        audit_.refused(peer, what, id, left_out);
    }
    responder.send(
        format_failure("not permitted: this needs root, the daemon's user or the operators' group"));
}

DaemonStatus Admin::status() const {
    DaemonStatus status = fixed_;
    const apikey::shm::Control& control = publisher_.control().control();
    if (const GenerationPtr& current = publisher_.current(); current != nullptr) {
        const apikey::shm::TableHeader& header = current->table().header();
        status.generation = current->number();
        status.keys = header.live.load(std::memory_order_relaxed);
        status.dead = header.dead.load(std::memory_order_relaxed);
        status.slots = current->table().view().slot_count();
        status.bytes = current->file_bytes();
        status.huge_bytes = current->huge_bytes();
    }
    status.building = publisher_.building();
    for (const GenerationPtr& generation : publisher_.superseded()) {
        status.superseded.push_back({generation->number(), generation->file_bytes()});
    }
    status.unread = publisher_.unread().size();
    status.position = control.applied_position.load(std::memory_order_relaxed);
    status.fingerprint = reloader_.fingerprint() ? to_hex(*reloader_.fingerprint()) : "";
    status.loaded_s = control.source_loaded_ns.load(std::memory_order_relaxed) / 1000000000;
    status.load_error = reloader_.last_error();
    if (const auto& use = reloader_.snapshot_use()) {
        status.snapshot_taken_s = static_cast<uint64_t>(use->taken_s);
    }
    status.snapshot_problem = reloader_.snapshot_problem();
    status.flushed_s = control.usage_flushed_ns.load(std::memory_order_relaxed) / 1000000000;
    status.flush_error = flusher_.last_error();
    status.usage_send_error = usage_sender_ != nullptr ? usage_sender_->last_error() : "";
    status.quarantined = flusher_.quarantined();
    status.log_dropped = log_.dropped_lines();
    status.audit_problem = audit_.problem();
    status.denials_problem = denials_.problem();
    return status;
}

void Admin::answer(const Peer&, const Responder& responder, const StatusRequest&) {
    responder.send(format_status(status()));
}

void Admin::answer(const Peer& peer, const Responder& responder, const ReloadRequest& request) {
    const bool force = request.force;
    reloader_.request(force, [this, peer, force, responder](const Result<ReloadReport>& report) {
        audit_.reloaded(peer, force, report);
        if (!report) {
            responder.send(format_failure(report.error().message));
            return;
        }
        responder.send(format_reload_answer(
            {report->unchanged, report->keys, report->added, report->updated, report->removed}));
    });
}

void Admin::answer(const Peer&, const Responder& responder, const FlushRequest&) {
    flusher_.flush([responder](const Result<FlushSummary>& summary) {
        responder.send(summary ? format_done() : format_failure(summary.error().message));
    });
}

void Admin::note_change(const Change& change, const Result<void>& result) {
    const bool removed = change.kind == Change::Kind::kRemove;
    if (result) {
        log_.info("key.changed", {{"id", change.row.id}, {"removed", removed}});
    } else {
        log_.warn("key.not_changed",
                  {{"id", change.row.id}, {"removed", removed}, {"reason", result.error().message}});
    }
}

void Admin::note_change(const PolicyChange& change, const Result<void>& result) {
    static constexpr const char* kKinds[] = {"plan", "owner", "scope"};
    const auto name = [](const auto& row) -> std::string {
        if constexpr (std::is_same_v<std::decay_t<decltype(row)>, std::string>) {
            return row;
        } else {
            return row.name;
        }
    };
    const std::string kind = kKinds[change.row.index()];
    const bool removed = change.kind == Change::Kind::kRemove;
    if (result) {
        log_.info(kind + ".changed", {{"name", std::visit(name, change.row)}, {"removed", removed}});
    } else {
        log_.warn(kind + ".not_changed", {{"name", std::visit(name, change.row)},
                                          {"removed", removed},
                                          {"reason", result.error().message}});
    }
}

std::vector<AuditEntry> Admin::audited(const ApplyRequest& request) const {
    if (!audit_.on()) {
        return {};
    }
    if (!request.policies.empty()) {
        return entries_of(request.policies, publisher_.policies());
    }
    const GenerationPtr& live = publisher_.next() != nullptr ? publisher_.next() : publisher_.current();
    return entries_of(request.changes, live != nullptr ? &live->table().view() : nullptr);
}

void Admin::answer(const Peer& peer, const Responder& responder, const ApplyRequest& request) {
    const auto answer_all = [this, &peer, responder, learned_ns = monotonic_now_ns(),
                             entries = audited(request), behalf = request.on_behalf_of](const auto& changes) {
        return [this, peer, responder, learned_ns, changes, entries, behalf](const Result<void>& result) {
            for (const auto& change : changes) {
                note_change(change, result);
            }
            for (const AuditEntry& entry : entries) {
                audit_.changed(&peer, entry, result, behalf);
            }
            responder.send(result ? format_applied(learned_ns) : format_failure(result.error().message));
        };
    };
    if (request.policies.empty()) {
        reloader_.apply(request.changes, request.before, request.after, answer_all(request.changes));
    } else {
        reloader_.apply_policies(request.policies, request.before, request.after,
                                 answer_all(request.policies));
    }
}

}  // namespace apikeyd
