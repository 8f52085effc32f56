// A source of record as the daemon reads it: all of it as a stream, or what changed since it was last read.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "source/fingerprint.h"
#include "source/key_row.h"
#include "source/serving_host.h"
#include "source/store_name.h"

namespace apikeyd {

/// Whoever keeps a row copies it.
using RowSink = std::function<void(const KeyRow& row)>;

/// What a source says beside its keys, and of itself.
struct SourceContent {
    Fingerprint fingerprint{};
    uint64_t keys = 0;
    PolicySet policies = {};
    /// Not what was read under `unless`, carried on: another copy under the same name, perhaps an older one.
    bool is_other_copy = false;
    uint64_t left_out = 0;  ///< rows that break a rule; the warnings name the first of them
    /// With their places: nothing that keeps the set from use. What a row is left out for is one.
    std::vector<std::string> warnings = {};
};

/// What changed between two fingerprints. A key that changed several times is in it once, as it is now.
struct SourceChanges {
    Fingerprint fingerprint{};  ///< with them
    std::vector<KeyRow> rows = {};
    std::vector<KeyRow> gone = {};  ///< of these only id, digest and foreign count; a digest may be in both
    std::optional<PolicySet> policies = std::nullopt;  ///< as they are now; nullopt: as they were
    std::vector<std::string> warnings = {};            ///< of these rows, as SourceContent has them
};

/// Used by one thread at a time.
class Source {
  public:
    virtual ~Source() = default;

    /// Where it is, to begin an error with.
    [[nodiscard]] virtual const std::string& place() const = 0;

    /// Streams all rows to `sink`, in no particular order, and answers what stands beside them. nullopt, and
    /// nothing streamed, when the content is that of `unless`. Rows handed over before an error are
    /// provisional: apply nothing unless this succeeds. What `sink` throws comes through.
    virtual Result<std::optional<SourceContent>> load(const std::optional<Fingerprint>& unless,
                                                      const RowSink& sink) = 0;

    /// Whether changes_since() is worth asking. Then no content comes back under a fingerprint that was left.
    [[nodiscard]] virtual bool tells_changes() const = 0;

    /// What changed since; nullopt where that cannot be told, and load() can.
    virtual Result<std::optional<SourceChanges>> changes_since(const Fingerprint& since) = 0;

    /// What was read under this fingerprint is in force on this host; told after each reading that was taken,
    /// also when it brought nothing new. The error is for the log: nothing depends on it.
    virtual Result<void> note_in_force(const Fingerprint& /*name*/) { return {}; }

    /// For the daemon's end, on any thread: what waits for others gives up soon, with an error, now and
    /// later.
    virtual void stop() {}
};

/// The one of this name. Opens nothing. `host`: who will serve what it says; where a fleet reads one source,
/// it is told.
std::unique_ptr<Source> make_source(const StoreName& name, std::optional<ServingHost> host = std::nullopt);

}  // namespace apikeyd
