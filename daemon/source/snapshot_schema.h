// The snapshot's tables: those of a key store (sqlite_schema.h), without what keeps others from breaking a
// rule or tells of their changes. Nobody but the daemon writes it.

#pragma once

#include <cstdint>
#include <iterator>

#include "sqlite/database.h"

namespace apikeyd {

/// PRAGMA application_id: "apkn". Not a key store's, so that neither is taken for the other.
inline constexpr int64_t kSnapshotApplicationId = 0x61706B6E;

/// snapshot: of which source, under which fingerprint of it, and when that was last known to be what the
/// source says, in Unix seconds. The row is there once the keys are.
inline constexpr char kSnapshotVersion1Sql[] = R"sql(
CREATE TABLE snapshot(
  one INTEGER PRIMARY KEY CHECK(one = 1),
  source TEXT NOT NULL,
  fingerprint BLOB NOT NULL CHECK(length(fingerprint) = 32),
  taken INTEGER NOT NULL
) STRICT;
CREATE TABLE scopes(name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE plans(name TEXT NOT NULL UNIQUE, limits TEXT) STRICT;
CREATE TABLE owners(name TEXT NOT NULL UNIQUE, plan TEXT) STRICT;
CREATE TABLE keys(
  id TEXT NOT NULL,
  sha256 BLOB NOT NULL,
  state TEXT NOT NULL,
  expires INTEGER,
  plan TEXT,
  limits TEXT,
  addresses TEXT,
  environment TEXT NOT NULL,
  owner TEXT NOT NULL,
  name TEXT NOT NULL,
  created INTEGER,
  "foreign" INTEGER NOT NULL,
  scopes TEXT,
  metadata TEXT
) STRICT;
CREATE UNIQUE INDEX keys_by_id ON keys(id);
CREATE UNIQUE INDEX keys_by_sha256 ON keys(sha256);
PRAGMA application_id = 1634757486;
PRAGMA user_version = 1;
)sql";
static_assert(kSnapshotApplicationId == 1634757486, "the SQL above says the same");

/// Of an empty one that is about to be filled: sorting at the end is faster than finding a place for each
/// row.
inline constexpr char kSnapshotDropIndexesSql[] = "DROP INDEX keys_by_id; DROP INDEX keys_by_sha256";
inline constexpr char kSnapshotMakeIndexesSql[] =
    "CREATE UNIQUE INDEX keys_by_id ON keys(id); CREATE UNIQUE INDEX keys_by_sha256 ON keys(sha256)";

inline constexpr const char* kSnapshotVersionsSql[] = {kSnapshotVersion1Sql};
static_assert(std::size(kSnapshotVersionsSql) == 1, "the SQL above says the same");

inline constexpr DatabaseKind kSnapshot = {
    .noun = "snapshot",
    .application_id = kSnapshotApplicationId,
    .versions = kSnapshotVersionsSql,
    .mode = 0600,
    .made_by = "a load of the source makes it",
    .filled_by = "a load of the source fills it",
};

}  // namespace apikeyd
