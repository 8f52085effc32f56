#!/usr/bin/env python3
"""Promise: shm/LAYOUT.md is the whole contract. A reader written from it alone, in another language, finds in a live table
what the source says, row by row, and the counts of what was validated."""

import hashlib
import json
import subprocess
import unittest

from live_daemon import PATIENCE_S, LiveDaemon, binary, key_id, make_key, wait_until
from segment_reader import ACTIVE, DISABLED, NEVER, REVOKED, Instance

STATES = {"active": ACTIVE, "disabled": DISABLED, "revoked": REVOKED}
VALID, NOT_FOUND, REVOKED_CODE = 0, 2, 3
SUPERSEDED = 4  # control's state
EXPIRES_S = 4102444800  # 2100-01-01


class SegmentReader(unittest.TestCase):
    def setUp(self):
        self.daemon = LiveDaemon(binary("APIKEYD"))
        self.addCleanup(self.daemon.close)

    def read(self):
        return Instance(self.daemon.directory / self.daemon.instance)

    def fields(self, number):
        """A row's fields, all of them in all their forms."""
        fields = {"environment": ("live", "test", "eu1")[number % 3]}
        if number % 4 == 1:
            fields["state"] = ("active", "disabled", "revoked")[number // 4 % 3]
        if number % 5 == 1:
            fields["expires"] = "2100-01-01T00:00:00Z"
        if number % 3 == 1:
            fields["owner"] = f"owner-{number % 7}"
        if number % 6 == 1:
            fields |= {"name": f"name Ä {number}", "created": "2026-01-02T03:04:05Z", "metadata": {"n": number}}
        return fields

    def add(self, count):
        for _ in range(count):
            number = len(self.daemon.rows)
            fields = self.fields(number)
            self.daemon.rows[make_key(fields["environment"])] = fields

    def check_rows(self, instance):
        """Table equals source; each key is found by probing, at the slot that names it."""
        table = instance.table
        found = {row.id: row for row in table.rows()}
        self.assertEqual(len(found), len(self.daemon.rows))
        self.assertEqual(table.live, len(self.daemon.rows))
        away = 0
        for key, fields in self.daemon.rows.items():
            row = found[key_id(key)]
            index, lines = table.find(key.encode())
            self.assertEqual(index, row.index, key_id(key))
            away += lines > 1
            self.assertEqual(row.digest20, hashlib.sha256(key.encode()).digest()[:20])
            self.assertEqual(row.state, STATES[fields.get("state", "active")])
            self.assertEqual(row.expires, EXPIRES_S if "expires" in fields else NEVER)
            for name in ("environment", "owner", "name"):
                self.assertEqual(getattr(row, name), fields.get(name, ""))
            self.assertEqual(json.loads(row.metadata or "{}"), fields.get("metadata", {}))
            self.assertEqual(row.created, 1767323045 if "created" in fields else 0)
            self.assertFalse(row.foreign)
        for _ in range(200):
            self.assertIsNone(table.find(make_key().encode())[0])
        return away

    def test_every_row_is_where_the_page_says(self):
        self.add(1500)
        self.daemon.start()
        instance = self.read()
        self.assertEqual((instance.state, instance.next), (2, instance.current))
        # At the load a table is built with, the seeds leave about one key in ninety away from home.
        self.assertLess(self.check_rows(instance), 1500 // 20)
        fingerprint = hashlib.sha256(self.daemon.key_set.read_bytes()).digest()[:8]
        self.assertEqual(instance.fingerprint, fingerprint)

    def test_changes_in_place_and_growth(self):
        self.add(100)
        self.daemon.start()
        first = self.read()
        keys = list(self.daemon.rows)
        self.daemon.rows[keys[0]]["state"] = "revoked"
        del self.daemon.rows[keys[1]]
        self.daemon.apply_keys()
        second = self.read()
        self.assertEqual(second.current, first.current)
        self.assertGreater(second.position, first.position)
        self.assertEqual(second.table.dead, 1)
        self.check_rows(second)
        self.add(2000)
        self.daemon.apply_keys()
        third = self.read()
        self.assertGreater(third.current, first.current)
        self.check_rows(third)

    def test_what_the_source_does_not_say_does_not_last(self):
        self.add(50)
        self.daemon.start()
        stranger, known = make_key(), next(iter(self.daemon.rows))
        rows = [
            {"id": key_id(key), "sha256": hashlib.sha256(key.encode()).hexdigest(), "environment": "live", "state": state}
            for key, state in ((stranger, "active"), (known, "disabled"))
        ]
        answer = self.daemon.request({"verb": "apply", "before": "0" * 64, "after": "1" * 64,
                                      "changes": [{"op": "upsert", "row": row} for row in rows]})  # fmt: skip
        self.assertTrue(answer["ok"], answer)
        wait_until(lambda: self.read().table.live == len(self.daemon.rows), "the source is not read again")
        self.check_rows(self.read())

    def test_clients_of_a_lost_directory_are_told_to_look_again(self):
        self.add(10)
        self.daemon.start()
        directory = self.daemon.directory / self.daemon.instance
        aside = directory.rename(directory.with_name("aside"))
        self.assertEqual(self.daemon.process.wait(PATIENCE_S), 1)
        self.daemon.process = None
        self.assertEqual(Instance(aside).state, SUPERSEDED)

    def test_counts(self):
        self.add(50)
        self.daemon.start()
        valid = next(key for key, fields in self.daemon.rows.items() if fields.get("state", "active") == "active")
        revoked = next(key for key, fields in self.daemon.rows.items() if fields.get("state") == "revoked")
        presented = [valid] * 7 + [revoked] * 3 + [make_key()] * 2
        subprocess.run([binary("APIKEYCTL"), "--config", self.daemon.config, "verify"], check=False,
                       input="".join(key + "\n" for key in presented), stdout=subprocess.DEVNULL, text=True)  # fmt: skip
        instance = self.read()
        counts = lambda key: instance.cells.counts(instance.table.find(key.encode())[0])
        self.assertEqual((counts(valid), counts(revoked)), ((7, 0), (0, 3)))
        self.assertEqual([instance.cells.code(code) for code in (VALID, NOT_FOUND, REVOKED_CODE)], [7, 2, 3])

    def test_denials(self):
        self.daemon = LiveDaemon(binary("APIKEYD"), "denial_log: {{file: {home}/denials.log, per_second: 4}}\n")
        self.addCleanup(self.daemon.close)
        self.add(50)
        self.daemon.start()
        revoked = next(key for key, fields in self.daemon.rows.items() if fields.get("state") == "revoked")
        stranger, foreign = make_key(), "a secret of some other house"
        with subprocess.Popen([binary("APIKEYCTL"), "--config", self.daemon.config, "verify"], stdin=subprocess.PIPE,
                              stdout=subprocess.DEVNULL, text=True) as tool:  # fmt: skip
            tool.communicate("".join(key + "\n" for key in [revoked, stranger, foreign] + [revoked] * 9))
        wait_until(lambda: self.read().cells.told[REVOKED_CODE] == 10, "not told")
        instance = self.read()
        cells = instance.cells
        self.assertEqual((cells.open, cells.read), (1, cells.begun))
        self.assertEqual(cells.told, tuple({NOT_FOUND: 2, REVOKED_CODE: 10}.get(code, 0) for code in range(16)))
        denials = [cells.denial(number) for number in range(cells.begun)]
        self.assertGreaterEqual(len(denials), 3)
        self.assertEqual({denial.pid for denial in denials}, {tool.pid})
        slot = instance.table.find(revoked.encode())[0]
        self.assertEqual([denial.slot for denial in denials if denial.code == REVOKED_CODE], [slot] * (len(denials) - 2))
        self.assertEqual([denial.key_id for denial in denials if denial.key_id], [key_id(stranger)])
        self.assertEqual([denial.key_mark for denial in denials if denial.key_mark],
                         [hashlib.sha256(foreign.encode()).digest()[30:]])  # fmt: skip
        self.assertEqual({denial.address for denial in denials}, {None})
        self.assertIsNone(cells.denial(cells.begun))

    def test_denials_without_a_log(self):
        self.add(5)
        self.daemon.start()
        cells = self.read().cells
        self.assertEqual((cells.open, cells.begun, set(cells.room)), (0, 0, {0}))


if __name__ == "__main__":
    unittest.main(verbosity=2)
