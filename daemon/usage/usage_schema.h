// The usage store's tables, as SQLite holds them. The one place that knows column names besides the
// statements.

#pragma once

#include <cstdint>
#include <iterator>

#include "sqlite/database.h"

namespace apikeyd {

/// PRAGMA application_id: "apku". Tells our file from any other SQLite database.
inline constexpr int64_t kUsageApplicationId = 0x61706B75;

/// totals, codes: what has been counted, for ever; of keys without what stands in `recent`.
/// baselines, code_baselines: how much of a generation's sums the totals already contain. Rows vanish with
/// their generation (forget()); `uid` is the random identity of a generation's files, `digest` the key's.
/// closed: generations whose last sums are in. Stays, so that a file that outlived its closing is never
/// counted again. `generation` 0: forgotten without having been closed (its files were gone). quarantined:
/// cells whose sums could not be believed, as first seen. Evidence only, nothing reads it back. A total per
/// code has no digest; it stands there under 15 zero bytes and the code. key_id is TEXT and may hold any
/// byte; BINARY collation compares all of them.
inline constexpr char kUsageVersion1Sql[] = R"sql(
CREATE TABLE totals(
  key_id TEXT NOT NULL PRIMARY KEY,
  allowed INTEGER NOT NULL,
  denied INTEGER NOT NULL,
  last_used_s INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE codes(
  code INTEGER NOT NULL PRIMARY KEY,
  total INTEGER NOT NULL
) STRICT;
CREATE TABLE baselines(
  uid BLOB NOT NULL CHECK(length(uid) = 16),
  digest BLOB NOT NULL CHECK(length(digest) = 16),
  allowed INTEGER NOT NULL,
  denied INTEGER NOT NULL,
  PRIMARY KEY(uid, digest)
) STRICT, WITHOUT ROWID;
CREATE TABLE code_baselines(
  uid BLOB NOT NULL CHECK(length(uid) = 16),
  code INTEGER NOT NULL,
  total INTEGER NOT NULL,
  PRIMARY KEY(uid, code)
) STRICT, WITHOUT ROWID;
CREATE TABLE closed(
  uid BLOB NOT NULL PRIMARY KEY CHECK(length(uid) = 16),
  generation INTEGER NOT NULL,
  closed_at_s INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE quarantined(
  uid BLOB NOT NULL CHECK(length(uid) = 16),
  digest BLOB NOT NULL CHECK(length(digest) = 16),
  allowed INTEGER NOT NULL,
  denied INTEGER NOT NULL,
  seen_s INTEGER NOT NULL,
  PRIMARY KEY(uid, digest)
) STRICT, WITHOUT ROWID;
PRAGMA application_id = 1634757493;
PRAGMA user_version = 1;
)sql";
static_assert(kUsageApplicationId == 1634757493, "the SQL above says the same");

/// quotas: what was taken of a quota in the last period in which anything was, by a key (a holder of 16
/// bytes, its digest) or by all keys of an owner (a holder of text, the owner's name). Whose it is goes by
/// the names of plan and limit and by the kind of period (LimitKind), as the tag of a meter word does; the
/// period is its full number (shm/quota_period.h).
inline constexpr char kUsageVersion2Sql[] = R"sql(
CREATE TABLE quotas(
  holder ANY NOT NULL CHECK(typeof(holder) = 'text' OR length(holder) = 16),
  plan TEXT NOT NULL,
  limit_name TEXT NOT NULL,
  kind INTEGER NOT NULL,
  period INTEGER NOT NULL,
  used INTEGER NOT NULL,
  PRIMARY KEY(holder, plan, limit_name, kind)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 2;
)sql";

/// key_rollups, code_rollups: the same as totals and codes, of the minute, hour or day (step_s of seconds)
/// from start_s on, by the clock at the flush; of keys without what stands in `recent`.
inline constexpr char kUsageVersion3Sql[] = R"sql(
CREATE TABLE key_rollups(
  step_s INTEGER NOT NULL,
  start_s INTEGER NOT NULL,
  key_id TEXT NOT NULL,
  allowed INTEGER NOT NULL,
  denied INTEGER NOT NULL,
  PRIMARY KEY(step_s, start_s, key_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE code_rollups(
  step_s INTEGER NOT NULL,
  start_s INTEGER NOT NULL,
  code INTEGER NOT NULL,
  total INTEGER NOT NULL,
  PRIMARY KEY(step_s, start_s, code)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 3;
)sql";

inline constexpr int64_t kUsageRollupsVersion = 3;

/// recent: keys' counts of the minute from start_s on that are in no other table yet. A flush writes these
/// rows alone, which are as many as keys are in use, and close together; a later flush moves them into
/// totals, baselines and key_rollups, of which the first two have a row for every key that was ever used. A
/// count stands either here or there, so whoever reads one of those adds what is here, and needs to know
/// nothing of the moves.
inline constexpr char kUsageVersion4Sql[] = R"sql(
CREATE TABLE recent(
  uid BLOB NOT NULL CHECK(length(uid) = 16),
  digest BLOB NOT NULL CHECK(length(digest) = 16),
  start_s INTEGER NOT NULL,
  key_id TEXT NOT NULL,
  allowed INTEGER NOT NULL,
  denied INTEGER NOT NULL,
  last_used_s INTEGER NOT NULL,
  PRIMARY KEY(uid, digest, start_s, key_id)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 4;
)sql";

inline constexpr int64_t kUsageRecentVersion = 4;

/// sending: how far the database of a fleet knows the hours of key_rollups and code_rollups. `uid` is the
/// random identity under which it knows this store; `batch`: the number of the last batch that is
/// known to be there. Keys' hours
/// behind (resend_s, resend_key) are to be sent whether they changed or not, at first all; NULL: none are.
/// Hours of codes from codes_from_s on are to be sent, the first of them perhaps anew. unsent: keys' hours
/// that changed since they were sent. `mark` rises in the daemon's memory with each batch that is made: what
/// changed since a batch was made has a higher one.
inline constexpr char kUsageVersion5Sql[] = R"sql(
CREATE TABLE sending(
  one INTEGER NOT NULL PRIMARY KEY CHECK(one = 1),
  uid BLOB NOT NULL CHECK(length(uid) = 16),
  batch INTEGER NOT NULL,
  resend_s INTEGER,
  resend_key TEXT NOT NULL,
  codes_from_s INTEGER NOT NULL
) STRICT;
INSERT INTO sending VALUES(1, randomblob(16), 0, 0, '', 0);
CREATE TABLE unsent(
  start_s INTEGER NOT NULL,
  key_id TEXT NOT NULL,
  mark INTEGER NOT NULL,
  PRIMARY KEY(start_s, key_id)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 5;
)sql";

/// What makes a store of each version of one of the version before; of an empty file for the first.
inline constexpr const char* kUsageVersionsSql[] = {kUsageVersion1Sql, kUsageVersion2Sql, kUsageVersion3Sql,
                                                    kUsageVersion4Sql, kUsageVersion5Sql};
static_assert(std::size(kUsageVersionsSql) == 5, "the SQL above says the same");

inline constexpr DatabaseKind kUsageStore = {
    .noun = "usage store",
    .application_id = kUsageApplicationId,
    .versions = kUsageVersionsSql,
    .mode = 0640,
    .made_by = "apikeyd creates it when it starts",
    .filled_by = "apikeyd fills it when it starts",
};

}  // namespace apikeyd
