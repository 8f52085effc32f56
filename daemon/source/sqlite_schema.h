// The key store's tables, as SQLite holds them: to be read, and changed, by any program that knows SQLite.
// Columns are named as the fields of a key set file (yaml_source.h).

#pragma once

#include <cstdint>
#include <iterator>

#include "sqlite/database.h"

namespace apikeyd {

/// PRAGMA application_id: "apks".
inline constexpr int64_t kKeyStoreApplicationId = 0x61706B73;

/// store: the random identity of this file and its copies.
/// scopes, plans, owners: in the order of their rowids. limits, scopes and addresses are JSON arrays of
/// strings, in the forms of the command line; NULL for none.
/// keys: expires and created are Unix seconds; NULL: never, not known.
/// environments: the different ones of the keys, by a seek in the index for each.
/// changes: what the tables' triggers saw, oldest first. A row stands for one that came, changed or went:
/// `name` is its id or name; `sha256`, "foreign" and `old` (a plan's limits, an owner's plan) are what it had
/// before, all NULL for one that came. `mark` is random: a backup that was put back and changed again has
/// another history under the same numbers. No constraint may stand on it: under INSERT OR IGNORE a trigger's
/// own row would be ignored.
/// No trigger for what is deleted fires for rows that a REPLACE takes away (recursive_triggers is off for
/// most), so the triggers before each change tell of what it would replace. Told too much does no harm:
/// whoever reads of a change looks at the row as it is.
inline constexpr char kKeyStoreVersion1Sql[] = R"sql(
CREATE TABLE store(
  one INTEGER PRIMARY KEY CHECK(one = 1),
  uid BLOB NOT NULL CHECK(length(uid) = 16)
) STRICT;
INSERT INTO store VALUES(1, randomblob(16));
CREATE TABLE scopes(
  name TEXT NOT NULL UNIQUE CHECK(length(CAST(name AS BLOB)) BETWEEN 1 AND 63 AND name NOT GLOB '*[^a-z0-9_.-]*')
) STRICT;
CREATE TABLE plans(
  name TEXT NOT NULL UNIQUE CHECK(length(CAST(name AS BLOB)) BETWEEN 1 AND 63 AND name NOT GLOB '*[^a-z0-9_.-]*'),
  limits TEXT CHECK(limits IS NULL OR json_valid(limits) AND json_type(limits) = 'array' AND json_array_length(limits) <= 6)
) STRICT;
CREATE TABLE owners(
  name TEXT NOT NULL UNIQUE CHECK(length(CAST(name AS BLOB)) BETWEEN 1 AND 255
    AND name NOT GLOB '*[' || char(1) || '-' || char(31) || char(127) || ']*'),
  plan TEXT REFERENCES plans(name)
) STRICT;
CREATE TABLE keys(
  id TEXT NOT NULL PRIMARY KEY CHECK(length(CAST(id AS BLOB)) = 12 AND id NOT GLOB '*[^0-9A-Za-z]*'),
  sha256 BLOB NOT NULL UNIQUE CHECK(length(sha256) = 32),
  state TEXT NOT NULL DEFAULT 'active' CHECK(state IN ('active', 'disabled', 'revoked')),
  expires INTEGER CHECK(expires BETWEEN 1 AND 8589934590),
  plan TEXT REFERENCES plans(name),
  limits TEXT CHECK(limits IS NULL OR json_valid(limits) AND json_type(limits) = 'array' AND json_array_length(limits) <= 6),
  addresses TEXT CHECK(addresses IS NULL OR json_valid(addresses) AND json_type(addresses) = 'array'
    AND json_array_length(addresses) <= 64),
  environment TEXT NOT NULL DEFAULT '' CHECK(length(CAST(environment AS BLOB)) <= 15
    AND environment NOT GLOB '*[^0-9a-z]*'),
  owner TEXT NOT NULL DEFAULT '' CHECK(length(CAST(owner AS BLOB)) <= 255
    AND owner NOT GLOB '*[' || char(1) || '-' || char(31) || char(127) || ']*'),
  name TEXT NOT NULL DEFAULT '' CHECK(length(CAST(name AS BLOB)) <= 255
    AND name NOT GLOB '*[' || char(1) || '-' || char(31) || char(127) || ']*'),
  created INTEGER CHECK(created BETWEEN 1 AND 4294967295),
  "foreign" INTEGER NOT NULL DEFAULT 0 CHECK("foreign" IN (0, 1)),
  scopes TEXT CHECK(scopes IS NULL OR json_valid(scopes) AND json_type(scopes) = 'array'),
  metadata TEXT CHECK(metadata IS NULL OR json_valid(metadata) AND json_type(metadata) = 'object'
    AND length(CAST(metadata AS BLOB)) <= 4096),
  CHECK("foreign" = 1 OR environment <> '')
) STRICT;
CREATE INDEX keys_by_environment ON keys(environment);
CREATE INDEX keys_by_owner ON keys(owner) WHERE owner <> '';
CREATE INDEX keys_by_plan ON keys(plan) WHERE plan IS NOT NULL;
CREATE INDEX keys_by_scopes ON keys(scopes) WHERE scopes IS NOT NULL;
CREATE INDEX owners_by_plan ON owners(plan) WHERE plan IS NOT NULL;
CREATE VIEW environments(name) AS WITH RECURSIVE each(name) AS (
  SELECT (SELECT environment FROM keys WHERE environment > '' ORDER BY environment LIMIT 1)
  UNION ALL
  SELECT (SELECT environment FROM keys WHERE environment > each.name ORDER BY environment LIMIT 1)
    FROM each WHERE each.name IS NOT NULL
) SELECT name FROM each WHERE name IS NOT NULL;
CREATE TABLE changes(
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  mark INTEGER DEFAULT (random()),
  kind TEXT,
  name TEXT,
  sha256 BLOB,
  "foreign" INTEGER,
  came INTEGER,
  old TEXT
) STRICT;
CREATE TRIGGER changes_trimmed AFTER INSERT ON changes WHEN NEW.seq % 1000 = 0 BEGIN
  DELETE FROM changes WHERE seq <= NEW.seq - 100000;
END;

CREATE TRIGGER keys_before_insert BEFORE INSERT ON keys BEGIN
  SELECT RAISE(ABORT, 'a revoked key stays revoked: issue a new key in its place')
    WHERE NEW.state IS NOT 'revoked' AND EXISTS(SELECT 1 FROM keys
      WHERE (id = NEW.id OR sha256 = NEW.sha256 OR rowid = NEW.rowid) AND state = 'revoked');
  SELECT RAISE(ABORT, 'plan: defined nowhere: insert it into plans first')
    WHERE NEW.plan IS NOT NULL AND NOT EXISTS(SELECT 1 FROM plans WHERE name = NEW.plan);
  SELECT RAISE(ABORT, 'environment: one too many: at most 15 different ones')
    WHERE NEW.environment <> '' AND NOT EXISTS(SELECT 1 FROM keys WHERE environment = NEW.environment)
      AND (SELECT count(*) FROM environments) >= 15;
  INSERT INTO changes(kind, name, sha256, "foreign", came) SELECT 'key', id, sha256, "foreign", 0 FROM keys
    WHERE id = NEW.id OR sha256 = NEW.sha256 OR rowid = NEW.rowid;
END;
CREATE TRIGGER keys_inserted AFTER INSERT ON keys BEGIN
  INSERT INTO changes(kind, name, came) VALUES('key', NEW.id, 1);
END;
CREATE TRIGGER keys_state BEFORE UPDATE OF state ON keys
WHEN OLD.state = 'revoked' AND NEW.state IS NOT 'revoked' BEGIN
  SELECT RAISE(ABORT, 'a revoked key stays revoked: issue a new key in its place');
END;
CREATE TRIGGER keys_plan BEFORE UPDATE OF plan ON keys
WHEN NEW.plan IS NOT NULL AND NEW.plan IS NOT OLD.plan BEGIN
  SELECT RAISE(ABORT, 'plan: defined nowhere: insert it into plans first')
    WHERE NOT EXISTS(SELECT 1 FROM plans WHERE name = NEW.plan);
END;
CREATE TRIGGER keys_environment BEFORE UPDATE OF environment ON keys
WHEN NEW.environment <> '' AND NEW.environment IS NOT OLD.environment BEGIN
  SELECT RAISE(ABORT, 'environment: one too many: at most 15 different ones')
    WHERE NOT EXISTS(SELECT 1 FROM keys WHERE environment = NEW.environment)
      AND (SELECT count(*) FROM environments) >= 15;
END;
CREATE TRIGGER keys_before_update BEFORE UPDATE ON keys
WHEN OLD.id IS NOT NEW.id OR OLD.sha256 IS NOT NEW.sha256 OR OLD.rowid IS NOT NEW.rowid BEGIN
  SELECT RAISE(ABORT, 'a revoked key stays revoked: issue a new key in its place')
    WHERE EXISTS(SELECT 1 FROM keys WHERE (id = NEW.id OR sha256 = NEW.sha256 OR rowid = NEW.rowid)
      AND rowid <> OLD.rowid AND state = 'revoked');
  INSERT INTO changes(kind, name, sha256, "foreign", came) SELECT 'key', id, sha256, "foreign", 0 FROM keys
    WHERE (id = NEW.id OR sha256 = NEW.sha256 OR rowid = NEW.rowid) AND rowid <> OLD.rowid;
END;
CREATE TRIGGER keys_updated AFTER UPDATE ON keys
WHEN OLD.id IS NOT NEW.id OR OLD.sha256 IS NOT NEW.sha256 OR OLD.state IS NOT NEW.state
  OR OLD.expires IS NOT NEW.expires OR OLD.plan IS NOT NEW.plan OR OLD.limits IS NOT NEW.limits
  OR OLD.addresses IS NOT NEW.addresses OR OLD.environment IS NOT NEW.environment OR OLD.owner IS NOT NEW.owner
  OR OLD.name IS NOT NEW.name OR OLD.created IS NOT NEW.created OR OLD."foreign" IS NOT NEW."foreign"
  OR OLD.scopes IS NOT NEW.scopes OR OLD.metadata IS NOT NEW.metadata BEGIN
  INSERT INTO changes(kind, name, sha256, "foreign", came) VALUES('key', OLD.id, OLD.sha256, OLD."foreign", 0);
  INSERT INTO changes(kind, name, came) SELECT 'key', NEW.id, 1 WHERE OLD.id IS NOT NEW.id;
END;
CREATE TRIGGER keys_deleted AFTER DELETE ON keys BEGIN
  INSERT INTO changes(kind, name, sha256, "foreign", came) VALUES('key', OLD.id, OLD.sha256, OLD."foreign", 0);
END;

CREATE TRIGGER plans_before_insert BEFORE INSERT ON plans BEGIN
  INSERT INTO changes(kind, name, came, old) SELECT 'plan', name, 0, limits FROM plans
    WHERE name = NEW.name OR rowid = NEW.rowid;
END;
CREATE TRIGGER plans_inserted AFTER INSERT ON plans BEGIN
  INSERT INTO changes(kind, name, came) VALUES('plan', NEW.name, 1);
END;
CREATE TRIGGER plans_used BEFORE DELETE ON plans BEGIN
  SELECT RAISE(ABORT, 'the plan is in use: give its keys and owners another plan first')
    WHERE EXISTS(SELECT 1 FROM keys WHERE plan = OLD.name) OR EXISTS(SELECT 1 FROM owners WHERE plan = OLD.name);
END;
CREATE TRIGGER plans_before_update BEFORE UPDATE ON plans
WHEN OLD.name IS NOT NEW.name OR OLD.rowid IS NOT NEW.rowid BEGIN
  SELECT RAISE(ABORT, 'the plan is in use: give its keys and owners another plan first')
    WHERE OLD.name IS NOT NEW.name AND (EXISTS(SELECT 1 FROM keys WHERE plan = OLD.name)
      OR EXISTS(SELECT 1 FROM owners WHERE plan = OLD.name));
  INSERT INTO changes(kind, name, came, old) SELECT 'plan', name, 0, limits FROM plans
    WHERE (name = NEW.name OR rowid = NEW.rowid) AND rowid <> OLD.rowid;
END;
CREATE TRIGGER plans_updated AFTER UPDATE ON plans
WHEN OLD.name IS NOT NEW.name OR OLD.limits IS NOT NEW.limits BEGIN
  INSERT INTO changes(kind, name, came, old) VALUES('plan', OLD.name, 0, OLD.limits);
  INSERT INTO changes(kind, name, came) SELECT 'plan', NEW.name, 1 WHERE OLD.name IS NOT NEW.name;
END;
CREATE TRIGGER plans_deleted AFTER DELETE ON plans BEGIN
  INSERT INTO changes(kind, name, came, old) VALUES('plan', OLD.name, 0, OLD.limits);
END;

CREATE TRIGGER owners_before_insert BEFORE INSERT ON owners BEGIN
  SELECT RAISE(ABORT, 'plan: defined nowhere: insert it into plans first')
    WHERE NEW.plan IS NOT NULL AND NOT EXISTS(SELECT 1 FROM plans WHERE name = NEW.plan);
  INSERT INTO changes(kind, name, came, old) SELECT 'owner', name, 0, plan FROM owners
    WHERE name = NEW.name OR rowid = NEW.rowid;
END;
CREATE TRIGGER owners_inserted AFTER INSERT ON owners BEGIN
  INSERT INTO changes(kind, name, came) VALUES('owner', NEW.name, 1);
END;
CREATE TRIGGER owners_before_update BEFORE UPDATE ON owners BEGIN
  SELECT RAISE(ABORT, 'plan: defined nowhere: insert it into plans first')
    WHERE NEW.plan IS NOT NULL AND NEW.plan IS NOT OLD.plan
      AND NOT EXISTS(SELECT 1 FROM plans WHERE name = NEW.plan);
  INSERT INTO changes(kind, name, came, old) SELECT 'owner', name, 0, plan FROM owners
    WHERE (name = NEW.name OR rowid = NEW.rowid) AND rowid <> OLD.rowid;
END;
CREATE TRIGGER owners_updated AFTER UPDATE ON owners
WHEN OLD.name IS NOT NEW.name OR OLD.plan IS NOT NEW.plan BEGIN
  INSERT INTO changes(kind, name, came, old) VALUES('owner', OLD.name, 0, OLD.plan);
  INSERT INTO changes(kind, name, came) SELECT 'owner', NEW.name, 1 WHERE OLD.name IS NOT NEW.name;
END;
CREATE TRIGGER owners_deleted AFTER DELETE ON owners BEGIN
  INSERT INTO changes(kind, name, came, old) VALUES('owner', OLD.name, 0, OLD.plan);
END;

CREATE TRIGGER scopes_before_insert BEFORE INSERT ON scopes BEGIN
  INSERT INTO changes(kind, name, came) SELECT 'scope', name, 0 FROM scopes
    WHERE name = NEW.name OR rowid = NEW.rowid;
END;
CREATE TRIGGER scopes_inserted AFTER INSERT ON scopes BEGIN
  INSERT INTO changes(kind, name, came) VALUES('scope', NEW.name, 1);
END;
CREATE TRIGGER scopes_before_update BEFORE UPDATE ON scopes BEGIN
  INSERT INTO changes(kind, name, came) SELECT 'scope', name, 0 FROM scopes
    WHERE (name = NEW.name OR rowid = NEW.rowid) AND rowid <> OLD.rowid;
END;
CREATE TRIGGER scopes_updated AFTER UPDATE ON scopes WHEN OLD.name IS NOT NEW.name BEGIN
  INSERT INTO changes(kind, name, came) VALUES('scope', OLD.name, 0);
  INSERT INTO changes(kind, name, came) VALUES('scope', NEW.name, 1);
END;
CREATE TRIGGER scopes_deleted AFTER DELETE ON scopes BEGIN
  INSERT INTO changes(kind, name, came) VALUES('scope', OLD.name, 0);
END;
PRAGMA application_id = 1634757491;
PRAGMA user_version = 1;
)sql";
static_assert(kKeyStoreApplicationId == 1634757491, "the SQL above says the same");

inline constexpr const char* kKeyStoreVersionsSql[] = {kKeyStoreVersion1Sql};
static_assert(std::size(kKeyStoreVersionsSql) == 1, "the SQL above says the same");

inline constexpr DatabaseKind kKeyStore = {
    .noun = "key store",
    .application_id = kKeyStoreApplicationId,
    .versions = kKeyStoreVersionsSql,
    .mode = 0600,
    .cache_kib = 192 << 10,  // an import of a million keys
    .made_by = "apikeyctl makes it with the first change",
    .filled_by = "apikeyctl fills it with the first change",
};

}  // namespace apikeyd
