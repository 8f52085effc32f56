#!/usr/bin/env python3
"""Promise: whoever dies in a rotation or an import, the tool or the daemon, at any statement or call: the key set holds
all of the change or nothing of it, no key is lost, and memory comes to hold what the key set does. YAML as SQLite.

STORE_CRASH_ROWS=1001 has the daemon die, at every 21st point, in imports of so many that it is not told them one by one.
"""

import contextlib
import hashlib
import json
import mmap
import os
import signal
import sqlite3
import struct
import subprocess
import unittest
import unittest.mock

import apikeyctl_test
import segment_reader
from apikeyctl_test import Ctl, WAIT_S, rfc3339
from live_daemon import key_id, make_key

STATES = {"active": segment_reader.ACTIVE, "disabled": segment_reader.DISABLED, "revoked": segment_reader.REVOKED}
ROWS = int(os.environ.get("STORE_CRASH_ROWS", "3"))
STEP = 1 + ROWS // 50
POINTS_MAX = 10000


class Kill:
    """The other side of kill_at.cc, for one program at a time."""

    BYTES, TEXT_AT = 128, 20

    def __init__(self, path):
        path.write_bytes(bytes(self.BYTES))
        with path.open("r+b") as file:
            self.page = mmap.mmap(file.fileno(), self.BYTES)
        self.environment = {"LD_PRELOAD": apikeyctl_test.OPTIONS.kill_at, "APIKEYD_TEST_KILL": str(path)}

    def order(self, point, torn=False):
        self.off()
        self.page[:] = struct.pack("<5I", 0, point, torn, 0, 0).ljust(self.BYTES, b"\0")
        self.page[:4] = struct.pack("<I", 1)

    def off(self):
        self.page[:4] = bytes(4)

    @property
    def points(self):
        return struct.unpack_from("<I", self.page, 12)[0]

    @property
    def statements(self):
        return struct.unpack_from("<I", self.page, 16)[0]

    def __str__(self):
        point = struct.unpack_from("<I", self.page, 4)[0]
        return f"point {point} ({self.page[self.TEXT_AT:].rstrip(bytes(1)).decode()})"


def fields(state, expires, environment, owner, name, created, foreign, metadata):
    """What a key set says of a key beside id and digest, as memory does."""
    return (
        STATES[state], segment_reader.NEVER if expires is None else int(expires), environment or "", owner or "", name or "",
        int(created or 0), bool(foreign), json.loads(metadata) if isinstance(metadata, str) else metadata,
    )  # fmt: skip


class Yaml(Ctl):
    STORE = "yaml:{}/keys.yaml"
    STATEMENTS_MIN = 0

    def configure(self, reload):
        # Calls are points where libc makes them, so no io_uring. A flush belongs to no change.
        self.config.write_text(
            f"source: {self.STORE.format(self.top)}\nusage: sqlite:{self.top}/usage.db\ndirectory: {self.top}/run\n"
            f"reload: {reload[:-1]}, max_loss_percent: 100}}\naudit_log: {{file: {self.top}/audit}}\n"
            "event_loop: epoll\nflush_interval_ms: 600000\n"
        )

    def setUp(self):
        super().setUp()
        self.tool_kill, self.daemon_kill = Kill(self.top / "kill-tool"), Kill(self.top / "kill-daemon")
        self.compared = 0
        self.start()
        self.ctl("plan", "create", "free", "--limit", "burst=1000/s")
        self.current, _ = self.issue(
            "--owner", "acme", "--name", "CI", "--plan", "free", "--metadata", '{"team": "x"}', "--expires", "90d"
        )  # fmt: skip
        self.issue("--environment", "test")
        self.known = self.stored()

    def start(self):
        with unittest.mock.patch.dict(os.environ, self.daemon_kill.environment):
            super().start()

    def run_tool(self, *arguments, stdin=""):
        """By its own end or by another's; returns its status and what it printed."""
        done = subprocess.run(
            [apikeyctl_test.OPTIONS.tool, "--config", self.config, *arguments], input=stdin, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, timeout=WAIT_S, check=False, env=os.environ | self.tool_kill.environment,
        )  # fmt: skip
        self.where = f"{arguments}, tool {self.tool_kill}, daemon {self.daemon_kill}: {done.returncode} {done.stderr}"
        return done.returncode, done.stdout

    # ------------------------------------------------------------------------------------------- store and memory

    def stored(self):
        """id -> (digest, fields)"""
        rows = [json.loads(line) for line in self.ctl("export").splitlines()]
        return {
            row["id"]: (bytes.fromhex(row["sha256"]), fields(
                row["state"], row["expires"] and rfc3339(row["expires"]), row["environment"], row["owner"], row["name"],
                row["created"] and rfc3339(row["created"]), row["foreign"], row["metadata"],
            ))
            for row in rows
        }  # fmt: skip

    def table(self):
        """What memory holds, as LAYOUT.md says it: id -> (the digest's first 20 bytes, fields)"""
        rows = segment_reader.Instance(self.instance).table.rows()
        self.assertEqual(len({row.id for row in rows}), len(rows), "an id stands there twice")
        return {
            row.id: (row.digest20, (
                row.state, row.expires, row.environment, row.owner, row.name, row.created, row.foreign,
                json.loads(row.metadata) if row.metadata else None,
            ))
            for row in rows
        }  # fmt: skip

    def in_force(self):
        wanted = {one: (digest[:20], of) for one, (digest, of) in self.known.items()}
        with contextlib.suppress(AssertionError, FileNotFoundError):  # it may be going over to another generation
            if self.table() == wanted:
                self.compared += len(wanted)
                return True
        return False

    def agree(self):
        """Nobody tells the daemon to look."""
        try:
            self.wait_for(self.in_force)
        except AssertionError:
            self.fail(f"{self.where}\nmemory: {self.table()}\nkey set: {self.known}")

    def no_half(self, before):
        """What a dead daemon leaves: each key as it was or as it is, and none ended without its successor. True when
        not all of the change is there."""
        table = self.table()
        ended = False
        for one, (digest, of) in self.known.items():
            was = before.get(one)
            found = table.get(one)
            self.assertIn(found, ((digest[:20], of), was and (was[0][:20], was[1])), self.where)
            ended |= was is not None and found[1] != was[1]
        if ended:
            self.assertEqual(set(table), set(self.known), self.where)
        self.compared += len(self.known)
        return len(table) < len(self.known) or not ended and any(self.known[one] != was for one, was in before.items())

    # ---------------------------------------------------------------------------------------------------- changes

    def rotate(self, *arguments):
        old, before = self.current, self.known
        status, printed = self.run_tool("rotate", old, *arguments)
        self.known = self.stored()
        came = set(self.known) - set(before)
        if not came:
            self.assertEqual(self.known, before, self.where)
            return status
        (self.current,) = came
        # Whoever ran it has the key: it is printed whole before the old one ends.
        key = printed.removesuffix("\n")
        shown = (key_id(key), hashlib.sha256(key.encode()).digest())
        self.assertEqual(shown, (self.current, self.known[self.current][0]), self.where)
        self.is_rotated(before, old, grace_s=3600 if arguments else 0)
        return status

    def is_rotated(self, before, old, grace_s):
        state, expires, *was = before[old][1]
        of_new, of_old = self.known[self.current][1], self.known[old][1]
        created = of_new[5]
        was_new = was[:3] + [created] + was[4:]
        self.assertEqual(of_new, (state, expires, *was_new), self.where)
        if grace_s:
            self.assertAlmostEqual(of_old[1], created + grace_s, delta=60, msg=self.where)
        ended = (state, of_old[1]) if grace_s else (segment_reader.REVOKED, expires)
        others = before | {old: (before[old][0], (*ended, *was))} | {self.current: self.known[self.current]}
        self.assertEqual(self.known, others, self.where)

    def bring(self, count=3):
        before = self.known
        keys = [make_key() for _ in range(count)]
        rows = [{"key": key, "owner": "other", "plan": "free", "metadata": {"n": 1}} for key in keys]
        status, _ = self.run_tool("import", stdin="".join(json.dumps(row) + "\n" for row in rows))
        self.known = self.stored()
        came = {one: self.known[one][0] for one in set(self.known) - set(before)}
        self.assertIn(came, ({}, {key_id(key): hashlib.sha256(key.encode()).digest() for key in keys}), self.where)
        self.assertEqual(before, {one: row for one, row in self.known.items() if one not in came}, self.where)
        return status

    # ------------------------------------------------------------------------------------------------------ kills

    def kill_the_tool(self, change, *arguments, torn=False):
        recorded = []
        for point in range(1, POINTS_MAX):
            before = self.known
            self.tool_kill.order(point, torn)
            status = change(*arguments)
            self.agree()
            recorded.append(self.known != before)
            if status != -signal.SIGKILL:
                break
        self.assertEqual((status, recorded[-1]), (0, True), self.where)
        # Once it is recorded it is, whatever else the tool does not come to.
        self.assertEqual(recorded, sorted(recorded))
        self.assertGreaterEqual(recorded.count(False), 2)
        self.told(self.tool_kill, len(recorded) - 1)
        if not torn:
            self.assertGreaterEqual(recorded.count(True), 2)
            self.assertGreaterEqual(self.tool_kill.statements, self.STATEMENTS_MIN)

    def kill_the_daemon(self, change, *arguments, step=1):
        behind = kills = 0
        for point in range(1, POINTS_MAX, step):
            before = self.known
            self.daemon_kill.order(point)
            status = change(*arguments)
            self.assertNotEqual(self.known, before, self.where)  # recorded, whether it lives or not
            self.wait_for(lambda: self.daemon_kill.points >= point or self.in_force())
            died = self.daemon_kill.points >= point
            self.assertIn(status, (0, 3) if died else (0,), self.where)
            self.kill()
            self.daemon_kill.off()
            behind += self.no_half(before)
            self.start()
            self.agree()
            self.trim()
            if not died:
                break
            kills += 1
        self.assertGreater(behind, 0)
        self.assertGreaterEqual(self.daemon_kill.statements, self.STATEMENTS_MIN)
        self.told(self.daemon_kill, kills)

    def trim(self):
        """So that many large imports do not add up."""

    def told(self, kill, kills):
        print(f"{kill.points} points, {kill.statements} of them statements; {kills} kills, {self.compared} rows compared")
        self.compared = 0

    def test_the_tool_in_a_rotation(self):
        self.kill_the_tool(self.rotate)
        self.kill_the_tool(self.rotate, "--grace", "1h")

    def test_the_tool_in_an_import(self):
        self.kill_the_tool(self.bring)

    def test_the_tool_in_the_midst_of_a_write(self):
        self.kill_the_tool(self.rotate, torn=True)
        self.kill_the_tool(self.bring, torn=True)

    def test_the_daemon_in_a_rotation(self):
        self.kill_the_daemon(self.rotate)

    def test_the_daemon_in_an_import(self):
        self.kill_the_daemon(self.bring, ROWS, step=STEP)

    def test_the_tool_when_it_makes_the_store(self):
        self.kill()
        row = json.dumps({"key": make_key()}) + "\n"
        for point in range(1, POINTS_MAX):
            folder = self.top / str(point)
            folder.mkdir()
            self.tool_kill.order(point)
            store = ("--store", self.STORE.format(folder))
            status, _ = self.run_tool(*store, "import", stdin=row)
            self.tool_kill.off()
            # It goes on from whatever is there; no daemon, so 3 for what is recorded, and 1 where it was before.
            again, _ = self.run_tool(*store, "import", stdin=row)
            self.assertIn(again, (1, 3), self.where)
            self.assertEqual(len(self.ctl(*store, "export").splitlines()), 1, self.where)
            self.compared += 1
            if status != -signal.SIGKILL:
                break
        self.assertEqual((status, again), (3, 1), self.where)
        self.told(self.tool_kill, point - 1)


class Sqlite(Yaml):
    STORE = "sqlite:{}/keys.db"
    STATEMENTS_MIN = 10

    def sql(self, *statements):
        """As any program would, by a connection of its own; returns the last statement's rows."""
        with contextlib.closing(sqlite3.connect(self.top / "keys.db", timeout=60, isolation_level=None)) as shell:
            return [shell.execute(*statement).fetchall() for statement in statements][-1]

    def stored(self):
        self.assertEqual(self.sql(("PRAGMA integrity_check",)), [("ok",)])
        rows = self.sql(
            ('SELECT id, sha256, state, expires, environment, owner, name, created, "foreign", metadata FROM keys',)
        )
        return {row[0]: (row[1], fields(*row[2:])) for row in rows}

    def trim(self):
        self.sql(("DELETE FROM keys WHERE owner = 'other'",))
        self.known = self.stored()
        self.where = f"deleted by SQL after {self.where}"
        self.agree()

    def rotate_by_sql(self):
        key, old = make_key(), self.current
        self.current, before = key_id(key), self.known
        self.sql(
            ("BEGIN IMMEDIATE",),
            ("INSERT INTO keys SELECT ?, ?, state, expires, plan, limits, addresses, environment, owner, name, created, "
             '"foreign", scopes, metadata FROM keys WHERE id = ?', (self.current, hashlib.sha256(key.encode()).digest(), old)),
            ("UPDATE keys SET state = 'revoked' WHERE id = ?", (old,)),
            ("COMMIT",),
        )  # fmt: skip
        self.known = self.stored()
        self.where = f"by SQL, daemon {self.daemon_kill}"
        self.is_rotated(before, old, grace_s=0)
        return 0

    def test_the_daemon_in_a_rotation_by_another_program(self):
        self.kill_the_daemon(self.rotate_by_sql)


if __name__ == "__main__":
    apikeyctl_test.main("--kill-at")
