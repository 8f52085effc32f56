#!/usr/bin/env python3
"""Promise: a backup is a whole and sound copy as of one moment, also beside writers; a restore is in force when it ends,
disturbs nobody who has the store open, and brings back no revoked key unless that is asked for."""

import contextlib
import hashlib
import os
import sqlite3
import stat
import threading
import unittest

import apikeyctl_test
from apikeyctl_test import Ctl


class Backup(Ctl):
    def setUp(self):
        super().setUp()
        self.store = self.top / self.STORE.split("/")[-1]
        self.file = self.top / "backup"
        self.start()
        self.ctl("plan", "create", "free", "--limit", "burst=1000/s")
        self.kept_id, self.kept = self.issue("--plan", "free")
        self.leaked_id, self.leaked = self.issue()

    def test_back_as_it_was(self):
        exported = self.ctl("export")
        self.ctl("backup", self.file)
        self.assertIn(f"{self.file}: 2 keys of {self.STORE.format(self.top)}", self.said)
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o600)
        self.ctl("delete", self.kept_id)
        _, later = self.issue()
        self.assertEqual(self.codes(self.kept, later, status=1), ["NOT_FOUND", "VALID"])
        self.ctl("restore", self.file)
        self.assertIn("2 keys of", self.said)
        self.assertIn("1 are back that it did not have, 1 are gone that only it had", self.said)
        self.assertEqual(self.codes(self.kept, later, status=1), ["VALID", "NOT_FOUND"])
        self.assertEqual(self.ctl("export"), exported)
        # The store goes on from there.
        _, after = self.issue()
        self.ctl("revoke", self.kept_id)
        self.assertEqual(self.codes(after, self.kept, status=1), ["VALID", "REVOKED"])
        self.assertEqual([path.name for path in self.top.iterdir() if "tmp" in path.name or path.name.startswith("backup")], ["backup"])

    def test_a_revoked_key_does_not_come_back_unasked(self):
        self.ctl("backup", self.file)
        self.ctl("revoke", self.leaked_id)
        before = self.ctl("export")
        self.ctl("restore", self.file, status=1)
        self.assertIn(f"key {self.leaked_id}: is revoked, and the backup has it not revoked", self.said)
        self.assertIn("nothing was restored", self.said)
        self.assertNotIn(self.kept_id, self.said)
        self.assertEqual(self.ctl("export"), before)
        self.ctl("delete", self.kept_id)
        self.ctl("restore", self.file, "--keep-revoked")
        self.assertIn("1 stay revoked", self.said)
        self.assertEqual(self.codes(self.leaked, self.kept, status=1), ["REVOKED", "VALID"])
        self.assertEqual(self.json("show", self.leaked_id)["state"], "revoked")
        self.ctl("restore", self.file, "--keep-revoked", "--accept-revoked", status=2)
        # The daemon knows what it had revoked, and wants to hear it as well.
        self.ctl("restore", self.file, "--accept-revoked", status=3)
        self.assertIn(f"would bring back 1 revoked keys, the first {self.leaked_id}", self.said)
        self.assertEqual(self.codes(self.leaked, self.kept, status=1), ["REVOKED", "VALID"])
        self.ctl("reload", "--force")
        self.assertEqual(self.codes(self.leaked, self.kept, status=0), ["VALID"] * 2)

    def test_a_file_that_is_there_stays(self):
        self.file.write_text("mine")
        self.ctl("backup", self.file, status=3)
        self.assertIn("is there already", self.said)
        self.assertEqual(self.file.read_text(), "mine")
        self.ctl("backup", self.file, "--replace")
        self.ctl("restore", self.file)
        content = self.store.read_bytes()
        self.ctl("backup", self.store, "--replace", status=3)
        self.assertIn("is the store itself", self.said)
        self.assertEqual(self.store.read_bytes(), content)
        self.ctl("backup", f"{self.store}.lock", "--replace", status=3)
        self.assertIn("is the store itself, or of it", self.said)
        self.ctl("backup", "/dev/null", "--replace", status=3)
        self.assertIn("/dev/null: no regular file", self.said)
        # By way of a link to a directory, which SQLite takes in no name.
        (self.top / "way").symlink_to(self.top)
        self.ctl("backup", self.top / "way" / "other")
        self.assertTrue((self.top / "other").is_file())
        self.ctl("backup", self.top / "none" / "backup", status=3)

    def test_what_is_no_backup(self):
        before = self.ctl("export")
        for content in (b"", b"\0nothing", b"keys: [x]\n"):
            self.file.write_bytes(content)
            self.ctl("restore", self.file, status=3)
            self.assertEqual(self.ctl("export"), before)
        self.file.unlink()
        self.ctl("restore", self.file, status=3)
        self.assertEqual(self.codes(self.kept, status=0), ["VALID"])

    def test_a_lost_store(self):
        self.ctl("backup", self.file)
        self.store.unlink()
        for how in ((), ("--keep-revoked",)):
            self.ctl("restore", self.file, *how, status=1)
            self.assertIn("is not there to say which keys were revoked since", self.said)
            self.assertFalse(self.store.exists())
        self.ctl("restore", self.file, "--accept-revoked")
        self.assertEqual(stat.S_IMODE(self.store.stat().st_mode), 0o600)
        self.assertEqual(len(self.json("list")), 2)
        self.ctl("revoke", self.leaked_id)
        self.assertEqual(self.codes(self.kept, self.leaked, status=1), ["VALID", "REVOKED"])

    def test_with_the_daemon_down_it_is_recorded(self):
        self.ctl("backup", self.file)
        self.ctl("delete", self.kept_id)
        self.kill()
        self.ctl("restore", self.file, status=3)
        self.assertIn("recorded, not in force", self.said)
        self.start()
        self.assertEqual(self.codes(self.kept, self.leaked, status=0), ["VALID"] * 2)


class Sqlite(Backup):
    STORE = "sqlite:{}/keys.db"

    def test_beside_writers_it_is_of_one_moment(self):
        done = threading.Event()

        def write():
            with contextlib.closing(sqlite3.connect(self.store, timeout=60, isolation_level=None)) as shell:
                number = 0
                while not done.is_set():
                    pair = [("BEGIN", ())] + [
                        ("INSERT INTO keys(id, sha256, environment) VALUES(?, ?, 'live')",
                         (f"{number:06}{half:06}", hashlib.sha256(f"{number} {half}".encode()).digest()))
                        for half in range(2)
                    ] + [("COMMIT", ())]  # fmt: skip
                    for statement in pair:
                        shell.execute(*statement)
                    number += 1

        writer = threading.Thread(target=write)
        writer.start()
        try:
            self.wait_for(lambda: len(self.json("list")) > 200)
            for number in range(5):
                self.ctl("backup", f"{self.file}{number}")
        finally:
            done.set()
            writer.join()
        counts = []
        for number in range(5):
            with contextlib.closing(sqlite3.connect(f"file:{self.file}{number}?mode=ro", uri=True)) as copy:
                counts += copy.execute("SELECT count(*) FROM keys").fetchone()
                self.assertEqual(copy.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
            self.assertFalse(os.path.exists(f"{self.file}{number}-wal"))
        self.assertEqual([count % 2 for count in counts], [0] * 5)
        self.assertEqual(counts, sorted(counts))

    def test_who_has_the_store_open_goes_on(self):
        self.ctl("backup", self.file)
        inode = self.store.stat().st_ino
        with contextlib.closing(sqlite3.connect(self.store, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            before = reader.execute("SELECT id FROM keys ORDER BY id").fetchall()
            self.ctl("delete", self.kept_id)
            self.ctl("restore", self.file)
            self.assertEqual(reader.execute("SELECT id FROM keys ORDER BY id").fetchall(), before)
            reader.execute("COMMIT")
            self.assertEqual(reader.execute("SELECT count(*) FROM keys").fetchone(), (2,))
            reader.execute("UPDATE keys SET state = 'disabled' WHERE id = ?", (self.kept_id,))
        self.assertEqual(self.store.stat().st_ino, inode)
        self.wait_for(lambda: "DISABLED" in self.ctl("verify", stdin=self.kept + "\n", status=1))

    def test_a_newer_store_and_a_damaged_one_are_no_backup(self):
        for fault, said in (("PRAGMA user_version = 99", "has version 99"), ("PRAGMA application_id = 1", "another program's")):
            self.ctl("backup", self.file, "--replace")
            with contextlib.closing(sqlite3.connect(self.file, isolation_level=None)) as shell:
                shell.execute(fault)
            self.ctl("restore", self.file, status=3)
            self.assertIn(said, self.said)
        self.ctl("backup", self.file, "--replace")
        with self.file.open("r+b") as file:
            file.seek(self.file.stat().st_size // 2)
            file.write(b"\xff" * 4096)
        self.ctl("restore", self.file, status=3)
        self.assertEqual(self.codes(self.kept, status=0), ["VALID"])


if __name__ == "__main__":
    apikeyctl_test.main()
