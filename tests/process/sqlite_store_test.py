#!/usr/bin/env python3
"""Promise: with an SQLite key store the tool and the daemon do what they do with a YAML file, and what anybody else
commits to the store is in force as well."""

import concurrent.futures
import contextlib
import hashlib
import random
import re
import sqlite3
import threading
import unittest

import apikeyctl_test
from apikeyctl_test import Ctl
from live_daemon import key_id, make_key


class Store(Ctl):
    """An instance whose key set is a database."""

    def setUp(self):
        super().setUp()
        self.keys.unlink()
        self.store = self.top / "keys.db"

    def configure(self, reload):
        self.config.write_text(
            f"source: sqlite:{self.top}/keys.db\nusage: sqlite:{self.top}/usage.db\ndirectory: {self.top}/run\n"
            f"reload: {reload}\naudit_log: {{file: {self.top}/audit}}\n"
        )

    def sql(self, *statements, checked=True):
        """As any program would, by a connection of its own; returns the last statement's rows."""
        with contextlib.closing(sqlite3.connect(self.store, timeout=60, isolation_level=None)) as shell:
            if not checked:
                shell.execute("PRAGMA ignore_check_constraints = ON")
            for statement in statements:
                rows = shell.execute(*(statement if isinstance(statement, tuple) else (statement,))).fetchall()
            return rows

    def insert(self, key, **fields):
        columns = {"id": key_id(key), "sha256": hashlib.sha256(key.encode()).digest(), "environment": "live"} | fields
        names = ", ".join(f'"{name}"' for name in columns)
        marks = ", ".join("?" * len(columns))
        return (f"INSERT INTO keys({names}) VALUES({marks})", tuple(columns.values()))

    def becomes(self, key, code):
        """Foreign changes are heard of, and nobody says when they are in force."""
        self.wait_for(lambda: self.codes_of(key) == [code])

    def codes_of(self, *keys):
        """Whatever they are, also when they become good in between."""
        for status in (0, 1):
            with contextlib.suppress(AssertionError):
                return self.codes(*keys, status=status)
        return self.codes(*keys, status=0)


class ByTheTool(Store):
    def test_the_life_of_a_key(self):
        self.start()
        self.ctl("scope", "create", "reports.read")
        self.ctl("plan", "create", "free", "--limit", "burst=100/s,burst=200", "--limit", "monthly=1000/month,shadow")
        self.ctl("owner", "create", "acme", "--plan", "free")
        issued, key = self.issue(
            "--owner", "acme", "--name", "CI", "--plan", "free", "--scope", "reports.read", "--address", "127.0.0.0/8",
            "--metadata", '{"team": "x"}', "--expires", "90d", "--limit", "burst=7/s",
        )  # fmt: skip
        shown = self.json("show", issued)
        self.assertEqual((shown["owner"], shown["name"], shown["plan"]), ("acme", "CI", "free"))
        self.assertEqual((shown["scopes"], shown["addresses"]), (["reports.read"], ["127.0.0.0/8"]))
        self.assertEqual(shown["metadata"], {"team": "x"})
        self.assertIn("7/s", str(shown["limits"]))
        self.assertEqual([row["id"] for row in self.json("list", "--owner", "acme")], [issued])
        self.ctl("update", issued, "--name", "renamed", "--clear", "addresses")
        self.assertEqual(self.json("show", issued)["name"], "renamed")
        for verb, code in (("disable", "DISABLED"), ("enable", "VALID"), ("revoke", "REVOKED")):
            self.ctl(verb, issued)
            self.assertEqual(self.codes_of(key), [code])
        self.ctl("enable", issued, status=1)
        self.assertIn("is revoked", self.said)
        self.ctl("delete", issued)
        self.assertEqual(self.codes_of(key), ["NOT_FOUND"])
        self.assertEqual(self.json("list"), [])
        self.assertEqual([row["name"] for row in self.json("plan", "list")], ["free"])

    def test_rotate(self):
        self.start()
        old_id, old = self.issue("--owner", "acme")
        new_id, new = (lambda answer: (answer["id"], answer["key"]))(self.json("rotate", old_id))
        self.assertEqual(self.codes(new, status=0), ["VALID"])
        self.assertEqual(self.codes(old, status=1), ["REVOKED"])
        self.assertEqual(self.json("show", new_id)["owner"], "acme")

    def test_without_a_daemon_a_change_is_recorded_and_in_force_after_the_start(self):
        self.start()
        first_id, first = self.issue()
        self.kill()
        self.ctl("revoke", first_id, status=3)
        self.assertIn("recorded, not in force", self.said)
        self.assertEqual(self.codes(first, status=0), ["VALID"])
        self.start()
        self.assertEqual(self.codes(first, status=1), ["REVOKED"])

    def test_two_operators_lose_nothing(self):
        self.start()
        self.issue()
        keys = []
        operators = [threading.Thread(target=lambda: keys.extend(self.issue()[1] for _ in range(10))) for _ in range(3)]
        for operator in operators:
            operator.start()
        for operator in operators:
            operator.join()
        self.assertEqual(self.codes(*keys, status=0), ["VALID"] * 30)
        self.assertEqual(self.sql("SELECT count(*) FROM keys"), [(31,)])

    def test_whatever_stands_in_a_field_is_no_sql(self):
        self.start()
        name = "x'); DROP TABLE keys; --\"\\ %s ?1"
        issued, key = self.issue("--name", name, "--owner", name, "--metadata", '{"a": "\'; DELETE FROM keys; --"}')
        self.assertEqual(self.json("show", issued)["name"], name)
        self.assertEqual([row["id"] for row in self.json("list", "--owner", name)], [issued])
        self.assertEqual(self.codes(key, status=0), ["VALID"])

    def test_a_plaintext_is_nowhere(self):
        self.start()
        _, key = self.issue()
        for path in self.top.iterdir():
            if path.is_file():
                self.assertNotIn(key[-33:].encode(), path.read_bytes(), path)

    def test_what_is_in_use_is_not_deleted(self):
        self.start()
        self.ctl("plan", "create", "free", "--limit", "burst=1/s")
        self.ctl("scope", "create", "a.b")
        issued, _ = self.issue("--plan", "free", "--scope", "a.b")
        for noun, name in (("plan", "free"), ("scope", "a.b")):
            self.ctl(noun, "delete", name, status=1)
            self.assertIn(issued, self.said)
        self.ctl("update", issued, "--clear", "plan", "--clear", "scopes")
        self.ctl("plan", "delete", "free")
        self.ctl("scope", "delete", "a.b")
        self.assertEqual((self.json("plan", "list"), self.json("scope", "list")), ([], []))


class ByOthers(Store):
    def setUp(self):
        super().setUp()
        self.start()
        self.issued, self.key = self.issue()

    def test_what_they_commit_is_in_force(self):
        other = make_key()
        self.sql(self.insert(other))
        self.becomes(other, "VALID")
        self.sql(("UPDATE keys SET state = 'revoked' WHERE id = ?", (self.issued,)))
        self.becomes(self.key, "REVOKED")
        self.sql(("DELETE FROM keys WHERE id = ?", (key_id(other),)))
        self.becomes(other, "NOT_FOUND")
        # The same id for another key, by one statement that deletes without a word.
        third = make_key()
        self.sql(self.insert(third))
        self.becomes(third, "VALID")
        statement, values = self.insert(make_key(), sha256=hashlib.sha256(third.encode()).digest())
        self.sql((statement.replace("INSERT", "INSERT OR REPLACE"), values))
        self.becomes(third, "NOT_FOUND")

    def test_a_foreign_key_goes_on_under_another_id(self):
        key = "their-own-form-of-a-key-0123456789abcdef"
        digest = hashlib.sha256(key.encode()).digest()
        self.sql(self.insert(make_key(), sha256=digest, foreign=1, id="aaaaaaaaaaaa"))
        self.becomes(key, "VALID")
        self.sql(
            "BEGIN", "DELETE FROM keys WHERE id = 'aaaaaaaaaaaa'",
            self.insert(make_key(), sha256=digest, foreign=1, id="bbbbbbbbbbbb"), "COMMIT",
        )  # fmt: skip
        self.wait_for(lambda: self.json("verify", stdin=key + "\n")[0]["id"] == "bbbbbbbbbbbb")

    def test_plans_and_owners(self):
        self.ctl("plan", "create", "free", "--limit", "burst=1000/s")
        _, key = self.issue("--plan", "free")
        limits = self.sql("SELECT limits FROM plans WHERE name = 'free'")[0][0]
        self.sql(("UPDATE plans SET limits = ?", (limits.replace("burst=1000/s", "burst=1/h"),)))
        self.wait_for(lambda: "RATE_LIMITED" in self.codes_of(key, key, key))

    def test_a_revocation_is_not_taken_back(self):
        self.ctl("revoke", self.issued)
        with self.assertRaisesRegex(sqlite3.IntegrityError, "revoked"):
            self.sql("UPDATE keys SET state = 'active'")
        self.assertEqual(self.codes(self.key, status=1), ["REVOKED"])

    def test_a_row_that_breaks_a_rule_is_left_out_and_told(self):
        bad, good = make_key(), make_key()
        self.sql(self.insert(bad, environment="LIVE"), self.insert(good), checked=False)
        self.becomes(good, "VALID")
        self.assertEqual(self.codes(bad, status=1), ["NOT_FOUND"])
        self.wait_for(lambda: self.events("source.warning") == 1)
        told = re.search(r"event=source.warning .*", self.log.read_text())[0]
        self.assertIn(key_id(bad), told)
        self.assertIn("environment", told)
        # One that was good before is not accepted any more.
        self.sql(("UPDATE keys SET environment = 'LIVE' WHERE id = ?", (key_id(good),)), checked=False)
        self.becomes(good, "NOT_FOUND")
        self.assertEqual(self.codes(self.key, status=0), ["VALID"])
        # Nor are they lost without a word.
        self.assertEqual(len(self.ctl("export", status=1).splitlines()), 1)
        self.assertIn("2 keys, plans or owners break a rule", self.said)
        self.assertIn(key_id(bad), self.said)
        self.ctl("backup", self.top / "copy", status=3)
        self.assertIn("CHECK constraint failed in keys", self.said)

    def test_nobody_restores_what_cannot_be_compared(self):
        key = make_key()
        self.sql(self.insert(key), ("UPDATE keys SET limits = '[\"nonsense\"]' WHERE id = ?", (key_id(key),)))
        self.ctl("backup", self.top / "copy")
        self.ctl("restore", self.top / "copy", status=3)
        self.assertIn(f"id {key_id(key)}: limits: ", self.said)
        self.assertIn("1 rows break a rule: mend or delete them", self.said)

    def test_with_the_tool_at_once(self):
        keys = [self.issue() for _ in range(8)]

        def change(by_tool, seed):
            draw = random.Random(seed)
            for _ in range(25):
                state, verb = draw.choice((("active", "enable"), ("disabled", "disable")))
                one = draw.choice(keys)[0]
                if by_tool:
                    self.ctl(verb, one)
                else:
                    self.sql(("UPDATE keys SET state = ? WHERE id = ?", (state, one)))

        with concurrent.futures.ThreadPoolExecutor() as operators:
            for done in [operators.submit(change, number < 2, number) for number in range(4)]:
                done.result()
        states = dict(self.sql("SELECT id, state FROM keys"))
        wanted = ["VALID" if states[one] == "active" else "DISABLED" for one, _ in keys]
        self.wait_for(lambda: self.codes_of(*(key for _, key in keys)) == wanted)

    def test_one_revocation_taken_back_does_not_hold_up_the_others(self):
        self.ctl("revoke", self.issued)
        other_id, other = self.issue()
        digest = self.sql(("SELECT sha256 FROM keys WHERE id = ?", (self.issued,)))[0][0]
        self.sql(
            "BEGIN", ("DELETE FROM keys WHERE id = ?", (self.issued,)),
            self.insert(self.key, sha256=digest), ("UPDATE keys SET state = 'disabled' WHERE id = ?", (other_id,)), "COMMIT",
        )  # fmt: skip
        self.becomes(other, "DISABLED")
        self.assertEqual(self.codes(self.key, status=1), ["REVOKED"])
        self.wait_for(lambda: "was revoked and is not any more" in self.log.read_text())
        audit = (self.top / "audit").read_text()
        self.assertRegex(audit, rf"(?m)id={other_id} .*after.state=disabled")
        self.assertNotRegex(audit, rf"(?m)id={self.issued} .*before.state=revoked")
        # Nor where all of it is read anew.
        self.kill()
        self.start()
        self.sql(("UPDATE keys SET state = 'active' WHERE id = ?", (other_id,)))
        self.becomes(other, "VALID")
        self.assertEqual(self.codes(self.key, status=1), ["REVOKED"])
        self.ctl("reload", "--force")
        self.assertEqual(self.codes(self.key, status=0), ["VALID"])

    def test_what_is_revoked_together_with_too_great_a_loss(self):
        """The loss is refused, the revocation is not, and is told once."""
        kept = make_key()
        lost = [make_key() for _ in range(15)]
        self.sql("BEGIN", *map(self.insert, [kept, *lost]), "COMMIT")
        self.becomes(lost[-1], "VALID")
        self.sql(
            "BEGIN", ("UPDATE keys SET state = 'revoked', name = 'leaked' WHERE id = ?", (self.issued,)),
            ("UPDATE keys SET state = 'disabled' WHERE id = ?", (key_id(kept),)),
            *[("DELETE FROM keys WHERE id = ?", (key_id(key),)) for key in lost], self.insert(make_key()), "COMMIT",
        )  # fmt: skip
        self.becomes(self.key, "REVOKED")
        self.assertEqual(self.codes(kept, *lost, status=0), ["VALID"] * 16)
        for _ in range(2):
            self.ctl("reload", status=1)
            self.assertIn("would remove 15 of 17 keys", self.said)
        revoked = rf"(?m)key.revoke .*id={self.issued} .*result=ok"
        self.assertEqual(len(re.findall(revoked, (self.top / "audit").read_text())), 1)
        self.assertNotIn(key_id(kept), (self.top / "audit").read_text().split("key.revoke")[-1])
        self.ctl("reload", "--force")
        self.assertEqual(self.codes(self.key, kept, *lost, status=1), ["REVOKED", "DISABLED"] + ["NOT_FOUND"] * 15)

    def test_what_was_left_out_comes_in_when_what_it_lacks_is_made(self):
        left_out = make_key()
        self.sql(self.insert(left_out, scopes='["new.scope"]'))
        self.wait_for(lambda: self.events("source.warning") == 1)
        self.assertEqual(self.codes(left_out, status=1), ["NOT_FOUND"])
        self.ctl("scope", "create", "new.scope")
        self.assertEqual(self.codes(left_out, status=0), ["VALID"])

    def test_another_file_under_the_name(self):
        self.third = self.issue()
        backup = self.top / "backup.db"
        with contextlib.closing(sqlite3.connect(self.store)) as now, contextlib.closing(sqlite3.connect(backup)) as then:
            now.backup(then)
        later_id, later = self.issue()
        self.ctl("revoke", self.issued)
        for suffix in ("-wal", "-shm"):
            (self.top / f"keys.db{suffix}").unlink(missing_ok=True)
        backup.rename(self.store)
        # It would bring a revoked key back, which nobody does by accident.
        self.ctl("reload", status=1)
        self.assertIn(f"would bring back 1 revoked keys, the first {self.issued}", self.said)
        self.assertEqual(self.codes(self.key, status=1), ["REVOKED"])
        # A revocation is in force whatever else is refused; and the refusal does not go away by itself.
        third_id, third = self.third
        self.ctl("revoke", third_id)
        self.assertEqual(self.codes(third, status=1), ["REVOKED"])
        self.ctl("reload", status=1)
        self.assertIn("would bring back", self.said)
        self.ctl("reload", "--force")
        self.assertEqual(self.codes(third, status=1), ["REVOKED"])
        self.assertEqual(self.codes(self.key, status=0), ["VALID"])
        self.assertEqual(self.codes(later, status=1), ["NOT_FOUND"])
        self.ctl("show", later_id, status=1)


if __name__ == "__main__":
    apikeyctl_test.main()
