// What the source said last, on disk: for a start at which the source cannot be read and no table is left in
// memory.
//
// An SQLite database (snapshot_schema.h). Of a source that is read whole a new one is made beside it, and
// takes its name in one step; what changed is one transaction. So it is whole at any moment, whoever is
// killed and whenever power goes.
//
// What is read is staged, and written once it is in force: a load can still be refused. Where that did not
// come about, the snapshot stays what it was, under the fingerprint that it has, and goes on from there with
// the next read.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "source/source.h"

namespace apikeyd {

struct SnapshotOptions {
    std::string path;
    std::string source;     ///< its name; one of another source is not used
    int64_t max_age_s = 0;  ///< one that is older is not used
};

struct SnapshotContent {
    SourceContent content;
    int64_t taken_s = 0;  ///< when the source was last known to say so
};

/// Keys that were changed in force without a read of the source, in which they were changed before.
struct MadeChanges {
    Fingerprint before{};           ///< the source's
    Fingerprint after{};            ///< too
    std::vector<KeyRow> rows = {};  ///< as they are now
    std::vector<KeyRow> gone = {};  ///< of these only the digest counts
};

/// A failure to write is kept for problem(), and told to nobody else: the daemon serves on.
class Snapshot {
  public:
    /// Opens nothing.
    explicit Snapshot(SnapshotOptions options);
    ~Snapshot();

    [[nodiscard]] const std::string& path() const;

    /// As Source::load(). An error tells why it is not used: there is none, it is damaged, of another source,
    /// too old; asked again, it is the same until another one was made.
    Result<SnapshotContent> load(const RowSink& sink);

    // For who reads the source, on one thread.

    /// A read begins; what was staged before is forgotten.
    void begin_read();
    /// What it holds; nullopt while there is none that can be gone on with.
    std::optional<Fingerprint> stands_at();
    /// All rows follow.
    void begin_all();
    void add(const KeyRow& row);
    /// Those were all; with what the source said of them.
    void stage_all(const SourceContent& content);
    /// What came after `since`.
    void stage_changes(const Fingerprint& since, const SourceChanges& changes);
    /// What was read under this fingerprint is in force. Writes what is staged, if it is of this one. Blocks
    /// on the disk. Not while a read is under way.
    void in_force(const Fingerprint& name);

    // For any thread.

    /// Durable on return, but for a problem: all of a change that begins where the snapshot stands, else what
    /// was revoked or went. False when that was not all: the rest comes with the next read. Blocks on the
    /// disk.
    bool made(const std::vector<MadeChanges>& changes);
    /// At the end of the daemon: writes when the source was last known to say this.
    void close();
    /// Why the last write failed; empty when it did not.
    [[nodiscard]] std::string problem() const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

/// Keeps `snapshot` equal to what is read of another source. That is read as it would be, and at times once
/// more, for the snapshot alone.
class SnapshottedSource final : public Source {
  public:
    SnapshottedSource(std::shared_ptr<Source> source, std::shared_ptr<Snapshot> snapshot)
        : source_(std::move(source)), snapshot_(std::move(snapshot)) {}

    [[nodiscard]] const std::string& place() const override { return source_->place(); }
    Result<std::optional<SourceContent>> load(const std::optional<Fingerprint>& unless,
                                              const RowSink& sink) override;
    [[nodiscard]] bool tells_changes() const override { return source_->tells_changes(); }
    Result<std::optional<SourceChanges>> changes_since(const Fingerprint& since) override;
    Result<void> note_in_force(const Fingerprint& name) override { return source_->note_in_force(name); }
    void stop() override { source_->stop(); }

  private:
    bool catch_up();
    void refill();

    std::shared_ptr<Source> source_;
    std::shared_ptr<Snapshot> snapshot_;
    int64_t refilled_ms_ = 0;  // monotonic; 0: never
};

/// Why nothing can be written under this name: something else stands there. No file is none of it, nor one of
/// ours that is damaged or of a newer version. Not while this process has it open.
Result<void> check_snapshot_place(const std::string& path);

}  // namespace apikeyd
