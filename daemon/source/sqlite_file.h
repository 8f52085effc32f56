// The key set as an SQLite database (sqlite_schema.h), for the daemon and for who changes it. Any program may
// change it beside them, in transactions of its own.

#pragma once

#include <memory>
#include <string>

#include "source/source.h"
#include "source/store.h"

namespace apikeyd {

/// Opens nothing before it is asked for something. When the file under its name was replaced (a backup put
/// back), the next call opens what stands there then.
///
/// A row that breaks a rule is left out, as if it were not there, and told as a warning: `key store <path>:
/// <table>, id <id>: <column>: <what>`. The key of such a row is not accepted.
class SqliteFile final : public Source, public Store {
  public:
    explicit SqliteFile(std::string path);
    ~SqliteFile() override;

    [[nodiscard]] const std::string& place() const override { return path_; }

    /// In one transaction, which keeps SQLite from shortening its log meanwhile. Holds what stands beside the
    /// keys, and one row.
    Result<std::optional<SourceContent>> load(const std::optional<Fingerprint>& unless,
                                              const RowSink& sink) override;
    [[nodiscard]] bool tells_changes() const override { return true; }
    /// nullopt where `since` is of another database, of one that was since replaced by an older copy, or
    /// older than the last 100 000 rows that changed.
    Result<std::optional<SourceChanges>> changes_since(const Fingerprint& since) override;

    /// Under a lock beside the file (file_lock.h), which other programs need not know: they wait for the
    /// transaction, or are waited for.
    Result<Rewrite> change(const Edit& edit, const ChangeOptions& options) override;
    Result<std::optional<KeyRow>> find(std::string_view id) override;

  private:
    struct Impl;

    std::string path_;
    std::unique_ptr<Impl> impl_;
};

}  // namespace apikeyd
