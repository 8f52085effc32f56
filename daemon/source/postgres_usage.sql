-- What the hosts of a fleet counted, beside the key store that they read (postgres_schema.sql, which runs this):
-- where that was made before this came, run it alone, as the role that owns the tables. Run again it changes nothing.
--
-- Each host sends whole sums by the hour, out of the usage store that it has itself: sent twice, they change nothing.
-- Whoever may read the keys can send usage: of hosts that it makes up, too. No row of another store.
-- To ask, the view `usage`:
--
--   SELECT owner, sum(allowed) FROM apikeyd.usage WHERE start >= '2026-11-01' GROUP BY owner
--
-- Nothing here is ever deleted but by whoever is apikeyd_writer:
--
--   DELETE FROM apikeyd.usage_keys WHERE start_s < extract(epoch FROM timestamptz '2025-01-01')

BEGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL search_path = pg_catalog, pg_temp;  -- no operator or function of anybody else's

-- A usage store, by its random identity: also after the host got another name. Whoever knows a store's `uid` can write
-- its rows, so readers of the tables do not see it. batch: see UsageBatch::number. place: of the instance that sent it.
CREATE TABLE IF NOT EXISTS apikeyd.usage_stores(
  store bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  uid bytea NOT NULL UNIQUE CHECK(octet_length(uid) = 16),
  host text COLLATE "C" NOT NULL CHECK(octet_length(host) BETWEEN 1 AND 100),
  place text COLLATE "C" NOT NULL CHECK(octet_length(place) BETWEEN 1 AND 100),
  batch bigint NOT NULL DEFAULT 0,
  told timestamptz NOT NULL
);
-- start_s: when the hour began, Unix seconds. Rows are changed in place, once a minute in their hour.
CREATE TABLE IF NOT EXISTS apikeyd.usage_keys(
  start_s bigint NOT NULL CHECK(start_s % 3600 = 0),
  key_id text COLLATE "C" NOT NULL CHECK(octet_length(key_id) BETWEEN 1 AND 64),
  store bigint NOT NULL REFERENCES apikeyd.usage_stores(store),
  allowed bigint NOT NULL CHECK(allowed >= 0),
  denied bigint NOT NULL CHECK(denied >= 0),
  PRIMARY KEY(start_s, key_id, store)
) WITH (fillfactor = 70);
-- How often a host answered a verdict code (enum apikey_code), for whatever key.
CREATE TABLE IF NOT EXISTS apikeyd.usage_codes(
  start_s bigint NOT NULL CHECK(start_s % 3600 = 0),
  code smallint NOT NULL CHECK(code BETWEEN 0 AND 255),
  store bigint NOT NULL REFERENCES apikeyd.usage_stores(store),
  total bigint NOT NULL CHECK(total >= 0),
  PRIMARY KEY(start_s, code, store)
) WITH (fillfactor = 70);

-- owner: as the key set has it now; NULL of a key that has left it.
CREATE OR REPLACE VIEW apikeyd.usage(host, start, key_id, owner, allowed, denied) AS
  SELECT s.host, to_timestamp(u.start_s::double precision), u.key_id, k.owner, u.allowed, u.denied
  FROM apikeyd.usage_keys u JOIN apikeyd.usage_stores s USING (store) LEFT JOIN apikeyd.keys k ON k.id = u.key_id;

-- Takes a batch, and answers the number that it has now; see UsageBatch::number for one that it does not take. -1:
-- another instance of apikeyd sent for this store in the last ten minutes, under another name, or more than this one
-- knows: one of the two has a copy of the other's store. Who has the same place and another name was renamed, who has
-- the same name and another place was booted anew.
-- Sums only grow: what comes late, or out of a copy that was put back, takes nothing from what came before.
CREATE OR REPLACE FUNCTION apikeyd.send_usage(host_name text, place_id text, store_uid bytea, before bigint,
  starts bigint[], ids text[], alloweds bigint[], denieds bigint[], code_starts bigint[],
  codes smallint[], totals bigint[])
  RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, apikeyd, pg_temp AS $$
DECLARE
  known record;
  is_other boolean;
  number bigint;
BEGIN
  SELECT * INTO known FROM usage_stores WHERE uid = store_uid FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    INSERT INTO usage_stores(uid, host, place, told) VALUES(store_uid, host_name, place_id, clock_timestamp())
      RETURNING * INTO known;
  END IF;
  is_other := known.place <> place_id AND known.told > clock_timestamp() - interval '10 minutes';
  IF known.batch = before AND NOT (is_other AND known.host <> host_name)
    OR known.batch = before + 1 AND NOT is_other THEN
    number := known.batch + 1;
    INSERT INTO usage_keys AS u(start_s, key_id, store, allowed, denied)
      SELECT s, i, known.store, a, d FROM unnest(starts, ids, alloweds, denieds) AS sent(s, i, a, d)
      ON CONFLICT (start_s, key_id, store) DO UPDATE
      SET allowed = greatest(u.allowed, EXCLUDED.allowed), denied = greatest(u.denied, EXCLUDED.denied)
      WHERE u.allowed < EXCLUDED.allowed OR u.denied < EXCLUDED.denied;
    INSERT INTO usage_codes AS u(start_s, code, store, total)
      SELECT s, c, known.store, t FROM unnest(code_starts, codes, totals) AS sent(s, c, t)
      ON CONFLICT (start_s, code, store) DO UPDATE SET total = EXCLUDED.total WHERE u.total < EXCLUDED.total;
  ELSIF is_other THEN
    RETURN -1;
  ELSE
    number := greatest(known.batch, before) + 3;
  END IF;
  UPDATE usage_stores SET host = host_name, place = place_id, batch = number, told = clock_timestamp()
    WHERE store = known.store;
  RETURN number;
END;
$$;

REVOKE ALL ON apikeyd.usage_keys, apikeyd.usage_codes, apikeyd.usage FROM PUBLIC;
REVOKE ALL ON FUNCTION apikeyd.send_usage(text, text, bytea, bigint, bigint[], text[], bigint[], bigint[], bigint[],
  smallint[], bigint[]) FROM PUBLIC;
GRANT SELECT ON apikeyd.usage_keys, apikeyd.usage_codes, apikeyd.usage TO apikeyd_reader, apikeyd_writer;
GRANT SELECT(store, host, batch, told) ON apikeyd.usage_stores TO apikeyd_reader, apikeyd_writer;
GRANT DELETE ON apikeyd.usage_keys, apikeyd.usage_codes TO apikeyd_writer;
GRANT EXECUTE ON FUNCTION apikeyd.send_usage(text, text, bytea, bigint, bigint[], text[], bigint[], bigint[], bigint[],
  smallint[], bigint[]) TO apikeyd_reader, apikeyd_writer;

COMMIT;
