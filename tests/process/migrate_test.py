#!/usr/bin/env python3
"""Promise: a store is copied into another of either kind whole or not at all, what would not go is named, and no revoked
key is accepted by the copy."""

import contextlib
import sqlite3
import threading
import unittest

import apikeyctl_test
from apikeyctl_test import KEYS_WITH_TERMS, Ctl


class Migrate(Ctl):
    FROM, TO = "yaml:{}/keys.yaml", "sqlite:{}/copy.db"

    def setUp(self):
        super().setUp()
        self.source, self.target = self.FROM.format(self.top), self.TO.format(self.top)
        self.fill(self.source)

    def fill(self, store):
        """Some of all that a store can hold."""
        self.keys.write_text(KEYS_WITH_TERMS)
        if store != f"yaml:{self.keys}":
            self.ctl("migrate", f"yaml:{self.keys}", store)
        for arguments in (["--metadata", '{"a": [1, "ä"], "b": null}', "--name", "x: 'y'"], ["--expires", "90d"]):
            self.ctl("issue", "--store", store, *arguments, status=3)
        self.revoked = self.json("list", "--store", store)[-1]["id"]
        self.ctl("revoke", "--store", store, self.revoked, status=3)

    def content(self, store):
        return [self.ctl(*verb, "--store", store, "--output", "json")
                for verb in (["export"], ["plan", "list"], ["owner", "list"], ["scope", "list"])]  # fmt: skip

    def test_all_of_it_is_copied(self):
        self.ctl("migrate", self.source, self.target)
        self.assertIn(f"{self.target}: 4 keys, 2 plans, 2 owners and 3 scopes of {self.source}", self.said)
        self.assertEqual(self.content(self.target), self.content(self.source))
        self.assertEqual(self.json("show", "--store", self.target, self.revoked)["state"], "revoked")

    def test_a_target_that_holds_something_is_left_alone(self):
        self.ctl("migrate", self.source, self.target)
        before = self.content(self.target)
        self.ctl("migrate", self.source, self.target, status=1)
        self.assertIn("holds keys, plans, owners or scopes already", self.said)
        self.ctl("migrate", self.source, self.target, "--merge")
        self.assertEqual(self.content(self.target), before)
        # One that only has a plan is not empty, either.
        empty = self.target + ".2"
        self.ctl("migrate", self.source, empty)
        for row in self.json("list", "--store", empty):
            self.ctl("delete", "--store", empty, row["id"], status=3)
        self.ctl("migrate", self.source, empty, status=1)

    def test_what_is_there_already_is_not_changed(self):
        first, second, *_ = (row["id"] for row in self.json("list", "--store", self.source))
        self.ctl("migrate", self.source, self.target)
        self.ctl("revoke", "--store", self.target, first, status=3)
        self.ctl("plan", "update", "team", "--limit", "daily=6/day", "--store", self.target, status=3)
        before = self.content(self.target)
        self.ctl("migrate", self.source, self.target, "--merge", status=1)
        self.assertIn("plan 'team': the target has one of this name that says something else", self.said)
        self.ctl("plan", "update", "team", "--limit", "daily=5/day", "--store", self.target, status=3)
        self.ctl("migrate", self.source, self.target, "--merge", status=1)
        self.assertRegex(self.said, rf"(?m)^key {first}: the target has one of this id that says something else$")
        self.assertIn("nothing was copied", self.said)
        self.assertNotIn(second, self.said)
        self.ctl("plan", "update", "team", "--limit", "daily=6/day", "--store", self.target, status=3)
        self.assertEqual(self.content(self.target), before)

    def test_what_the_target_lacks_is_added(self):
        self.ctl("migrate", self.source, self.target)
        self.ctl("issue", "--store", self.target, status=3)
        other = self.json("list", "--store", self.target)[-1]["id"]
        self.ctl("issue", "--store", self.source, status=3)
        self.ctl("migrate", self.source, self.target, "--merge")
        ids = {row["id"] for row in self.json("list", "--store", self.target)}
        self.assertEqual(ids, {row["id"] for row in self.json("list", "--store", self.source)} | {other})

    def test_the_same_file_and_no_store(self):
        self.ctl("migrate", self.source, self.source, status=2)
        self.assertIn("TO: is FROM", self.said)
        self.ctl("migrate", self.source, "somewhere", status=2)
        self.ctl("migrate", f"{self.source}.none", self.target, status=3)
        self.assertFalse((self.top / self.target.split("/")[-1]).exists())

    def test_a_daemon_that_serves_the_target_has_it_when_it_ends(self):
        served = self.target.replace("copy", "served")
        self.config.write_text(self.config.read_text().replace(f"yaml:{self.keys}", served))
        self.ctl("migrate", self.source, served)
        for row in self.json("list"):
            self.ctl("delete", row["id"], status=3)
        self.start()
        _, key = self.issue()
        self.ctl("migrate", self.source, served, "--merge")
        self.assertEqual(self.json("status")["keys"], 5)
        self.assertEqual(self.codes(key, status=0), ["VALID"])


class ToYaml(Migrate):
    FROM, TO = "sqlite:{}/keys.db", "yaml:{}/copy.yaml"

    def test_a_row_that_breaks_a_rule_keeps_all_out(self):
        with contextlib.closing(sqlite3.connect(self.top / "keys.db", isolation_level=None)) as shell:
            for number, bad in enumerate(("no time", "[1]")):
                shell.execute("INSERT INTO keys(id, sha256, environment, scopes) VALUES(?, randomblob(32), 'live', ?)",
                              (f"aaaaaaaaaaa{number}", f'["{bad}"]'))  # fmt: skip
        self.ctl("migrate", self.source, self.target, status=1)
        for number in range(2):
            self.assertRegex(self.said, rf"(?m)^key store {self.top}/keys.db: keys, id aaaaaaaaaaa{number}: scopes: ")
        self.assertTrue(self.said.endswith("nothing was copied\n"), self.said)
        self.assertFalse((self.top / "copy.yaml").exists())


class SqliteToSqlite(Migrate):
    FROM, TO = "sqlite:{}/keys.db", "sqlite:{}/copy.db"

    def is_told(self):
        """One of these falls among the writer's changes."""
        self.tries = getattr(self, "tries", 0) + 1
        with contextlib.suppress(AssertionError):
            self.ctl("migrate", self.source, f"{self.target}{self.tries}", status=1)
            return True
        return False

    def test_a_change_of_the_source_meanwhile_is_told(self):
        done = threading.Event()

        def change():
            with contextlib.closing(sqlite3.connect(self.top / "keys.db", timeout=60, isolation_level=None)) as shell:
                while not done.is_set():
                    shell.execute("UPDATE keys SET name = name || '.' WHERE id = ?", (self.revoked,))
                    shell.execute("UPDATE keys SET name = 'x' WHERE id = ?", (self.revoked,))

        writer = threading.Thread(target=change)
        writer.start()
        try:
            self.wait_for(self.is_told)
        finally:
            done.set()
            writer.join()
        self.assertIn(f"{self.top}/keys.db: was changed while it was copied", self.said)
        self.assertIn("nothing was copied", self.said)
        self.assertEqual(self.ctl("export", "--store", f"{self.target}{self.tries}"), "")


if __name__ == "__main__":
    apikeyctl_test.main()
