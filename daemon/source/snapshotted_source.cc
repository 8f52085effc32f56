#include "base/clock.h"
#include "source/snapshot.h"

namespace apikeyd {

namespace {

/// So long after a failure the source is not read again for the snapshot alone.
constexpr int64_t kRefillPause_ms = 600'000;

}  // namespace

/// True when what the snapshot lacks is staged, or it lacks nothing: no row need be written anew.
bool SnapshottedSource::catch_up() {
    const std::optional<Fingerprint> at =
        source_->tells_changes() ? snapshot_->stands_at() : std::optional<Fingerprint>();
    if (!at) {
        return false;
    }
    const auto found = source_->changes_since(*at);
    if (!found || !*found) {
        return false;
    }
    if ((*found)->fingerprint != *at) {
        snapshot_->stage_changes(*at, **found);
    }
    return true;
}

/// Reads the source for the snapshot alone, which lacks what nobody tells of any more.
void SnapshottedSource::refill() {
    const auto now_ms = static_cast<int64_t>(monotonic_now_ns() / 1'000'000);
    if (!snapshot_->problem().empty() && refilled_ms_ != 0 && now_ms - refilled_ms_ < kRefillPause_ms) {
        return;
    }
    refilled_ms_ = now_ms;
    snapshot_->begin_all();
    const auto content = source_->load(std::nullopt, [this](const KeyRow& row) { snapshot_->add(row); });
    if (content && *content) {
        snapshot_->stage_all(**content);
    }
}

Result<std::optional<SourceContent>> SnapshottedSource::load(const std::optional<Fingerprint>& unless,
                                                             const RowSink& sink) {
    snapshot_->begin_read();
    const bool caught_up = catch_up();
    if (!caught_up) {
        snapshot_->begin_all();
    }
    auto content = source_->load(unless, [&](const KeyRow& row) {
        if (!caught_up) {
            snapshot_->add(row);
        }
        sink(row);
    });
    if (content && *content && !caught_up) {
        snapshot_->stage_all(**content);
    }
    if (content && !*content && !caught_up && snapshot_->stands_at() != unless) {
        refill();
    }
    return content;
}

Result<std::optional<SourceChanges>> SnapshottedSource::changes_since(const Fingerprint& since) {
    snapshot_->begin_read();
    auto found = source_->changes_since(since);
    if (!found || !*found) {
        return found;
    }
    const std::optional<Fingerprint> at = snapshot_->stands_at();
    if (at == (*found)->fingerprint) {
        return found;
    }
    if (at == since) {
        snapshot_->stage_changes(since, **found);
    } else if (!catch_up() && (*found)->fingerprint == since) {
        refill();  // when nothing waits to be in force
    }
    return found;
}

}  // namespace apikeyd
