#!/usr/bin/env python3
"""Promise: what apikeyctl says of usage, by owner, plan, code and time, is what the store has; what it cannot say, it
refuses or names."""

import contextlib
import csv
import fcntl
import io
import os
import pty
import re
import sqlite3
import struct
import subprocess
import termios
import time
import unittest

import apikeyctl_test
from apikeyctl_test import KEY_FIELDS, Ctl

DAY_S = 86400
# Owners and plans of six keys, and one that left the set.
KEYS = """\
version: 1
plans:
  - {name: free, limits: [{name: burst, rate: 100/s}]}
  - {name: team, limits: [{name: burst, rate: 200/s}]}
  - {name: idle, limits: [{name: burst, rate: 300/s}]}
owners: [{name: acme}, {name: quiet}]
keys:
"""
ROWS = [
    ("aaaaaaaaaaaa", "acme", "free"), ("bbbbbbbbbbbb", "acme", "team"), ("cccccccccccc", "other", "free"),
    ("dddddddddddd", None, "team"), ("eeeeeeeeeeee", "other", None), ("ffffffffffff", None, None),
]  # fmt: skip
GONE = "gggggggggggg"


def rfc3339(unix_s):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_s))


class Store(Ctl):
    """An instance whose daemon is down, and whose store says what a test puts there."""

    def setUp(self):
        super().setUp()
        rows = ""
        for number, (key_id, owner, plan) in enumerate(ROWS):
            rows += f"  - {{id: {key_id}, sha256: {number:064x}, environment: live"
            rows += (f", owner: {owner}" if owner else "") + (f", plan: {plan}" if plan else "") + "}\n"
        self.keys.write_text(KEYS + rows)
        self.start()
        self.kill()
        self.day = int(time.time()) // DAY_S * DAY_S - 10 * DAY_S

    def put(self, sql, rows):
        with contextlib.closing(sqlite3.connect(self.top / "usage.db")) as store, store:
            store.executemany(sql, rows)

    def count(self, key_id, allowed, denied, at):
        """As a flush at this time would."""
        self.put("INSERT INTO totals VALUES(?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET allowed = allowed + ?2, "
                 "denied = denied + ?3, last_used_s = max(last_used_s, ?4)", [(key_id, allowed, denied, at)])  # fmt: skip
        steps = (60, 3600, DAY_S)
        self.put("INSERT INTO key_rollups VALUES(?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                 "allowed = allowed + excluded.allowed, denied = denied + excluded.denied",
                 [(step, at // step * step, key_id, allowed, denied) for step in steps])  # fmt: skip
        for code, total in ((0, allowed), (3, denied)):
            if total:
                self.put("INSERT INTO codes VALUES(?, ?) ON CONFLICT DO UPDATE SET total = total + excluded.total",
                         [(code, total)])  # fmt: skip
                self.put("INSERT INTO code_rollups VALUES(?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                         "total = total + excluded.total",
                         [(step, at // step * step, code, total) for step in steps])  # fmt: skip

    def count_all(self):
        """Each key another number, over two days."""
        for number, key_id in enumerate([row[0] for row in ROWS[:5]] + [GONE]):
            self.count(key_id, 10**number, number, self.day)
            self.count(key_id, 3 * 10**number, 0, self.day + DAY_S + 3600)

    def usage(self, *arguments, **options):
        return self.json("usage", "--no-flush", *arguments, **options)


class Groups(Store):
    def test_sums_by_owner_plan_key_and_code(self):
        self.count_all()
        last = rfc3339(self.day + DAY_S + 3600)
        self.assertEqual(self.usage("--group-by", "owner", fields=["complete", "unflushed", "owners"])["owners"], [
            {"owner": None, "allowed": 404000, "denied": 8, "last_used": last},
            {"owner": "acme", "allowed": 44, "denied": 1, "last_used": last},
            {"owner": "other", "allowed": 40400, "denied": 6, "last_used": last},
        ])  # fmt: skip
        plans = self.usage("--group-by", "plan", fields=["complete", "unflushed", "plans"])["plans"]
        self.assertEqual([(one["plan"], one["allowed"]) for one in plans],
                         [(None, 440000), ("free", 404), ("team", 4040)])  # fmt: skip
        keys = self.usage("--group-by", "key", fields=["complete", "unflushed", "keys"])["keys"]
        self.assertEqual(sum(one["allowed"] for one in keys), 444444)
        self.assertEqual(keys, self.usage()["keys"])
        codes = self.usage("--group-by", "code", fields=["complete", "unflushed", "codes"])["codes"]
        self.assertEqual(codes, {"VALID": 444444, "REVOKED": 15})
        self.assertEqual(self.usage("--code", "REVOKED")["codes"], {"REVOKED": 15})
        self.assertEqual(self.usage("--code", "DISABLED")["codes"], {})

    def test_filters(self):
        self.count_all()

        def ids(*arguments):
            return [one["id"] for one in self.usage(*arguments, fields=["complete", "unflushed", "keys"])["keys"]]

        self.assertEqual(ids("--owner", "acme"), ["aaaaaaaaaaaa", "bbbbbbbbbbbb"])
        self.assertEqual(ids("--plan", "free"), ["aaaaaaaaaaaa", "cccccccccccc"])
        self.assertEqual(ids("--owner", "acme", "--plan", "team", "--group-by", "key"), ["bbbbbbbbbbbb"])
        self.assertEqual(ids("--owner", "quiet"), [])
        self.assertEqual(ids("--plan", "idle"), [])
        self.assertEqual(ids("--owner", ""), ["dddddddddddd"])
        plans = self.usage("--owner", "other", "--group-by", "plan")["plans"]
        self.assertEqual([(one["plan"], one["allowed"]) for one in plans], [(None, 40000), ("free", 400)])

    def test_sums_by_time(self):
        self.count_all()
        day = ["--since", rfc3339(self.day), "--until", rfc3339(self.day + 2 * DAY_S)]
        owners = self.usage(*day, "--group-by", "owner", "--by", "day")["owners"]
        self.assertEqual([list(one) for one in owners], [["start", "owner", "allowed", "denied"]] * 6)
        self.assertEqual([(one["start"], one["owner"], one["allowed"], one["denied"]) for one in owners[:4]], [
            (rfc3339(self.day), None, 101000, 8), (rfc3339(self.day), "acme", 11, 1),
            (rfc3339(self.day), "other", 10100, 6), (rfc3339(self.day + DAY_S), None, 303000, 0),
        ])  # fmt: skip
        whole = self.usage(*day, "--group-by", "owner")["owners"]
        self.assertEqual([(one["owner"], one["allowed"]) for one in whole], [(None, 404000), ("acme", 44), ("other", 40400)])
        codes = self.usage(*day, "--code", "VALID", "--by", "day")["codes"]
        self.assertEqual([one["total"] for one in codes], [111111, 333333])
        self.assertEqual(self.usage(*day, "--code", "REVOKED")["codes"], [{"code": "REVOKED", "total": 15}])

    def test_forms(self):
        self.count_all()
        text = self.ctl("usage", "--no-flush", "--group-by", "owner", "--output", "csv")
        self.assertEqual([row["owner"] for row in csv.DictReader(io.StringIO(text))], ["", "acme", "other"])
        self.assertEqual(self.ctl("usage", "--no-flush", "--group-by", "owner", "--output", "csv"), text)
        self.assertEqual(self.ctl("usage", "--no-flush", "--group-by", "code", "--output", "csv"),
                         "code,total\nVALID,444444\nREVOKED,15\n")  # fmt: skip
        table = self.ctl("usage", "--no-flush", "--group-by", "owner").splitlines()
        self.assertEqual(table[0].split(), ["OWNER", "ALLOWED", "DENIED", "LAST_USED"])
        self.assertEqual([line.split()[:2] for line in table[1:]], [["-", "404000"], ["acme", "44"], ["other", "40400"]])
        self.assertEqual(self.ctl("usage", "--no-flush", "--code", "VALID").split(), ["CODE", "TOTAL", "VALID", "444444"])

    def test_what_cannot_be_asked(self):
        codes = "usage: codes are counted for the host, not "
        for arguments, said in (
            (["--code", "VALID", "aaaaaaaaaaaa"], codes + "for a key, an owner or a plan"),
            (["--code", "VALID", "--owner", "acme"], codes + "for a key, an owner or a plan"),
            (["--group-by", "code", "--plan", "free"], codes + "for a key, an owner or a plan"),
            (["--code", "VALID", "--group-by", "owner"], codes + "by owner: want --code without --group-by"),
            (["--owner", "acme", "aaaaaaaaaaaa"], "usage: want either the ID of one key, or --owner"),
            (["--group-by", "key", "aaaaaaaaaaaa"], "usage: want either the ID of one key, or --owner"),
            (["--code", "FINE"], "apikeyctl: --code"),
            (["--group-by", "environment"], "apikeyctl: --group-by"),
            (["--since", "1969-12-31"], "--since: '1969-12-31' is a time before 1970"),
        ):
            self.assertEqual(self.ctl("usage", "--no-flush", *arguments, status=2), "", arguments)
            self.assertTrue(self.said.startswith(said), (said, self.said))

    def test_unknown_names(self):
        for arguments, said in (
            (["--owner", "nobody"], "'nobody': no owner with this name, and no key of one in "),
            (["--owner", "a\nb"], "'a\\u000Ab': no owner with this name"),
            (["--plan", "gold"], "'gold': no plan with this name in "),
            (["zzzzzzzzzzzz"], "zzzzzzzzzzzz: no key with this id"),
        ):
            self.assertEqual(self.ctl("usage", "--no-flush", *arguments, status=1), "", arguments)
            self.assertTrue(self.said.startswith(said), (said, self.said))

    def test_names_that_would_break_a_line(self):
        self.count("a\0b\n,\x1b[31m", 7, 0, self.day)
        self.assertEqual(self.usage()["keys"][0]["id"], "a\0b\n,\x1b[31m")
        table = self.ctl("usage", "--no-flush")
        self.assertIn("a?b?,?[31m  7", table)
        self.assertIn('"a\0b\n,\x1b[31m",7,0,', self.ctl("usage", "--no-flush", "--output", "csv"))
        self.assertEqual(self.usage("--group-by", "owner")["owners"][0]["allowed"], 7)

    def test_a_store_of_a_newer_version_is_left_alone(self):
        with contextlib.closing(sqlite3.connect(self.top / "usage.db")) as store, store:
            store.execute("PRAGMA user_version = 99")
        for arguments in (["usage", "--no-flush", "--group-by", "owner"], ["list", "--unused", "1d"]):
            self.assertEqual(self.ctl(*arguments, status=3), "")
            self.assertIn(f"{self.top}/usage.db: has version 99, this apikeyd knows up to ", self.said)


class ByTime(Store):
    def chart(self, *arguments, locale="C.UTF-8", **options):
        environment = {"PATH": "/usr/bin:/bin", "LC_ALL": locale}
        return self.ctl("usage", "--no-flush", "--chart", *arguments, env=environment, **options).splitlines()

    def test_what_retention_took_is_told(self):
        self.count_all()
        whole = ["--since", rfc3339(self.day + 3600), "--until", rfc3339(self.day + 2 * DAY_S)]
        self.assertIs(self.usage(*whole, "--by", "hour")["partial"], False)
        self.assertEqual(self.said, "")
        self.put("DELETE FROM key_rollups WHERE step_s = 3600 AND start_s <= ?", [(self.day,)])
        self.put("DELETE FROM code_rollups WHERE step_s = 3600 AND start_s <= ?", [(self.day,)])
        first = rfc3339(self.day + DAY_S + 3600)
        for arguments in (["--since", rfc3339(self.day)], ["--since", rfc3339(self.day), "--until", rfc3339(self.day + 3600)],
                          ["--until", rfc3339(self.day + 3600)]):  # fmt: skip
            answer = self.usage(*arguments, "--by", "hour", fields=["complete", "unflushed", "partial", "keys", "codes"])
            self.assertIs(answer["partial"], True)
            self.assertEqual(self.said.count("\n"), 1)
            self.assertIn(f"not all of the stretch: counts by hour are kept from {first} on", self.said)
        for arguments in (["--by", "hour"], ["--since", first, "--by", "hour"], ["--since", rfc3339(self.day), "--by", "day"]):
            self.assertIs(self.usage(*arguments)["partial"], False)
            self.assertEqual(self.said, "")
        self.assertIs(self.usage("--until", first)["partial"], True, "a sum is of all that was before")
        self.put("UPDATE codes SET total = total + ?", [(1,)])  # of a day that is not kept
        self.assertIs(self.usage("--since", "1970-01-01")["partial"], True)

    def test_counts_that_wait_are_shown_as_unflushed(self):
        self.start()
        key_id, key = self.issue()
        self.codes(key, status=0)
        self.assertEqual(self.json("usage")["unflushed"], 0)
        self.kill()
        self.codes(key, key, "no-such-key-anywhere", status=1)
        answer = self.usage()
        self.assertEqual((answer["complete"], answer["unflushed"]), (False, 3))
        self.ctl("usage", key_id)
        self.assertIn("(counts since the last flush are missing: 3 unflushed)", self.said)
        (self.instance / "control").unlink()
        self.assertIsNone(self.usage()["unflushed"])

    def test_chart(self):
        self.count_all()
        days = ["--since", rfc3339(self.day), "--until", rfc3339(self.day + 3 * DAY_S), "--by", "day"]
        text = self.chart(*days)
        self.assertEqual(text[0], "requests by day")
        self.assertTrue(text[2].startswith("400k │"), text)
        self.assertEqual(text[-1], "█ allowed 444444   ░ denied 15")
        self.assertNotIn("\x1b", "".join(text))
        ascii_only = self.chart(*days, locale="C")
        self.assertTrue("".join(ascii_only).isascii(), ascii_only)
        self.assertEqual(ascii_only[-1], "# allowed 444444   x denied 15")
        self.assertIn("allowed 44   ", self.chart(*days, "--owner", "acme")[-1])
        self.assertIn("allowed 40   ", self.chart(*days, "bbbbbbbbbbbb")[-1])
        self.assertEqual(self.chart(*days, "--code", "REVOKED")[-1], "REVOKED 15")
        self.assertEqual(self.chart()[-1], "nothing was counted")
        self.assertIn("requests by hour", self.chart("--since", rfc3339(self.day), "--until", rfc3339(self.day + DAY_S))[0])
        self.assertIn(rfc3339(self.day)[:10], self.chart("--by", "day")[1])  # the first that is kept
        for arguments in (["--output", "json"], ["--output", "csv"], ["--group-by", "owner"]):
            self.chart(*arguments, status=2)
            self.assertTrue(self.said.startswith("--chart: "), self.said)

    def test_chart_follows_the_terminal(self):
        self.count_all()
        command = [apikeyctl_test.OPTIONS.tool, "--config", self.config, "usage", "--no-flush", "--chart", "--by", "minute",
                   "--since", rfc3339(self.day), "--until", rfc3339(self.day + 2 * DAY_S)]  # fmt: skip
        for columns, extra, colour in ((80, {}, True), (40, {}, True), (40, {"NO_COLOR": "1"}, False)):
            outer, inner = pty.openpty()
            fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            try:
                subprocess.run(command, stdin=subprocess.DEVNULL, stdout=inner, check=True, timeout=apikeyctl_test.WAIT_S,
                               env={"LC_ALL": "C.UTF-8"} | extra)  # fmt: skip
                text = os.read(outer, 1 << 20).decode()
            finally:
                os.close(outer)
                os.close(inner)
            self.assertEqual("\x1b[32m" in text, colour)
            self.assertIn("requests by minute, 1 hour a column" if columns == 80 else "2 hours a column", text)
            widest = max(len(re.sub(r"\x1b\[\d+m", "", line)) for line in text.split("\r\n"))
            self.assertLessEqual(widest, columns)
            self.assertGreater(widest, columns // 2)


class Unused(Store):
    def listed(self, *arguments):
        return [one["id"] for one in self.json("list", *arguments)]

    def test_unused(self):
        now = int(time.time())
        self.count("aaaaaaaaaaaa", 1, 0, now - 91 * DAY_S)
        self.count("bbbbbbbbbbbb", 1, 0, now - 89 * DAY_S)
        self.count("cccccccccccc", 0, 1, now - 91 * DAY_S)
        text = self.keys.read_text()
        for key_id, days in (("dddddddddddd", 91), ("eeeeeeeeeeee", 89)):
            text = text.replace(f"{key_id},", f"{key_id}, created: {rfc3339(now - days * DAY_S)},")
        self.keys.write_text(text)
        rows = self.json("list", "--unused", "90d", fields=[*KEY_FIELDS, "last_used"])
        self.assertEqual([(row["id"], row["last_used"]) for row in rows], [
            ("aaaaaaaaaaaa", rfc3339(now - 91 * DAY_S)), ("cccccccccccc", rfc3339(now - 91 * DAY_S)),
            ("dddddddddddd", None), ("ffffffffffff", None),
        ])  # fmt: skip
        self.assertIn("counts since the last flush are missing", self.said)
        self.assertEqual(self.listed("--unused", "90d", "--owner", "acme"), ["aaaaaaaaaaaa"])
        self.assertEqual(self.listed("--unused", "92d"), ["ffffffffffff"])
        head, first, *_ = self.ctl("list", "--unused", "90d", "--output", "csv").splitlines()
        self.assertEqual(head, ",".join([*KEY_FIELDS, "last_used"]))
        self.assertTrue(first.endswith(rfc3339(now - 91 * DAY_S)))
        self.assertIn("LAST_USED", self.ctl("list", "--unused", "90d").splitlines()[0])

    def test_what_was_just_used_is_not_unused(self):
        self.start()
        key_id, key = self.issue()
        self.keys.write_text(re.sub(r", created: [^,}]*|\n *created: .*", "", self.keys.read_text()))
        self.assertIn(key_id, self.listed("--unused", "1h"))
        self.codes(key, status=0)
        self.assertNotIn(key_id, self.listed("--unused", "1h", "--state", "active"))
        self.assertEqual(self.said, "")

    def test_expiring(self):
        now = int(time.time())
        text = self.keys.read_text()
        for key_id, at in (("aaaaaaaaaaaa", now - 5), ("bbbbbbbbbbbb", now + 29 * DAY_S), ("cccccccccccc", now + 31 * DAY_S)):
            text = text.replace(f"{key_id},", f"{key_id}, expires: {rfc3339(at)},")
        self.keys.write_text(text)
        self.assertEqual(self.listed("--expiring", "30d"), ["bbbbbbbbbbbb"])
        self.assertEqual(self.listed("--expiring", "32d"), ["bbbbbbbbbbbb", "cccccccccccc"])
        self.assertEqual(self.listed("--expiring", "32d", "--owner", "other"), ["cccccccccccc"])
        self.assertEqual(self.listed("--expiring", "32d", "--unused", "1d", "--plan", "team"), ["bbbbbbbbbbbb"])
        self.json("list", "--expiring", "30d", fields=KEY_FIELDS)

    def test_no_duration(self):
        for option in ("--unused", "--expiring"):
            for text in ("90", "soon", "-1d", "99999999d", "1d\n"):
                self.assertEqual(self.ctl("list", option + "=" + text, status=2), "")
                self.assertTrue(self.said.startswith(f"{option}: '"), self.said)
                self.assertIn("is no duration (want 90d", self.said)


if __name__ == "__main__":
    apikeyctl_test.main()
