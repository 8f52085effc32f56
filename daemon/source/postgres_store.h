// The key set in PostgreSQL (postgres_schema.sql), for the daemons of a fleet and for who changes it. Any
// program may change it beside them, in transactions of its own.

#pragma once

#include <memory>
#include <optional>
#include <string>

#include "source/serving_host.h"
#include "source/source.h"
#include "source/store.h"

namespace apikeyd {

/// Connects when it is asked for something, and again when the connection is lost; after a failure only when
/// some time has passed, which grows to ten seconds and has chance in it: a fleet does not come back at one
/// moment. Until then the failure is told again.
///
/// Rows that break a rule are left out and told, as SqliteFile has it.
class PostgresStore final : public Source, public Store {
  public:
    /// `place`: see postgres/place.h. `host`: who serves what is read, for the fleet to know.
    explicit PostgresStore(std::string place, std::optional<ServingHost> host = std::nullopt);
    ~PostgresStore() override;

    [[nodiscard]] const std::string& place() const override { return shown_; }

    /// In one transaction. Holds what stands beside the keys, and one row.
    Result<std::optional<SourceContent>> load(const std::optional<Fingerprint>& unless,
                                              const RowSink& sink) override;
    [[nodiscard]] bool tells_changes() const override { return true; }
    /// A fingerprint names what this object read, and no other knows it: after a restart of the daemon all is
    /// read. So it is after a restart of the server, or of a copy put back.
    Result<std::optional<SourceChanges>> changes_since(const Fingerprint& since) override;

    /// Tells the fleet, where the position is another than was told last, or some time has passed.
    Result<void> note_in_force(const Fingerprint& name) override;
    void stop() override;

    /// apikeyctl's changes wait for each other, on whatever host; those of other programs for a row that is
    /// being changed. `then_locked` is called when others may change it again: the daemon reads the store
    /// whatever it is told, so that the order in which it hears of changes does not matter. There is no
    /// making of a store: its tables come from the schema's file.
    Result<Rewrite> change(const Edit& edit, const ChangeOptions& options) override;
    Result<std::optional<KeyRow>> find(std::string_view id) override;

    /// Calls `visit` with the rows behind the id `after` in the order of their ids, until it answers false.
    /// Leaves out rows that break a rule.
    Result<void> visit_keys(std::string_view after, const std::function<bool(const KeyRow& row)>& visit);

  private:
    struct Impl;

    std::string shown_;
    std::unique_ptr<Impl> impl_;
};

}  // namespace apikeyd
