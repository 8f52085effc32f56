#!/usr/bin/env python3
"""Promise: a host that starts without its source serves what the source said last, says so everywhere, and goes over to
the source when that is back; a revocation that was told as done is in what it serves."""

import contextlib
import random
import shutil
import sqlite3
import stat
import subprocess
import threading
import unittest

import apikeyctl_test
import sqlite_store_test
from live_daemon import make_key

DAY_S = 86400


class Kept(sqlite_store_test.Store):
    """An instance with a snapshot, whose key set is a database that can be taken away."""

    def setUp(self):
        super().setUp()
        self.snapshot = self.top / "keys.snapshot"
        self.away = self.top / "away"
        self.away.mkdir()

    def configure(self, reload):
        super().configure(reload)
        with self.config.open("a") as config:
            config.write(f"snapshot: {{file: {self.top}/keys.snapshot}}\n")

    def take_away(self, back=False):
        """While nobody has it open; with what SQLite keeps beside it."""
        source, target = (self.away, self.top) if back else (self.top, self.away)
        for path in sorted(source.glob("keys.[dy]*"), reverse=True):  # the database itself comes back last
            path.rename(target / path.name)

    def cold(self):
        """As after a reboot."""
        self.kill()
        shutil.rmtree(self.top / "run")

    def age(self, seconds):
        with contextlib.closing(sqlite3.connect(self.snapshot, isolation_level=None)) as shell:
            shell.execute("UPDATE snapshot SET taken = strftime('%s') - ?", (seconds,))
            (taken,) = shell.execute("SELECT taken FROM snapshot").fetchone()
            return taken

    def use(self):
        return self.json("status")["snapshot"]

    def verdicts(self, *keys):
        with contextlib.suppress(AssertionError):
            return self.json("verify", stdin="".join(key + "\n" for key in keys), status=0)
        return self.json("verify", stdin="".join(key + "\n" for key in keys), status=1)


class ColdBoots(Kept):
    def test_without_the_database_what_it_said_last_is_served(self):
        self.start()
        self.ctl("scope", "create", "reports.read")
        self.ctl("plan", "create", "free", "--limit", "burst=100/s")
        self.ctl("owner", "create", "acme", "--plan", "free")
        good_id, good = self.issue("--owner", "acme", "--plan", "free", "--scope", "reports.read", "--name", "CI")
        revoked_id, revoked = self.issue()
        self.ctl("revoke", revoked_id)
        deleted_id, deleted = self.issue()
        self.ctl("delete", deleted_id)
        self.assertEqual(self.use(), {"in_use": False, "taken": None, "problem": None})
        self.assertIn("kept", self.ctl("status"))
        self.assertEqual(stat.S_IMODE(self.snapshot.stat().st_mode), 0o600)

        self.cold()
        self.take_away()
        taken = self.age(3600)
        self.start()
        codes = [answer["code"] for answer in self.verdicts(good, revoked, deleted)]
        self.assertEqual(codes, ["VALID", "REVOKED", "NOT_FOUND"])
        self.assertEqual([answer["stale"] for answer in self.verdicts(good)], [True])
        use = self.use()
        self.assertEqual((use["in_use"], apikeyctl_test.rfc3339(use["taken"])), (True, taken))
        status = self.json("status")
        self.assertEqual((status["loaded"], status["keys"]), (use["taken"], 2))
        self.assertIn("there is none yet", status["load_error"])
        self.assertIn(f"serving from a snapshot of {use['taken']}: key store {self.store}", self.ctl("status"))
        findings = {finding["check"]: finding for finding in self.json("doctor", status=1) if finding["level"] != "ok"}
        self.assertIn(use["taken"], findings["snapshot"]["detail"])
        self.assertEqual((findings["snapshot"]["level"], findings["heartbeat"]["level"]), ("warn", "warn"))
        self.assertEqual(self.events("snapshot.in_use"), 1)
        self.assertIn("event=source.load", (self.top / "audit").read_text().splitlines()[-1])
        self.assertIn("in its place serves the snapshot", (self.top / "audit").read_text().splitlines()[-1])
        # A daemon after it knows what it serves.
        self.kill()
        self.start()
        self.assertEqual([answer["stale"] for answer in self.verdicts(good)], [True])
        self.assertEqual((self.use()["in_use"], self.use()["taken"]), (True, use["taken"]))
        self.assertIn("there is none yet", self.json("status")["load_error"])
        # What the tool cannot record it does not put in force, and nobody is told that the source was read.
        self.ctl("revoke", good_id, status=3)
        self.ctl("reload", status=1)
        self.assertEqual([answer["code"] for answer in self.verdicts(good)], ["VALID"])

        self.take_away(back=True)
        self.wait_for(lambda: not self.use()["in_use"])
        answer = self.verdicts(good)[0]
        self.assertEqual((answer["code"], answer["stale"]), ("VALID", False))
        self.assertEqual((answer["owner"], answer["name"]), ("acme", "CI"))
        self.assertIsNone(self.json("status")["load_error"])
        self.assertEqual(self.events("snapshot.replaced"), 1)
        self.ctl("revoke", good_id)
        self.assertEqual(self.codes_of(good), ["REVOKED"])

    def test_what_was_changed_meanwhile_is_in_force_when_the_database_is_back(self):
        self.start()
        keys = [self.issue() for _ in range(12)]
        self.cold()
        self.take_away()
        self.start()
        self.assertEqual(self.codes_of(*[key for _, key in keys]), ["VALID"] * 12)
        new = make_key()
        self.store = self.away / "keys.db"
        self.sql(("UPDATE keys SET state = 'revoked' WHERE id = ?", (keys[0][0],)), self.insert(new))
        self.take_away(back=True)
        self.wait_for(lambda: self.codes_of(keys[0][1]) == ["REVOKED"])
        self.assertEqual(self.codes_of(new), ["VALID"])
        self.assertFalse(self.use()["in_use"])

    def test_a_database_that_is_back_with_too_few_keys_is_refused_as_ever(self):
        self.start()
        keys = [self.issue() for _ in range(12)]
        self.cold()
        self.take_away()
        self.age(3600)
        self.start()
        self.store = self.away / "keys.db"
        self.sql(("DELETE FROM keys WHERE id <> ?", (keys[0][0],)))
        self.take_away(back=True)
        self.wait_for(lambda: "would remove 11 of 12 keys" in (self.json("status")["load_error"] or ""))
        self.assertEqual([answer["stale"] for answer in self.verdicts(keys[1][1])], [True])
        self.assertTrue(self.use()["in_use"])
        self.ctl("reload", "--force")
        self.assertFalse(self.use()["in_use"])
        self.assertEqual(self.codes_of(keys[0][1], keys[1][1]), ["VALID", "NOT_FOUND"])

    def test_one_that_is_too_old_is_not_used(self):
        self.start()
        _, key = self.issue()
        self.cold()
        self.take_away()
        self.age(7 * DAY_S + 60)
        self.start()
        self.json("verify", stdin=key + "\n", status=3)
        self.assertIn("longer ago than snapshot.max_age_h", self.json("status")["load_error"])
        self.assertFalse(self.use()["in_use"])
        self.take_away(back=True)
        self.becomes(key, "VALID")

    def test_a_restart_that_finds_the_table_does_not_use_it(self):
        self.start()
        issued, key = self.issue()
        self.kill()
        with contextlib.closing(sqlite3.connect(self.snapshot, isolation_level=None)) as shell:
            shell.execute("UPDATE keys SET state = 'disabled'")
        self.take_away()
        self.start()
        self.assertEqual(self.codes_of(key), ["VALID"])
        self.assertFalse(self.use()["in_use"])
        self.assertIn("there is none yet", self.json("status")["load_error"])
        self.take_away(back=True)
        self.wait_for(lambda: self.json("status")["load_error"] is None)

    def test_a_stop_writes_when_it_was_known_last(self):
        self.start()
        self.issue()
        self.daemon.terminate()
        self.daemon.wait()
        taken = self.age(3600)
        self.start()
        self.daemon.terminate()
        self.daemon.wait()
        with contextlib.closing(sqlite3.connect(self.snapshot)) as shell:
            self.assertGreater(shell.execute("SELECT taken FROM snapshot").fetchone()[0], taken + 3000)


class OfAText(Kept):
    def configure(self, reload):
        apikeyctl_test.Ctl.configure(self, reload)
        with self.config.open("a") as config:
            config.write(f"snapshot: {{file: {self.top}/keys.snapshot, max_age_h: 1}}\n")

    def test_the_life_of_a_snapshot(self):
        self.keys.write_text("keys: []\n")
        self.start()
        first_id, first = self.issue()
        _, second = self.issue()
        self.ctl("revoke", first_id)
        self.cold()
        self.take_away()
        self.start()
        self.assertEqual(self.codes_of(first, second), ["REVOKED", "VALID"])
        self.assertTrue(self.use()["in_use"])
        self.take_away(back=True)
        self.wait_for(lambda: not self.use()["in_use"])


class Files(Kept):
    def test_another_programs_file_is_left_alone(self):
        self.snapshot.write_text("precious\n")
        checked = subprocess.run([apikeyctl_test.OPTIONS.daemon, "--config", self.config, "--check"],
                                 stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, check=False)  # fmt: skip
        self.assertRegex(checked.stderr, r"apikeyd.yaml:\d+:\d+: snapshot.file: snapshot .*: is another program's file")
        self.start()
        _, key = self.issue()
        self.wait_for(lambda: self.events("snapshot.failed") == 1)
        self.assertIn("another program's", self.use()["problem"])
        self.assertIn("not written: ", self.ctl("status"))
        self.assertEqual(self.codes_of(key), ["VALID"])
        self.assertEqual(self.snapshot.read_text(), "precious\n")

    def test_a_check_writes_nothing(self):
        self.ctl("scope", "create", "a.b", status=3)
        done = subprocess.run([apikeyctl_test.OPTIONS.daemon, "--config", self.config, "--check"],
                              stderr=subprocess.PIPE, text=True, check=False, stdout=subprocess.DEVNULL)  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertFalse(self.snapshot.exists())

    def test_no_plaintext_is_in_it(self):
        self.start()
        keys = [self.issue("--name", "of the team")[1] for _ in range(3)]
        for path in self.top.glob("keys.snapshot*"):
            for key in keys:
                self.assertNotIn(key[-33:].encode(), path.read_bytes(), path)
        beside = {"keys.snapshot-wal", "keys.snapshot-shm"}
        self.assertEqual({path.name for path in self.top.glob("*snapshot*")} - beside, {"keys.snapshot"})


class Kills(Kept):
    KEYS = 40

    def test_no_revocation_that_was_told_as_done_is_undone(self):
        self.start()
        for number in range(6):
            keys = [self.issue() for _ in range(self.KEYS)]
            told, asked, stop = [], [], threading.Event()

            def revoke(mine):
                for issued, key in mine:
                    if stop.is_set():
                        return
                    asked.append(key)
                    done = subprocess.run([apikeyctl_test.OPTIONS.tool, "--config", self.config, "revoke", issued],
                                          stderr=subprocess.DEVNULL, check=False)  # fmt: skip
                    if done.returncode == 0:
                        told.append(key)

            def insert():
                while not stop.is_set():
                    with contextlib.suppress(sqlite3.OperationalError):
                        self.sql(self.insert(make_key()))

            others = [threading.Thread(target=revoke, args=(keys[part::2],)) for part in range(2)]
            others.append(threading.Thread(target=insert))
            for other in others:
                other.start()
            wanted = random.randrange(1, self.KEYS - 5)
            self.wait_for(lambda: len(told) >= wanted)
            self.kill()
            stop.set()
            for other in others:
                other.join()
            shutil.rmtree(self.top / "run")
            self.take_away()
            self.start()
            codes = dict(zip((key for _, key in keys), self.codes_of(*[key for _, key in keys])))
            with self.subTest(round=number, told=len(told)):
                self.assertTrue(self.use()["in_use"])
                self.assertEqual({codes[key] for key in told}, {"REVOKED"})
                self.assertLessEqual({codes[key] for key in asked}, {"REVOKED", "VALID"})
                self.assertLessEqual({codes[key] for _, key in keys if key not in asked}, {"VALID"})
            self.take_away(back=True)
            self.wait_for(lambda: not self.use()["in_use"])


if __name__ == "__main__":
    apikeyctl_test.main()
