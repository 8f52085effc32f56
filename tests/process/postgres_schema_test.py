#!/usr/bin/env python3
"""Promise: PostgreSQL holds a key store as SQLite does; whatever changes its tables, by whatever statement, is told in
the log, to all who follow it, and a role can do what it is for and nothing else."""

import argparse
import contextlib
import hashlib
import pathlib
import re
import signal
import sqlite3
import subprocess
import sys
import unittest

import postgres_server
from postgres_server import Server, SqlError

OPTIONS = argparse.Namespace()
A, B, C, D = (letter * 12 for letter in "ABCD")
ONE_TOO_MANY = "environment: one too many: at most 15 different ones"
STAYS_REVOKED = "a revoked key stays revoked: issue a new key in its place"
BULK = 10_000
LOG_ROWS = 100_000  # are kept


def setUpModule():
    # Vacuum has transactions of its own, which a test of others' would see.
    Store.server = Server({"autovacuum": "off", "max_prepared_transactions": 2})
    unittest.addModuleCleanup(Store.server.close)
    Store.server.start()
    # Where order is not by bytes unless a column says so.
    Store.server.create_store(Store.db, OPTIONS.schema, "LOCALE_PROVIDER icu ICU_LOCALE 'en' TEMPLATE template0")


def digest(key):
    return hashlib.sha256(key.encode()).hexdigest()


def insert(*ids, **columns):
    """A statement; the columns' values are SQL."""
    columns = {"environment": "'live'"} | columns
    names = ", ".join(f'"{name}"' for name in columns)
    values = ", ".join(f"('{key}', sha256('{key}'), {', '.join(columns.values())})" for key in ids)
    return f"INSERT INTO apikeyd.keys(id, sha256, {names}) VALUES {values}"


def insert_many(count, begin=1, environment="'live'"):
    """`n`: from begin on."""
    return (
        "INSERT INTO apikeyd.keys(id, sha256, environment) SELECT lpad(n::text, 12, '0'), sha256(n::text::bytea), "
        f"{environment} FROM generate_series({begin}, {begin + count - 1}) n"
    )


def came(kind, name):
    return (kind, name, "1", None, None, None)


def went(kind, name, old=None):
    """Keys: as `insert` makes them."""
    return (kind, name, "0", *((digest(name), "0") if kind == "key" else (None, None)), old)


def everything(table):
    return ("all", table, None, None, None, None)


class Store(unittest.TestCase):
    """A fresh store for each test; statements are the tool's unless it says otherwise."""

    server = None
    db = "store"
    connections = {}  # by database and user, for the whole run
    maxDiff = None

    def setUp(self):
        fresh = f"SET client_min_messages = warning; DROP SCHEMA apikeyd CASCADE;\n\\i {OPTIONS.schema}\n"
        self.server.psql(fresh, self.db, "store_owner")

    def sql(self, *statements, user="tool_user"):
        """As by one connection that is opened and closed; the rows of all."""
        place = (self.db, user)
        if place not in self.connections:
            self.connections[place] = self.server.session(*place)
        connection = self.connections[place]
        rows = connection.run("DISCARD ALL")
        try:
            for statement in statements:
                rows += connection.run(statement)
        except SqlError:
            connection.run("ROLLBACK")
            raise
        return rows

    def session(self, user="tool_user"):
        session = self.server.session(self.db, user)
        self.addCleanup(session.close)
        return session

    def refused(self, state, *statements, user="tool_user", message=""):
        with self.assertRaises(SqlError, msg=statements) as caught:
            self.sql(*statements, user=user)
        self.assertEqual(caught.exception.state, state, (statements, str(caught.exception)))
        self.assertIn(message, str(caught.exception))

    def log(self, since=0):
        return self.sql(
            "SELECT kind, name, came, encode(sha256, 'hex'), \"foreign\", old FROM apikeyd.changes "
            f"WHERE seq > {since} ORDER BY seq"
        )

    def last(self):
        return int(self.sql("SELECT coalesce(max(seq), 0) FROM apikeyd.changes")[0][0])

    def told(self, *statements, user="tool_user"):
        """What the log says of these."""
        before = self.last()
        self.sql(*statements, user=user)
        return self.log(before)

    def plans_of(self, *statements):
        """The plans of all statements that functions run for these."""
        before = len(self.server.log.read_text())
        self.sql(
            "LOAD 'auto_explain'",
            "SET auto_explain.log_min_duration = 0",
            "SET auto_explain.log_nested_statements = on",
            *statements,
            user="postgres",
        )
        logged = self.server.log.read_text()[before:].split("LOG:  duration: ")
        return "".join(plan for plan in logged if "PL/pgSQL function" in plan)


class Columns(Store):
    def test_they_are_those_of_sqlite(self):
        header = postgres_server.SCHEMA.with_name("sqlite_schema.h").read_text()
        with sqlite3.connect(":memory:") as twin:
            twin.executescript(re.search(r'R"sql\((.*?)\)sql"', header, re.DOTALL)[1])
        own = {"store": {"version", "trimmed"}, "changes": {"xid"}}
        for table in ("store", "scopes", "plans", "owners", "keys", "changes", "environments"):
            names = {name for (name,) in twin.execute(f"SELECT name FROM pragma_table_info('{table}')")}
            here = self.sql(
                "SELECT column_name FROM information_schema.columns "
                f"WHERE table_schema = 'apikeyd' AND table_name = '{table}' AND column_name <> 'rowid'"
            )
            self.assertEqual({name for (name,) in here}, names | own.get(table, set()), table)
        twin.close()

    def test_what_is_good_is_kept_as_it_is_written(self):
        limits = "[" + ",".join(f'"{name}=1/s"' for name in "abcdef") + "]"
        metadata = '{"b": 1.00, "a": 12345678901234567890, "b": "\\\\u0000 \\\\ud800", "z":"' + "ü" * 2014 + '"}'
        self.assertEqual(len(metadata.replace("\\\\", "\\").encode()), 4096)
        self.sql(
            f"INSERT INTO apikeyd.plans(name, limits) VALUES('free', '{limits}'), (repeat('p', 63), NULL)",
            "INSERT INTO apikeyd.owners(name, plan) VALUES('acme', 'free'), (repeat('ü', 127) || '!', NULL)",
            "INSERT INTO apikeyd.scopes(name) VALUES('a.b_c-0')",
            insert(A, metadata=f"E'{metadata}'", expires="8589934590", created="4294967295", plan="'free'",
                   limits="'[ ]'",
                   addresses="'[' || rtrim(repeat('\"::/0\",', 64), ',') || ']'", scopes="'[\"a.*\"]'", name="'x; \"y'",
                   owner="repeat('o', 255)", environment="'live0123456789a'"),
            insert(B, environment="''", foreign="1"),
        )  # fmt: skip
        columns = 'metadata, limits, scopes, name, state, "foreign"'
        row = self.sql(f"SELECT {columns} FROM apikeyd.keys WHERE id = '{A}'")[0]
        self.assertEqual(row, (metadata.replace("\\\\", "\\"), "[ ]", '["a.*"]', "x; \"y", "active", "0"))

    def test_what_breaks_a_rule_is_refused(self):
        bad = {
            "id": ["''", "'AAAAAAAAAAA'", "'AAAAAAAAAAAAA'", "'AAAAAAAAAAA-'", "'AAAAAAAAAAAü'", "E'AAAAAAAAAAAA\\n'",
                   "NULL"],
            "sha256": ["''", "sha256('x') || sha256('x')", "NULL"],
            "state": ["'gone'", "''", "NULL"],
            "expires": ["0", "8589934591", "-1"],
            "plan": ["'no.such'"],
            "limits": ["''", "'7'", "'{}'", "'[1,2,3,4,5,6,7]'", "'['", "'null'"],
            "addresses": ["'\"x\"'", "'[' || rtrim(repeat('1,', 65), ',') || ']'"],
            "environment": ["'Live'", "'live-1'", "'live012345678901'", "''", "NULL"],
            "owner": ["repeat('o', 256)", "repeat('ü', 128)", "E'a\\tb'", "E'\\x7f'", "E'\\x1f'", "NULL"],
            "name": ["repeat('o', 256)", "E'\\n'", "NULL"],
            "created": ["0", "4294967296"],
            "foreign": ["2", "-1", "NULL"],
            "scopes": ["'{}'", "'a.b'", "''"],
            "metadata": ["'[]'", "'1'", "'{'", "'{\"a\":\"' || repeat('x', 4096) || '\"}'"],
        }  # fmt: skip
        good = {"id": f"'{A}'", "sha256": f"sha256('{A}')", "environment": "'live'"}
        tables = {"keys": (good, bad)}
        bad_names = ["''", "'A'", "'a b'", "repeat('a', 64)", "'ü'", "NULL"]
        tables["plans"] = ({"name": "'a'"}, {"name": bad_names, "limits": bad["limits"]})
        tables["scopes"] = ({"name": "'a'"}, {"name": bad_names})
        tables["owners"] = ({"name": "'a'"}, {"name": ["''", *bad["name"]], "plan": bad["plan"]})
        session = self.session()
        for table, (columns, wrongs) in tables.items():
            for column, values in wrongs.items():
                for value in values:
                    row = columns | {column: value}
                    names = ", ".join(f'"{name}"' for name in row)
                    with self.subTest(table=table, column=column, value=value):
                        with self.assertRaises(SqlError) as caught:
                            session.run(f"INSERT INTO apikeyd.{table}({names}) VALUES({', '.join(row.values())})")
                        # check, null, foreign key, JSON
                        self.assertIn(caught.exception.state, ("23514", "23502", "23503", "22P02"))
        self.assertEqual(self.sql("SELECT count(*) FROM apikeyd.keys"), [("0",)])

    def test_keys_are_one_of_a_kind(self):
        self.sql(insert(A))
        self.refused("23505", insert(A))
        self.refused("23505", f"INSERT INTO apikeyd.keys(id, sha256, environment) VALUES('{B}', sha256('{A}'), 'live')")

    def test_order_is_by_bytes_and_by_rowid(self):
        self.assertEqual(self.sql("SELECT 'B' < 'a'"), [("f",)], "the database's own order")
        names = ["b", "a", "_", "-", "a.b"]
        for table in ("scopes", "plans", "owners"):
            self.sql(*(f"INSERT INTO apikeyd.{table}(name) VALUES('{name}')" for name in names))
            self.assertEqual([name for (name,) in self.sql(f"SELECT name FROM apikeyd.{table} ORDER BY rowid")], names)
            self.assertEqual(
                [name for (name,) in self.sql(f"SELECT name FROM apikeyd.{table} ORDER BY name")], sorted(names)
            )
        self.sql(
            insert("a" * 12, "B" * 12, "0" * 12, owner="'ü'", name="'é'"), insert("C" * 12, owner="'z'", name="'Z'")
        )
        for column in ("id", "owner", "name"):
            values = [value for (value,) in self.sql(f"SELECT {column} FROM apikeyd.keys ORDER BY {column}")]
            self.assertEqual(values, sorted(values, key=str.encode), column)
        logged = [name for (name,) in self.sql("SELECT name FROM apikeyd.changes ORDER BY name")]
        self.assertEqual(logged, sorted(logged, key=str.encode))
        unsorted = self.sql(
            "SELECT attrelid::regclass, attname FROM pg_attribute JOIN pg_class ON oid = attrelid "
            "WHERE relnamespace = 'apikeyd'::regnamespace AND relkind IN ('r', 'v') AND atttypid = 'text'::regtype "
            "AND attcollation <> 'pg_catalog.\"C\"'::regcollation"
        )
        self.assertEqual(unsorted, [])

    def test_a_rowid_can_be_given(self):
        self.sql(insert(A, rowid="7"), insert(B), "INSERT INTO apikeyd.plans(rowid, name) VALUES(-1, 'x')")
        self.assertEqual(self.sql("SELECT id, rowid FROM apikeyd.keys ORDER BY id"), [(A, "7"), (B, "1")])
        self.refused("23505", insert(C, rowid="7"))

    def test_a_plan_in_use_stays(self):
        self.sql("INSERT INTO apikeyd.plans(name) VALUES('by.key'), ('by.owner')", insert(A, plan="'by.key'"),
                 "INSERT INTO apikeyd.owners(name, plan) VALUES('acme', 'by.owner')")  # fmt: skip
        for plan in ("by.key", "by.owner"):
            self.refused("23503", f"DELETE FROM apikeyd.plans WHERE name = '{plan}'")
            self.refused("23503", f"UPDATE apikeyd.plans SET name = 'other' WHERE name = '{plan}'")
        self.sql(
            "UPDATE apikeyd.keys SET plan = NULL", "UPDATE apikeyd.owners SET plan = NULL", "DELETE FROM apikeyd.plans"
        )


class Log(Store):
    """Rows as those of SQLite's triggers."""

    def test_keys(self):
        self.assertEqual(self.told(insert(A, B)), [came("key", A), came("key", B)])
        self.assertEqual(self.told(f"UPDATE apikeyd.keys SET name = 'x' WHERE id = '{A}'"), [went("key", A)])
        self.assertEqual(self.told("UPDATE apikeyd.keys SET name = 'x'"), [went("key", B)])
        self.assertEqual(self.told("UPDATE apikeyd.keys SET name = 'x'"), [])
        self.assertEqual(self.told("UPDATE apikeyd.keys SET name = 'y' WHERE id = 'none'"), [])
        # What it had before: a digest, and whether it was foreign.
        before = ("key", A, "0", digest(A), "0", None)
        self.assertEqual(
            self.told(f"UPDATE apikeyd.keys SET sha256 = sha256('x'), \"foreign\" = 1 WHERE id = '{A}'"), [before]
        )
        self.assertEqual(
            self.told(f"DELETE FROM apikeyd.keys WHERE id = '{A}'"), [("key", A, "0", digest("x"), "1", None)]
        )
        self.assertEqual(self.told("DELETE FROM apikeyd.keys WHERE id = 'none'"), [])

    def test_each_column_of_a_key(self):
        self.sql("INSERT INTO apikeyd.plans(name) VALUES('free')", insert(A))
        others = {"sha256": "sha256('x')", "state": "'disabled'", "expires": "1", "plan": "'free'", "limits": "'[]'",
                  "addresses": "'[]'", "environment": "'test'", "owner": "'acme'", "name": "'x'", "created": "1",
                  "foreign": "1", "scopes": "'[]'", "metadata": "'{}'"}  # fmt: skip
        known = self.sql("SELECT attname FROM pg_attribute WHERE attrelid = 'apikeyd.keys'::regclass AND attnum > 0")
        self.assertEqual(set(others) | {"id", "rowid"}, {name for (name,) in known})
        for column, value in others.items():
            told = self.told(f'UPDATE apikeyd.keys SET "{column}" = {value}')
            self.assertEqual([row[:3] for row in told], [("key", A, "0")], column)
            self.assertEqual(self.told(f'UPDATE apikeyd.keys SET "{column}" = {value}'), [], column)
        for column in ("expires", "plan", "limits", "addresses", "created", "scopes", "metadata"):
            self.assertEqual(len(self.told(f"UPDATE apikeyd.keys SET {column} = NULL")), 1, column)

    def test_other_ids(self):
        self.sql(insert(A, B))
        self.assertEqual(
            self.told(f"UPDATE apikeyd.keys SET id = '{C}' WHERE id = '{A}'"), [went("key", A), came("key", C)]
        )
        self.sql(f"UPDATE apikeyd.keys SET id = '{A}' WHERE id = '{C}'")
        # Each takes the other's place, by way of a third in between: no statement can do it at once.
        told = self.told(
            "BEGIN",
            f"UPDATE apikeyd.keys SET id = '{C}' WHERE id = '{A}'",
            f"UPDATE apikeyd.keys SET id = '{A}' WHERE id = '{B}'",
            f"UPDATE apikeyd.keys SET id = '{B}' WHERE id = '{C}'",
            "COMMIT",
        )
        moved = lambda now, was: ("key", now, "0", digest(was), "0", None)
        self.assertEqual(told, [moved(A, A), came("key", C), moved(B, B), came("key", A), moved(C, A), came("key", B)])
        # Or by one whose constraint waits.
        self.sql(
            "ALTER TABLE apikeyd.keys DROP CONSTRAINT keys_pkey, ADD PRIMARY KEY(id) DEFERRABLE", user="store_owner"
        )
        told = self.told(f"UPDATE apikeyd.keys SET id = CASE id WHEN '{A}' THEN '{B}' ELSE '{A}' END")
        self.assertEqual(sorted(told), sorted([moved(A, B), moved(B, A), came("key", A), came("key", B)]))
        self.assertEqual([row[2] for row in told], ["0", "0", "1", "1"])

    def test_other_rowids(self):
        self.sql(insert(A), insert(B), insert(C))
        self.assertEqual(
            self.told(f"UPDATE apikeyd.keys SET rowid = 100 WHERE id = '{A}'"), [went("key", A), came("key", A)]
        )
        # Rows of the same rowid before and after that are not the same; the highest moves first.
        self.sql("CREATE TEMP TABLE moved AS TABLE apikeyd.keys", "DELETE FROM apikeyd.keys",
                 "INSERT INTO apikeyd.keys SELECT * FROM moved ORDER BY rowid DESC")  # fmt: skip
        told = self.told("UPDATE apikeyd.keys SET rowid = rowid + 1")
        self.assertEqual({row[:3] for row in told}, {("key", key, came_) for key in (A, B, C) for came_ in "01"})
        self.assertEqual({row[3] for row in told}, {digest(A), digest(B), digest(C), None})
        # Both at once.
        told = self.told(f"UPDATE apikeyd.keys SET rowid = 50, id = '{D}' WHERE id = '{B}'")
        self.assertEqual(told, [went("key", B), came("key", D)])

    def test_plans_owners_and_scopes(self):
        for table, kind, column, first, second in (
            ("plans", "plan", "limits", '["a=1/s"]', '["a=2/s"]'),
            ("owners", "owner", "plan", "free", "team"),
            ("scopes", "scope", None, None, None),
        ):
            with self.subTest(table):
                if kind == "owner":
                    self.sql("INSERT INTO apikeyd.plans(name) VALUES('free'), ('team')")
                told = self.told(f"INSERT INTO apikeyd.{table}(name) VALUES('x'), ('y')")
                self.assertEqual(told, [came(kind, "x"), came(kind, "y")])
                if column:
                    self.assertEqual(
                        self.told(f"UPDATE apikeyd.{table} SET {column} = '{first}' WHERE name = 'x'"),
                        [went(kind, "x")],
                    )
                    self.assertEqual(
                        self.told(f"UPDATE apikeyd.{table} SET {column} = '{second}' WHERE name = 'x'"),
                        [went(kind, "x", first)],
                    )
                    self.assertEqual(
                        self.told(f"UPDATE apikeyd.{table} SET {column} = '{second}' WHERE name = 'x'"), []
                    )
                told = self.told(f"UPDATE apikeyd.{table} SET name = 'z' WHERE name = 'x'")
                self.assertEqual(told, [went(kind, "x", second), came(kind, "z")])
                told = self.told(f"UPDATE apikeyd.{table} SET rowid = 100 WHERE name = 'z'")
                self.assertEqual(told, [went(kind, "z", second), came(kind, "z")])
                self.assertEqual(self.told(f"DELETE FROM apikeyd.{table} WHERE name = 'z'"), [went(kind, "z", second)])

    def test_on_conflict(self):
        self.sql(insert(A), insert(B))
        upsert = insert(A, B, C, name="'x'") + " ON CONFLICT(id) DO UPDATE SET name = excluded.name"
        self.assertEqual(sorted(self.told(upsert)), sorted([went("key", A), went("key", B), came("key", C)]))
        self.assertEqual(self.told(upsert), [])
        self.assertEqual(self.told(insert(A, D, name="'y'") + " ON CONFLICT DO NOTHING"), [came("key", D)])
        # One that goes on under another id, and whose id another takes in the same statement.
        sql = f"INSERT INTO apikeyd.scopes(name) VALUES('a'), ('a') ON CONFLICT(name) DO UPDATE SET name = 'b'"
        self.sql("INSERT INTO apikeyd.scopes(name) VALUES('a')")
        told = self.told(sql)
        self.assertEqual(told, [went("scope", "a"), came("scope", "b"), everything("scopes"), came("scope", "a")])

    def test_copy(self):
        rows = "".join(f"{key}\t\\\\x{digest(key)}\tlive\n" for key in (A, B))
        told = self.told(f"COPY apikeyd.keys(id, sha256, environment) FROM stdin;\n{rows}\\.\n")
        self.assertEqual(told, [came("key", A), came("key", B)])

    def test_one_statement_that_deletes_and_brings(self):
        """Where that is one thing, the order in which it is told means nothing, and 'all' is told as well."""
        self.sql(
            insert(A), insert(B), "INSERT INTO apikeyd.plans(name, limits) VALUES('a', '[]'), ('b', '[\"x=1/s\"]')"
        )
        again = "INSERT INTO apikeyd.plans(name) SELECT name FROM gone"
        for limit in ("", " LIMIT 1"):  # with it, the rest is deleted after the INSERT is done
            told = self.told(f"WITH gone AS (DELETE FROM apikeyd.plans RETURNING *) {again}{limit}")
            self.assertIn(everything("plans"), told)
            self.assertIn("a", {row[1] for row in told})
        told = self.told(
            f"MERGE INTO apikeyd.keys k USING (VALUES('{A}', NULL), ('none', '{A}'), ('{B}', 'x')) AS v(id, other) "
            "ON k.id = v.id "
            "WHEN MATCHED AND other IS NULL THEN DELETE WHEN MATCHED THEN UPDATE SET name = other "
            "WHEN NOT MATCHED THEN INSERT(id, sha256, environment) VALUES(other, sha256('new'), 'live')"
        )
        self.assertEqual(sorted(told), sorted([went("key", A), came("key", A), went("key", B), everything("keys")]))
        # One that only does one thing with each.
        told = self.told(
            f"MERGE INTO apikeyd.keys k USING (VALUES('{C}'), ('{B}')) AS v(id) ON k.id = v.id "
            "WHEN MATCHED THEN DELETE "
            "WHEN NOT MATCHED THEN INSERT(id, sha256, environment) VALUES(v.id, sha256(v.id::bytea), 'live')"
        )
        self.assertEqual(sorted(told), sorted([came("key", C), went("key", B)]))

    def test_truncate(self):
        self.sql(insert(A))
        self.assertEqual(self.told("TRUNCATE apikeyd.keys", user="store_owner"), [everything("keys")])
        self.assertEqual(self.told("TRUNCATE apikeyd.scopes", user="store_owner"), [everything("scopes")])
        told = self.told("TRUNCATE apikeyd.plans CASCADE", user="store_owner")
        self.assertEqual(sorted(told), [everything(table) for table in ("keys", "owners", "plans")])

    def test_a_session_that_plays_a_replica(self):
        replica = "SET session_replication_role = replica"
        told = self.told(replica, insert(A), "UPDATE apikeyd.keys SET state = 'revoked'", user="postgres")
        self.assertEqual(told, [came("key", A), went("key", A)])
        self.refused(
            "23514", replica, "UPDATE apikeyd.keys SET state = 'active'", user="postgres", message=STAYS_REVOKED
        )
        self.refused("23514", replica, insert_many(16, environment="'e' || n"), user="postgres", message=ONE_TOO_MANY)
        others = ["DELETE FROM apikeyd.keys", "TRUNCATE apikeyd.scopes", "INSERT INTO apikeyd.plans(name) VALUES('x')"]
        told = self.told(replica, *others, user="postgres")
        self.assertEqual(told, [went("key", A), everything("scopes"), came("plan", "x")])
        self.assertEqual(self.sql("SELECT DISTINCT tgenabled FROM pg_trigger WHERE NOT tgisinternal"), [("A",)])

    def test_a_transaction(self):
        told = self.told(
            "BEGIN", insert(A), "SAVEPOINT s", insert(B), "ROLLBACK TO s", f"DELETE FROM apikeyd.keys WHERE id = '{A}'",
            insert(A), f"UPDATE apikeyd.keys SET name = 'x' WHERE id = '{A}'", "COMMIT",
        )  # fmt: skip
        self.assertEqual(told, [came("key", A), went("key", A), came("key", A), went("key", A)])
        self.assertEqual(
            self.sql("SELECT count(DISTINCT xid), count(DISTINCT mark), count(*) FROM apikeyd.changes"),
            [("1", "4", "4")],
        )
        self.assertEqual(self.told("BEGIN", insert(B), "ROLLBACK"), [])
        xid = self.sql("BEGIN", "SELECT pg_current_xact_id()", "SAVEPOINT s", insert(B), "COMMIT")[0]
        self.assertEqual(self.sql("SELECT xid FROM apikeyd.changes ORDER BY seq DESC LIMIT 1"), [xid])

    def test_who_follows_is_notified_once(self):
        follower = self.session("daemon_user")
        follower.run("LISTEN apikeyd_changes")
        for count, statements in (
            (1, ["BEGIN", insert(A), insert(B), "DELETE FROM apikeyd.keys", "COMMIT"]),
            (1, ["INSERT INTO apikeyd.plans(name) VALUES('x')"]),
            (1, ["INSERT INTO apikeyd.owners(name) VALUES('x')"]),
            (1, ["INSERT INTO apikeyd.scopes(name) VALUES('x')"]),
            (0, ["BEGIN", insert(A), "ROLLBACK"]),
            (0, ["UPDATE apikeyd.plans SET name = name", "DELETE FROM apikeyd.keys WHERE id = 'none'"]),
        ):
            follower.notified = 0
            self.sql(*statements)
            follower.run("SELECT 1")
            self.assertEqual(follower.notified, count, statements)
        self.sql("TRUNCATE apikeyd.keys", user="store_owner")
        follower.run("SELECT 1")
        self.assertEqual(follower.notified, 1)

    def roll_back_prepared(self):
        with contextlib.suppress(SqlError):
            self.sql("ROLLBACK PREPARED 'x'")

    def test_it_cannot_be_prepared(self):
        self.addCleanup(self.roll_back_prepared)  # else all would wait for what it locks
        self.refused("0A000", "BEGIN", insert(A), "PREPARE TRANSACTION 'x'")
        self.sql("BEGIN", "SELECT 1", "PREPARE TRANSACTION 'x'", "ROLLBACK PREPARED 'x'")

    def test_other_tables_of_the_same_names(self):
        names = ("changes", "keys", "known_environments", "store")
        shadows = [f"CREATE TEMP TABLE {name}(LIKE apikeyd.{name})" for name in names]
        told = self.told(
            *shadows, "SET search_path = pg_temp, pg_catalog, apikeyd", insert(A), "DELETE FROM apikeyd.keys"
        )
        self.assertEqual(told, [came("key", A), went("key", A)])

    def test_bulk(self):
        """Each statement is told of by one: all its rows have one command's number."""
        once = "SELECT count(*), count(DISTINCT cmin::text), count(DISTINCT mark) FROM apikeyd.changes WHERE seq > "
        for statement in (insert_many(BULK), "UPDATE apikeyd.keys SET name = 'x'", "DELETE FROM apikeyd.keys"):
            before = self.last()
            self.sql("SET statement_timeout = '60s'", statement)
            self.assertEqual(self.sql(once + str(before)), [(str(BULK), "1", str(BULK))], statement)
        # Two statements of the trigger: those that went, and those that came.
        self.sql(insert_many(BULK))
        before = self.last()
        self.sql("UPDATE apikeyd.keys SET id = reverse(id)")
        self.assertEqual(self.sql(once + str(before)), [(str(2 * BULK), "2", str(2 * BULK))])

    def test_a_plan_for_one_row_serves_many(self):
        """A session keeps it: no loops in loops, no scan of a table that was empty."""
        self.sql("VACUUM ANALYZE apikeyd.keys", user="postgres")
        plans = self.plans_of(
            insert(A, B),
            f"UPDATE apikeyd.keys SET id = '{C}' WHERE id = '{A}'",
            "UPDATE apikeyd.keys SET name = 'x'",
            "DELETE FROM apikeyd.keys",
        )
        self.assertGreater(plans.count("Insert on changes"), 5, plans)
        for bad in ("Nested Loop", "Seq Scan on keys"):
            self.assertNotIn(bad, plans)


class Revoked(Store):
    def setUp(self):
        super().setUp()
        self.sql(insert(A, state="'revoked'"), insert(B))

    def stays(self, *statements):
        self.refused("23514", *statements, message=STAYS_REVOKED)
        self.assertEqual(self.sql(f"SELECT state FROM apikeyd.keys WHERE id = '{A}'"), [("revoked",)])

    def test_it_stays_revoked(self):
        for state in ("'active'", "'disabled'", "NULL"):
            self.stays(f"UPDATE apikeyd.keys SET state = {state} WHERE id = '{A}'")
        self.stays("UPDATE apikeyd.keys SET state = 'active'")
        self.stays(insert(A) + " ON CONFLICT(id) DO UPDATE SET state = 'active'")
        self.stays(
            "BEGIN",
            f"UPDATE apikeyd.keys SET state = 'revoked', name = 'x' WHERE id = '{A}'",
            "UPDATE apikeyd.keys SET state = 'active'",
        )
        self.stays(
            "MERGE INTO apikeyd.keys USING (VALUES(1)) AS v ON true WHEN MATCHED THEN UPDATE SET state = 'active'"
        )

    def test_all_else_can_be_done(self):
        self.sql(f"UPDATE apikeyd.keys SET name = 'x', state = 'revoked', expires = 1 WHERE id = '{A}'")
        self.sql(
            "UPDATE apikeyd.keys SET state = 'disabled' WHERE state <> 'revoked'",
            "UPDATE apikeyd.keys SET state = 'revoked'",
        )
        self.sql(f"DELETE FROM apikeyd.keys WHERE id = '{A}'", insert(A))


class Environments(Store):
    def fill(self, count):
        self.sql(insert_many(count, environment="'e' || n"))

    def count(self):
        """By a scan of all, and as the view has it."""
        scanned = self.sql("SELECT DISTINCT environment FROM apikeyd.keys WHERE environment <> '' ORDER BY 1")
        self.assertEqual(self.sql("SELECT name FROM apikeyd.environments"), scanned)
        return len(scanned)

    def too_many(self, *statements, user="tool_user"):
        self.refused("23514", *statements, user=user, message=ONE_TOO_MANY)

    def test_fifteen(self):
        self.too_many(insert_many(16, environment="'e' || n"))
        rows = "".join(f"{n:012}\t\\\\x{digest(str(n))}\te{n}\n" for n in range(16))
        self.too_many(f"COPY apikeyd.keys(id, sha256, environment) FROM stdin;\n{rows}\\.\n")
        self.too_many("BEGIN", *(insert_many(1, n, "'e' || n") for n in range(16)))
        self.too_many(insert_many(BULK, environment="'e' || n"))
        self.assertEqual(self.count(), 0)
        self.fill(15)
        self.assertEqual(self.count(), 15)
        self.sql(insert_many(100, 1000, "'e' || 1 + n % 15"), insert(A, environment="''", foreign="1"))
        self.too_many(insert(B, environment="'other'"))
        self.too_many(f"UPDATE apikeyd.keys SET environment = 'other' WHERE id = '{A}'")
        self.too_many(insert(A) + " ON CONFLICT(id) DO UPDATE SET environment = 'other'")
        self.too_many(insert(B) + " ON CONFLICT(id) DO UPDATE SET environment = 'e1'")
        self.sql("UPDATE apikeyd.keys SET environment = 'e2' WHERE environment = 'e1'")
        self.assertEqual(self.count(), 14)
        self.sql(insert(B, environment="'other'"))
        self.too_many(insert(C, environment="'another'"))
        self.sql("DELETE FROM apikeyd.keys WHERE environment = 'e2'", insert(C, environment="'another'"))
        self.assertEqual(self.count(), 15)

    def test_those_that_came_unseen_count(self):
        self.sql("BEGIN", "ALTER TABLE apikeyd.keys DISABLE TRIGGER USER", insert_many(15, environment="'e' || n"),
                 "ALTER TABLE apikeyd.keys ENABLE TRIGGER USER", "COMMIT", user="store_owner")  # fmt: skip
        self.too_many(insert(A))
        self.sql(insert(A, environment="'e1'"))

    def race(self, isolation, end, state, one="'one'", two="'two'"):
        self.fill(14)
        first, second = self.session(), self.session()
        for session in (first, second):
            session.run(f"BEGIN ISOLATION LEVEL {isolation}")
            session.run("SELECT count(*) FROM apikeyd.keys")  # its snapshot
        first.run(insert(A, environment=one))
        second.send(insert(B, environment=two))
        self.server.wait_until_blocked(second)
        # Nobody waits but who brings a new one.
        self.sql(
            "SET lock_timeout = '1ms'",
            insert(C, environment="'e1'"),
            "UPDATE apikeyd.keys SET environment = 'e2' WHERE environment = 'e1'",
        )
        self.sql(
            "SET lock_timeout = '1ms'",
            "DELETE FROM apikeyd.keys WHERE environment = 'e2'",
            insert_many(2, 1, "'e' || n"),
        )
        first.run(end)
        if state:
            with self.assertRaises(SqlError) as caught:
                second.receive()
            self.assertEqual(caught.exception.state, state, caught.exception)
            second.run("ROLLBACK")
        else:
            second.receive()
            second.run("COMMIT")
        self.assertEqual(self.count(), 15)

    def test_two_that_each_bring_the_last(self):
        self.race("READ COMMITTED", "COMMIT", "23514")

    def test_two_that_cannot_see_each_other(self):
        self.race("REPEATABLE READ", "COMMIT", "40001")

    def test_two_that_bring_the_same(self):
        self.race("READ COMMITTED", "COMMIT", None, two="'one'")

    def test_two_of_which_one_gives_up(self):
        self.race("READ COMMITTED", "ROLLBACK", None)
        self.assertEqual(self.sql("SELECT name FROM apikeyd.environments WHERE name IN ('one', 'two')"), [("two",)])

    def test_one_whose_last_key_goes_while_another_gets_it(self):
        """The key that is not committed yet is seen by nobody else, and still it has the environment."""
        self.fill(15)
        first = self.session()
        first.run("BEGIN")
        first.run(insert(A, environment="'e1'"))
        self.sql("DELETE FROM apikeyd.keys WHERE environment = 'e1'")
        self.too_many(insert(B, environment="'other'"))
        first.run("COMMIT")
        self.assertEqual(self.count(), 15)

    def test_one_that_waited_for_who_brought_it(self):
        self.fill(14)
        first, second = self.session(), self.session()
        for session in (first, second):
            session.run("BEGIN")
        first.run(insert(A, environment="'one'"))
        second.send(insert(B, environment="'one'"))
        self.server.wait_until_blocked(second)
        first.run("COMMIT")
        second.receive()
        # It has it now, though nobody sees a key that does; and its turn is over with it, not before.
        self.sql(f"DELETE FROM apikeyd.keys WHERE id = '{A}'")
        first.run("BEGIN")
        first.send(insert(C, environment="'two'"))
        self.server.wait_until_blocked(first)
        second.run("COMMIT")
        with self.assertRaises(SqlError) as caught:
            first.receive()
        self.assertEqual(caught.exception.state, "23514")
        self.assertEqual(self.count(), 15)

    def test_no_scan_and_few_seeks(self):
        self.sql(insert_many(BULK, 100, "'e' || n % 14"))
        self.sql("VACUUM ANALYZE apikeyd.keys", user="postgres")
        plans = self.plans_of(
            insert(A, environment="'other'"), insert(B, environment="'other'"), insert(C, environment="'e1'")
        )
        self.assertIn("keys_by_environment", plans)
        self.assertNotIn("Seq Scan on keys", plans)
        # All anew in one transaction, in which an index still has all that is deleted.
        one_by_one = (
            "DO $$ BEGIN FOR n IN 1..1000 LOOP INSERT INTO apikeyd.keys(id, sha256, environment) "
            "VALUES(lpad(n::text, 12, '0'), sha256(n::text::bytea), 'e' || n % 14); END LOOP; END $$"
        )
        anew = ["BEGIN", "DELETE FROM apikeyd.keys", insert_many(1000, 5000, "'e' || n % 14"), one_by_one]
        seeks = "SELECT pg_stat_get_xact_numscans('apikeyd.keys_by_environment'::regclass)"
        (count,) = self.sql(*anew, seeks, "COMMIT")[0]
        self.assertLess(int(count), 100)


class Indexes(Store):
    # statement, its parameters, the indexes that serve it
    STATEMENTS = [
        ("SELECT environment FROM keys WHERE environment > $1 ORDER BY environment LIMIT 1", "'e1'",
         "keys_by_environment"),
        ("SELECT 1 FROM (SELECT id, environment FROM keys WHERE environment >= $1 ORDER BY environment LIMIT 2) AS k "
         "WHERE environment = $1 AND id <> $2", "'e1', 'x'", "keys_by_environment"),
        ("SELECT scopes FROM keys WHERE text_key(scopes) > text_key($1) ORDER BY text_key(scopes) LIMIT 1", "''",
         "keys_by_scopes"),
        ("SELECT id FROM keys WHERE text_key(scopes) = text_key($1) LIMIT $2", "'[\"a.b\",\"c.7\"]', 100001",
         "keys_by_scopes"),
        ("SELECT count(*) FROM keys WHERE text_key(scopes) = text_key($1)", "'[\"a.b\",\"c.7\"]'", "keys_by_scopes"),
        ("SELECT id FROM keys WHERE owner = $1 AND owner <> '' LIMIT $2", "'o7', 100001", "keys_by_owner"),
        ("SELECT count(*) FROM keys WHERE owner = $1 AND owner <> '' AND state <> 'revoked'", "'o7'", "keys_by_owner"),
        ("SELECT id FROM keys WHERE plan = $1 LIMIT $2", "'p7', 100001", "keys_by_plan"),
        ("SELECT id FROM keys WHERE plan = $1 AND limits IS NOT NULL LIMIT $2", "'p7', 100001", "keys_by_plan"),
        ("SELECT count(*) FROM keys WHERE plan = $1", "'p7'", "keys_by_plan"),
        ("SELECT name FROM owners WHERE plan = $1 LIMIT $2", "'p7', 100001", "owners_by_plan"),
        ("SELECT id FROM keys WHERE sha256 = $1 AND id <> $2", "'x', 'y'", "keys_sha256_key"),
        ("SELECT * FROM keys WHERE id = $1", "'x'", "keys_pkey"),
        ("SELECT * FROM keys WHERE rowid BETWEEN $1 AND $2 ORDER BY rowid", "1, 4096", "keys_rowid_key"),
        ("SELECT min(rowid), max(rowid) FROM keys", "", "keys_rowid_key"),
        ("SELECT plan FROM owners WHERE name = $1", "'o7'", "owners_pkey"),
        ("SELECT limits FROM plans WHERE name = $1", "'p7'", "plans_pkey"),
        ("SELECT * FROM changes WHERE xid >= $1 ORDER BY seq", "'100000'", "changes_by_xid"),
        ("SELECT mark FROM changes WHERE seq = $1", "7", "changes_pkey"),
        ("SELECT seq, mark FROM changes ORDER BY seq DESC LIMIT 1", "", "changes_pkey"),
    ]  # fmt: skip

    def test_they_serve_what_is_asked(self):
        self.sql(
            "INSERT INTO apikeyd.plans(name) SELECT 'p' || n FROM generate_series(1, 1000) n",
            "INSERT INTO apikeyd.owners(name, plan) SELECT 'o' || n, CASE WHEN n % 2 = 0 THEN 'p' || 1 + n % 1000 END "
            "FROM generate_series(1, 20000) n",
            "INSERT INTO apikeyd.keys(id, sha256, environment, owner, plan, limits, scopes) "
            "SELECT lpad(n::text, 12, '0'), sha256(n::text::bytea), 'e' || n % 3, "
            "CASE WHEN n % 2 = 0 THEN 'o' || n % 1000 ELSE '' END, "
            "CASE WHEN n % 3 = 0 THEN 'p' || 1 + n % 1000 END, CASE WHEN n % 5 = 0 THEN '[]' END, "
            "CASE WHEN n % 3 > 0 THEN '[\"a.b\",\"c.' || n % 50 || '\"]' END FROM generate_series(1, 30000) n",
        )  # fmt: skip
        self.sql("VACUUM ANALYZE", user="postgres")
        session = self.session("daemon_user")
        session.run("SET search_path = apikeyd")
        for mode in ("force_custom_plan", "force_generic_plan"):
            session.run(f"SET plan_cache_mode = {mode}")
            for statement, values, index in self.STATEMENTS:
                with self.subTest(statement, mode=mode):
                    session.run(f"PREPARE asked AS {statement}")
                    plan = "\n".join(
                        line for (line,) in session.run(f"EXPLAIN EXECUTE asked{f'({values})' if values else ''}")
                    )
                    session.run("DEALLOCATE asked")
                    self.assertIn(f" {index} ", plan)
                    self.assertNotIn("Seq Scan", plan)

    def test_long_scopes(self):
        """Hundreds of them, of which a list differs in the last only."""
        lists = ["[" + ",".join(f'"scope{n}.{"x" * 50}"' for n in range(300)) + f',"{end}"]' for end in "ab"]
        short = ['["a.*"]', "[]", ' ["b"]', '\t["ü\\\\"]', '["a"]']
        for key, scopes in zip((A, B, *(str(n) * 12 for n in range(5))), lists + short):
            self.sql(insert(key, scopes=f"'{scopes}'"))
        self.sql(insert(D), "UPDATE apikeyd.keys SET name = 'x'")
        session = self.session("daemon_user")
        session.run("SET search_path = apikeyd")
        session.run("SET enable_seqscan = off")
        seen, last = [], ""
        while last is not None:
            found = session.run(
                f"SELECT scopes FROM keys WHERE text_key(scopes) > text_key('{last}') ORDER BY text_key(scopes) LIMIT 1"
            )
            last = found[0][0] if found else None
            seen += [last] if found else []
        self.assertEqual(len(seen), 7)
        self.assertEqual(sorted(seen), sorted(lists + short))
        self.assertEqual([text for text in seen if text in short], sorted(short))
        for key, scopes in zip((A, B), lists):
            self.assertEqual(
                session.run(f"SELECT id FROM keys WHERE text_key(scopes) = text_key('{scopes}')"), [(key,)]
            )


class Trim(Store):
    def grow(self, rows, last=None):
        """By hand, as only the owner may; `last`: the number of one more row."""
        grown = "INSERT INTO apikeyd.changes(kind, name, came) SELECT 'key', 'x', 1 FROM generate_series(1, {})".format
        jump = [f"SELECT setval('apikeyd.changes_seq_seq', {last - 1})", grown(1)] if last else []
        self.sql(grown(rows), *jump, user="store_owner")

    def trim(self, user="daemon_user"):
        return int(self.sql("SELECT apikeyd.trim_changes()", user=user)[0][0])

    def trimmed(self):
        return int(self.sql("SELECT trimmed FROM apikeyd.store")[0][0])

    def xid_at(self, seq):
        return int(self.sql(f"SELECT xid FROM apikeyd.changes WHERE seq = {seq}")[0][0])

    def test_the_newest_are_left(self):
        self.assertEqual(self.trim(), 0)
        self.grow(30_000)
        self.grow(30_000, last=LOG_ROWS)
        self.assertEqual((self.trim(), self.trimmed()), (0, 0))
        self.grow(1, last=LOG_ROWS + 55_000)
        first, second = self.xid_at(1), self.xid_at(50_000)
        self.assertLess(first, second)
        self.assertEqual([self.trim("tool_user"), self.trimmed()], [50_000, second])
        self.assertEqual([self.trim(), self.trimmed()], [5_000, second])
        self.assertEqual([self.trim(), self.trimmed()], [0, second])
        self.assertEqual(self.sql("SELECT min(seq) FROM apikeyd.changes"), [("55001",)])
        # What was written first, and is deleted last, is not the latest.
        self.sql(f"UPDATE apikeyd.changes SET xid = '{first}' WHERE seq <= 60000", user="store_owner")
        self.grow(1, last=LOG_ROWS + 60_000)
        self.assertEqual([self.trim(), self.trimmed()], [5_000, second])

    def test_nothing_that_came_after_the_oldest_open_transaction(self):
        self.grow(10)
        open_one = self.session()
        open_one.run("BEGIN")
        open_one.run(insert(A))
        self.grow(10, last=LOG_ROWS + 15)
        self.assertEqual(self.trim(), 10)  # the 11th is of the open one, and four of a later one
        self.assertEqual(self.trim(), 0)
        open_one.run("COMMIT")
        self.assertEqual(self.trim(), 5)

    def test_it_waits_for_nobody_and_nobody_for_it(self):
        self.grow(10, last=LOG_ROWS + 10)
        bringer, trimmer = self.session(), self.session("daemon_user")
        bringer.run("BEGIN")
        bringer.run(insert(A, environment="'new'"))
        trimmer.run("BEGIN")
        self.assertEqual(trimmer.run("SELECT apikeyd.trim_changes()"), [("10",)])
        quickly = "SET lock_timeout = '1ms'"
        self.assertEqual(self.sql(quickly, "SELECT apikeyd.trim_changes()", user="daemon_user"), [("0",)])
        self.sql(quickly, insert(B, environment="''", foreign="1"), "DELETE FROM apikeyd.keys")
        bringer.run("COMMIT")
        self.sql(quickly, insert(C, environment="'newer'"))
        trimmer.run("COMMIT")

    def test_what_its_owner_deletes_is_known(self):
        self.sql(insert(A), insert(B))
        latest = int(self.sql("SELECT xid FROM apikeyd.changes ORDER BY seq DESC LIMIT 1")[0][0])
        self.sql("DELETE FROM apikeyd.changes", user="store_owner")
        self.assertEqual(self.trimmed(), latest)
        self.sql("DELETE FROM apikeyd.changes", user="store_owner")
        self.assertEqual(self.trimmed(), latest)
        self.sql(insert(C))
        self.assertEqual(self.told("TRUNCATE apikeyd.changes", user="store_owner"), [everything("changes")])
        self.assertEqual(self.trimmed(), 0)


class Rights(Store):
    ANYTHING = ["SELECT count(*) FROM apikeyd.{}", "INSERT INTO apikeyd.{} DEFAULT VALUES",
                "UPDATE apikeyd.{} SET {} = {}", "DELETE FROM apikeyd.{}", "TRUNCATE apikeyd.{} CASCADE",
                "SELECT 1 FROM apikeyd.{} FOR KEY SHARE"]  # fmt: skip
    COLUMNS = {"store": "one", "environment_turn": "one", "known_environments": "name", "scopes": "name",
               "plans": "name", "owners": "name", "keys": "id", "changes": "name", "environments": "name",
               "hosts": "name", "usage_stores": "host", "usage_keys": "key_id", "usage_codes": "code",
               "usage": "host"}  # fmt: skip
    CHANGED = ("scopes", "plans", "owners", "keys")
    DELETED = {("hosts", "DELETE"), ("usage_keys", "DELETE"), ("usage_codes", "DELETE")}

    def attempts(self, user, may):
        """`may`: whether it may do this to this table."""
        session = self.session(user)
        for table, column in self.COLUMNS.items():
            for attempt in self.ANYTHING:
                statement = attempt.format(table, column, column)
                with self.subTest(statement, user=user):
                    session.run("BEGIN")
                    try:
                        session.run(statement)
                        state = None
                    except SqlError as error:
                        state = error.state
                    session.run("ROLLBACK")
                    # No rule says what a change of the view means.
                    allowed = state not in ("42501", "55000", "42809")
                    self.assertEqual(allowed, may(table, attempt.split()[0], statement), state)

    def test_who_reads(self):
        self.attempts(
            "daemon_user", lambda table, verb, statement: verb == "SELECT" and "FOR KEY SHARE" not in statement
        )

    def test_who_changes(self):
        def may(table, verb, statement):
            if table in self.CHANGED:
                return verb != "TRUNCATE"
            return verb == "SELECT" and "FOR KEY SHARE" not in statement or (table, verb) in self.DELETED

        self.attempts("tool_user", may)
        self.sql(
            "INSERT INTO apikeyd.plans(name) VALUES('free')",
            "INSERT INTO apikeyd.owners(name, plan) VALUES('o', 'free')",
            insert(A, plan="'free'", scopes="'[]'"),
        )

    def test_everybody_else(self):
        self.sql(
            "DO $$ BEGIN IF to_regrole('stranger') IS NULL THEN CREATE ROLE stranger LOGIN; END IF; END $$",
            user="postgres",
        )
        self.attempts("stranger", lambda *_: False)
        for call in ("trim_changes()", "text_key('x')"):
            self.refused("42501", f"SELECT apikeyd.{call}", user="stranger")
        for privilege in ("USAGE", "CREATE"):
            asked = f"SELECT has_schema_privilege('stranger', 'apikeyd', '{privilege}')"
            self.assertEqual(self.sql(asked), [("f",)])

    def test_nobody_makes_anything_or_calls_a_trigger(self):
        ours = "pronamespace = 'apikeyd'::regnamespace AND prorettype = 'trigger'::regtype"
        functions = self.sql(f"SELECT proname FROM pg_proc WHERE {ours}")
        self.assertGreaterEqual(len(functions), 7)
        for user in ("daemon_user", "tool_user"):
            self.refused("42501", "CREATE TABLE apikeyd.x()", user=user)
            self.refused("42501", "SELECT nextval('apikeyd.changes_seq_seq')", user=user)
            self.refused("42501", "ALTER TABLE apikeyd.keys DISABLE TRIGGER USER", user=user)
            self.refused("42501", "SET session_replication_role = replica", user=user)
            for (function,) in functions:
                # Else it would write, with its owner's rights, what the maker of the table likes.
                trigger = f"CREATE TRIGGER t AFTER TRUNCATE ON t EXECUTE FUNCTION apikeyd.{function}()"
                self.refused("42501", "CREATE TEMP TABLE t(id text)", trigger, user=user)

    def test_functions_with_their_owners_rights_look_nowhere_else(self):
        functions = self.sql(
            "SELECT proname, proconfig[1] FROM pg_proc WHERE pronamespace = 'apikeyd'::regnamespace AND prosecdef"
        )
        self.assertEqual({path for _, path in functions}, {"search_path=pg_catalog, apikeyd, pg_temp"}, functions)

    def test_the_owner_is_no_superuser(self):
        self.assertEqual(
            self.sql("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'apikeyd'"), [("store_owner",)]
        )
        self.assertEqual(self.sql("SELECT rolsuper FROM pg_roles WHERE rolname = 'store_owner'"), [("f",)])
        self.assertEqual(self.sql("SELECT rolname, rolcanlogin FROM pg_roles WHERE rolname LIKE 'apikeyd%' ORDER BY 1"),
                         [("apikeyd_reader", "f"), ("apikeyd_writer", "f")])  # fmt: skip


class Making(Store):
    def content(self, db):
        """Each table's rows, and what an owner or a right is."""
        tables = (
            "store", "environment_turn", "known_environments", "scopes", "plans", "owners", "keys", "changes", "hosts",
            "usage_stores", "usage_keys", "usage_codes",
        )
        content = {table: sorted(self.server.psql(f"SELECT t::text FROM apikeyd.{table} t", db)) for table in tables}
        content["acl"] = sorted(map(str, self.server.psql(
            "SELECT relname, relowner::regrole, relacl FROM pg_class "
            "WHERE relnamespace = 'apikeyd'::regnamespace AND relkind IN ('r', 'v') UNION ALL "
            "SELECT proname, proowner::regrole, proacl FROM pg_proc WHERE pronamespace = 'apikeyd'::regnamespace "
            "UNION ALL "
            "SELECT tgname, NULL, NULL FROM pg_trigger WHERE NOT tgisinternal AND tgenabled = 'A'", db
        )))  # fmt: skip
        return content

    def run_schema(self, db, *options, user="store_owner"):
        command = self.server.client("psql", db, user, "-Xq", *options, "-f", str(OPTIONS.schema))
        return subprocess.run(command, capture_output=True, text=True, env=postgres_server.environment(), check=False)

    def test_a_second_time_changes_nothing(self):
        self.sql(insert(A))
        before = self.content(self.db)
        for options in (("-v", "ON_ERROR_STOP=1"), ()):
            done = self.run_schema(self.db, *options)
            self.assertIn('schema "apikeyd" already exists', done.stderr)
            self.assertEqual(self.content(self.db), before)
        self.assertEqual(self.run_schema(self.db, "-v", "ON_ERROR_STOP=1").returncode, 3)

    def test_stores_are_not_the_same(self):
        other = "other"
        self.server.create_store(other, OPTIONS.schema)
        self.addCleanup(self.server.psql, f"DROP DATABASE {other}")
        asked = "SELECT encode(uid, 'hex'), length(uid), version, trimmed FROM apikeyd.store"
        stores = [self.server.psql(asked, db)[0] for db in (self.db, other)]
        self.assertNotEqual(stores[0][0], stores[1][0])
        self.assertEqual({store[1:] for store in stores}, {("16", "1", "0")})
        self.refused("23505", "INSERT INTO apikeyd.store DEFAULT VALUES", user="store_owner")

    def test_a_database_of_another_encoding(self):
        other = "other"
        self.server.psql(f"CREATE DATABASE {other} OWNER store_owner ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        self.addCleanup(self.server.psql, f"DROP DATABASE {other}")
        self.assertIn("the database has the encoding LATIN1: a key store wants UTF8", self.run_schema(other).stderr)
        self.assertEqual(self.server.psql("SELECT 1 FROM pg_namespace WHERE nspname = 'apikeyd'", other), [])

    def forget(self, db):
        for place in [place for place in self.connections if place[0] == db]:
            self.connections.pop(place).close()
        self.server.psql(f"DROP DATABASE {db} WITH (FORCE)")

    def dump_and_restore(self, dump, restore):
        """Into another database of the same server."""
        self.sql(
            "INSERT INTO apikeyd.plans(name, limits) VALUES('free', '[\"a=1/s\"]')",
            "INSERT INTO apikeyd.owners(name, plan) VALUES('o', 'free')",
            insert(A, B, plan="'free'", owner="'o'", scopes="'[\"a.\\\\b\"]'"),
            insert(C, state="'revoked'", environment="'test'"),
            f"DELETE FROM apikeyd.keys WHERE id = '{B}'",
        )
        copy, file = "copy", self.server.top / "dump"
        self.server.psql(f"CREATE DATABASE {copy} TEMPLATE template0")
        self.addCleanup(self.forget, copy)
        for db, (program, *options) in ((self.db, [*dump, "-f", file]), (copy, [*restore, file])):
            command = self.server.client(program, db, "postgres", *options)
            done = subprocess.run(
                command, capture_output=True, text=True, env=postgres_server.environment(), check=False
            )
            self.assertEqual((done.returncode, done.stderr), (0, ""), command)
        self.assertEqual(self.content(copy), self.content(self.db))
        last = self.last()
        self.db = copy
        self.assertEqual(self.told(insert(D, scopes="'[]'")), [came("key", D)])
        self.assertGreater(self.last(), last)
        self.assertEqual(self.told(f"UPDATE apikeyd.keys SET name = 'x' WHERE id = '{A}'"), [went("key", A)])
        self.refused("23514", "UPDATE apikeyd.keys SET state = 'active'", message=STAYS_REVOKED)
        self.refused("23514", insert_many(14, 1, "'e' || n"), message=ONE_TOO_MANY)
        self.refused("23503", "DELETE FROM apikeyd.plans")
        self.refused("42501", insert(B), user="daemon_user")
        self.assertEqual(self.sql("SELECT apikeyd.trim_changes()", user="daemon_user"), [("0",)])

    def test_a_plain_dump(self):
        self.dump_and_restore(["pg_dump"], ["psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f"])

    def test_a_dump_of_inserts(self):
        self.dump_and_restore(
            ["pg_dump", "--column-inserts"], ["psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f"]
        )

    def test_a_custom_dump(self):
        self.dump_and_restore(["pg_dump", "-Fc"], ["pg_restore", "--exit-on-error"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--schema", type=pathlib.Path, default=postgres_server.SCHEMA)
    _, rest = parser.parse_known_args(namespace=OPTIONS)
    # A test that is ended from outside still stops its server and removes its files.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)


if __name__ == "__main__":
    main()
