#!/usr/bin/env python3
"""Promise: every verb of apikeyctl does with a live apikeyd what its page says, and ends with the status it names;
with the daemon down, what can be done is done, and what cannot is said."""

import argparse
import concurrent.futures
import contextlib
import csv
import datetime
import grp
import io
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import unittest

NOBODY = 65534
# Ends what hangs; no promise about speed.
WAIT_S = 120
OPTIONS = argparse.Namespace()

KEY_FIELDS = ["id", "state", "environment", "owner", "name", "created", "expires", "plan"]
SHOW_FIELDS = KEY_FIELDS + [
    "scopes", "addresses", "limits", "foreign", "metadata", "sha256", "allowed", "denied", "last_used",
]  # fmt: skip
LIMIT_FIELDS = ["name", "rate", "burst", "quota", "shadow"]
VERDICT_FIELDS = ["code", "id", "owner", "environment", "name", "expires", "stale", "counted", "reason"]
STATUS_FIELDS = [
    "daemon", "pid", "version", "started", "instance", "directory", "source", "usage", "event_loop", "attached",
    "heartbeat_age_ms", "generation", "keys", "slots", "dead", "bytes", "huge_bytes", "superseded", "superseded_bytes",
    "unread", "building", "position", "fingerprint", "loaded", "load_error", "snapshot", "flushed", "flush_error", "usage_send_error", "quarantined", "watch_problem",
    "log_dropped", "audit_problem", "denials_problem",
]  # fmt: skip
COMMENTED_KEYS = """\
# The team's keys.
version: 1
keys:
  # first, although it is younger
  - name: "CI deploy"   # quoted
    id: 2RkT9pQwX4Za
    environment: live
    sha256: 5f2d0c6e1a7b48930e4c9b1d6f80a2735c1e94b7d2086af3415b9ce07d83f216

  - {id: 7HnB3sLqV0Ty, sha256: c09a4be7731d52f86e0b1f94d7a3825c6b40e9d1f25378ac01d6e49b8f7230ae, environment: test}
# the end
"""
# Two keys, of which the first has all that a key can have.
KEYS_WITH_TERMS = """\
version: 1
# what servers ask for
scopes: [reports.read, reports.write, billing.read]
plans:
  # the one for everybody
  - name: free
    limits:
      - {name: burst, rate: 100/s, burst: 200}   # short
      - name: monthly   # long
        quota: 1000000/month
        shadow: true
  - {name: team, limits: [{name: daily, quota: 5/day}]}
owners:
  - {name: acme, plan: team}   # the first customer
  - name: other
keys:
  - id: 2RkT9pQwX4Za
    sha256: 5f2d0c6e1a7b48930e4c9b1d6f80a2735c1e94b7d2086af3415b9ce07d83f216
    plan: free
    # of its own
    limits:
      - name: burst   # slower
        rate: 50/min
        burst: 10
      - {name: monthly, quota: 7/month, shadow: true}
    environment: live
    owner: acme
    scopes:
      - reports.*   # all of them
      - billing.read
    addresses: [192.0.2.0/24, "2001:db8::/32"]   # the office
  - {id: 7HnB3sLqV0Ty, sha256: c09a4be7731d52f86e0b1f94d7a3825c6b40e9d1f25378ac01d6e49b8f7230ae, environment: test}
# the end
"""


def rfc3339(text):
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc).timestamp()


class Ctl(unittest.TestCase):
    """A fresh instance for each test: configuration, key set, usage store, shared memory, one daemon at most."""

    STORE = "yaml:{}/keys.yaml"
    DAEMON_BY = ()  # a command that becomes the daemon

    def setUp(self):
        self.top = pathlib.Path(tempfile.mkdtemp(prefix=f"apikeyd-test-{os.getpid()}-", dir="/dev/shm"))
        self.addCleanup(shutil.rmtree, self.top)
        self.addCleanup(self.kill)
        self.daemon = None
        self.keys = self.top / "keys.yaml"
        self.log = self.top / "log"
        self.config = self.top / "apikeyd.yaml"
        self.instance = self.top / "run" / "default"
        self.configure("{debounce_ms: 1, poll_ms: 100}")
        self.keys.write_text("version: 1\nkeys: []\n")

    def configure(self, reload):
        self.config.write_text(
            f"source: {self.STORE.format(self.keys.parent)}\nusage: sqlite:{self.top}/usage.db\ndirectory: {self.top}/run\n"
            f"reload: {reload}\n"
        )

    def configure_slow(self):
        """The notice of a rename waits longer than the tool takes to tell what it changed, also on a busy machine."""
        self.configure("{debounce_ms: 60000, poll_ms: 3600000}")

    def start(self):
        ready = self.events("daemon.ready")
        with self.log.open("ab") as log:
            self.daemon = subprocess.Popen([*self.DAEMON_BY, OPTIONS.daemon, "--config", self.config], stderr=log,
                                           stdin=subprocess.DEVNULL)  # fmt: skip
        self.wait_for(lambda: self.daemon.poll() is not None or self.events("daemon.ready") > ready)
        self.assertIsNone(self.daemon.poll(), self.log.read_text())

    def kill(self):
        if self.daemon:
            self.daemon.kill()
            self.daemon.wait()
            self.daemon = None

    def wait_for(self, condition):
        deadline = time.monotonic() + WAIT_S
        while not condition():
            self.assertLess(time.monotonic(), deadline, "never happened")
            time.sleep(0.005)

    def events(self, name):
        text = self.log.read_text() if self.log.exists() else ""
        return len(re.findall(rf" event={re.escape(name)}(?: |$)", text, re.MULTILINE))

    def ctl(self, *arguments, status=0, stdin="", config=True, **options):
        """Runs the tool; returns what it wrote to standard output. self.said is its standard error."""
        command = [OPTIONS.tool, *(["--config", self.config] if config else []), *arguments]
        done = subprocess.run(
            command, input=stdin, stdout=options.pop("stdout", subprocess.PIPE), stderr=subprocess.PIPE, text=True,
            timeout=WAIT_S, check=False, **options,
        )  # fmt: skip
        self.said = done.stderr
        self.assertEqual(done.returncode, status, f"{arguments}: {done.stdout}{done.stderr}")
        return done.stdout

    def json(self, *arguments, fields=None, **options):
        answer = json.loads(self.ctl(*arguments, "--output", "json", **options))
        if fields:
            for one in answer if isinstance(answer, list) else [answer]:
                self.assertEqual(list(one), fields)
        return answer

    def issue(self, *arguments, **options):
        """Returns (id, plaintext)."""
        answer = self.json("issue", *arguments, fields=["id", "key"], **options)
        return answer["id"], answer["key"]

    def codes(self, *keys, status):
        answers = self.json("verify", stdin="".join(key + "\n" for key in keys), status=status, fields=VERDICT_FIELDS)
        return [answer["code"] for answer in answers]


class Keys(Ctl):
    def test_issue_prints_a_key_that_is_valid_at_once(self):
        self.start()
        text = self.ctl("issue", "--owner", "acme")
        self.assertRegex(text, r"\Aak_live_[0-9A-Za-z]{12}_[0-9A-Za-z]{33}\n\Z")
        self.assertEqual(self.codes(text.strip(), status=0), ["VALID"])
        key_id, key = self.issue(
            "--environment", "test", "--owner", "acme", "--name", "CI: deploy", "--expires", "90d",
            "--metadata", '{"team": "platform", "tier": 3}',
        )  # fmt: skip
        self.assertEqual(key.split("_")[2], key_id)
        shown = self.json("show", key_id, fields=SHOW_FIELDS)
        self.assertEqual(
            [shown[name] for name in ("id", "state", "environment", "owner", "name", "foreign", "metadata")],
            [key_id, "active", "test", "acme", "CI: deploy", False, {"team": "platform", "tier": 3}],
        )
        self.assertEqual(rfc3339(shown["expires"]) - rfc3339(shown["created"]), 90 * 86400)
        verdict = self.json("verify", stdin=key + "\n")[0]
        self.assertEqual((verdict["id"], verdict["owner"], verdict["environment"]), (key_id, "acme", "test"))
        self.assertEqual(verdict["expires"], shown["expires"])

    def test_issue_makes_a_missing_key_set_and_keeps_it_private(self):
        self.start()
        self.keys.unlink()
        _, key = self.issue()
        self.assertIn("made, with mode 0600", self.said)
        self.assertEqual(stat.S_IMODE(self.keys.stat().st_mode), 0o600)
        self.assertEqual(self.codes(key, status=0), ["VALID"])

    def test_issue_does_not_begin_anew_what_a_daemon_serves(self):
        self.start()
        _, key = self.issue()
        away = self.top / "away"
        self.keys.rename(away)
        self.assertEqual(self.ctl("issue", status=3), "")
        self.assertIn(f"{self.keys}: is not there, and the daemon serves 1 keys from it", self.said)
        self.assertFalse(self.keys.exists())
        away.rename(self.keys)
        self.assertEqual(self.codes(key, status=0), ["VALID"])

    def test_the_environments_of_a_set_are_limited_before_a_key_is_shown(self):
        self.start()
        for number in range(15):
            key_id, _ = self.issue("--environment", f"e{number}")
        before = self.keys.read_bytes()
        self.assertEqual(self.ctl("issue", "--environment", "e15", status=2), "")
        self.assertIn("'e15' is one too many", self.said)
        self.assertEqual(self.keys.read_bytes(), before)
        self.ctl("revoke", key_id)

    def test_a_revocation_outlives_the_file_that_recorded_it(self):
        self.start()
        key_id, key = self.issue()
        self.issue()
        before = self.keys.read_text()
        self.ctl("revoke", key_id)
        self.keys.write_text(before)
        self.ctl("reload", status=1)
        self.assertIn(f"would bring back 1 revoked keys, the first {key_id}", self.said)
        for verb in (["enable"], ["disable"], ["rotate", "--grace", "1h"]):
            self.ctl(*verb, key_id, status=3)
            self.assertIn("is revoked", self.said)
            self.assertEqual(self.codes(key, status=1), ["REVOKED"])
        self.keys.write_text(before)
        self.ctl("reload", "--force")
        self.assertEqual(self.codes(key, status=0), ["VALID"])

    def test_gen_makes_both_files_or_neither(self):
        folder = self.top / "gen"
        folder.mkdir()

        def small_files():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

        files = ["--keys", folder / "keys.yaml", "--plain", folder / "plain.txt"]
        self.ctl("gen", "100", *files, status=3, preexec_fn=small_files)
        self.assertEqual(list(folder.iterdir()), [])
        for number in "0", "1500001", "x":
            self.ctl("gen", number, *files, status=2)
        self.assertEqual(list(folder.iterdir()), [])
        self.ctl("gen", "100", *files)
        self.assertEqual(len((folder / "plain.txt").read_text().splitlines()), 100)

    def test_lines_that_end_as_on_windows_are_keys_too(self):
        self.start()
        _, key = self.issue()
        self.assertEqual(self.json("verify", stdin=f"{key}\r\n")[0]["code"], "VALID")

    def test_issue_refuses_wrong_options_and_records_nothing(self):
        self.start()
        before = self.keys.read_bytes()
        for arguments, said in (
            (["--environment", "LIVE"], "--environment: want"),
            (["--environment", "sixsix"], "--environment: want"),
            (["--expires", "soon"], "--expires: want a time"),
            (["--expires", "2020-01-01T00:00:00Z"], "--expires: want a time in the future"),
            (["--expires", "2300-01-01T00:00:00Z"], "--expires: want a time before"),
            (["--metadata", "[1]"], "--metadata: "),
            (["--metadata", '{"a": "' + "x" * 5000 + '"}'], "--metadata: "),
            (["--name", "x" * 256], "name"),
            (["--no-such-option"], ""),
        ):
            self.assertEqual(self.ctl("issue", *arguments, status=2), "", arguments)
            self.assertIn(said, self.said)
        self.assertEqual(self.keys.read_bytes(), before)

    def test_a_key_that_could_not_be_shown_is_not_recorded(self):
        self.start()
        before = self.keys.read_bytes()
        with open("/dev/full", "w", encoding="ascii") as full:
            self.ctl("issue", stdout=full, status=1)
        self.assertIn("nothing was recorded", self.said)
        self.assertEqual(self.keys.read_bytes(), before)

    def test_a_closed_standard_output_takes_no_key(self):
        self.start()
        before = self.keys.read_bytes()
        refused = subprocess.run([OPTIONS.tool, "-c", self.config, "issue"], preexec_fn=lambda: os.close(1),
                                 stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)  # fmt: skip
        self.assertEqual(refused.returncode, 1)
        self.assertIn("standard output: cannot write", refused.stderr)
        self.assertEqual(self.keys.read_bytes(), before)
        for file in self.top.iterdir():
            if file.is_file():
                self.assertNotIn(b"ak_live_", file.read_bytes(), file)

    def test_a_key_in_an_error_is_masked(self):
        self.start()
        _, key = self.issue()
        for arguments in (("list", "--state", key), ("--output", key, "list"), ("--instance", key, "status"), ("show", key)):
            run = subprocess.run([OPTIONS.tool, "-c", self.config, *arguments], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)  # fmt: skip
            self.assertNotEqual(run.returncode, 0, arguments)
            self.assertNotIn(key[-33:], run.stdout + run.stderr, arguments)

    def test_states(self):
        self.start()
        key_id, key = self.issue()
        for verb, code, status in (
            ("disable", "DISABLED", 1), ("disable", "DISABLED", 1), ("enable", "VALID", 0), ("disable", "DISABLED", 1),
            ("revoke", "REVOKED", 1), ("revoke", "REVOKED", 1),
        ):  # fmt: skip
            self.assertEqual(self.ctl(verb, key_id), "")
            self.assertEqual(self.codes(key, status=status), [code])
        self.ctl("enable", key_id, status=1)
        self.assertIn(key_id + ": is revoked", self.said)
        self.assertEqual(self.codes(key, status=1), ["REVOKED"])

    def test_a_deleted_key_is_forgotten(self):
        self.start()
        first_id, first = self.issue()
        key_id, key = self.issue()
        self.codes(key, status=0)
        self.ctl("revoke", key_id)
        self.assertEqual(self.ctl("delete", key_id), "")
        self.assertEqual(self.codes(first, key, status=1), ["VALID", "NOT_FOUND"])
        self.assertEqual([row["id"] for row in self.json("list")], [first_id])
        self.ctl("delete", first_id)
        self.assertEqual(self.codes(first, status=1), ["NOT_FOUND"])
        self.assertEqual(self.json("usage", first_id)["allowed"], 1)
        self.assertNotIn(first_id, self.keys.read_text())

    def test_an_unknown_id_is_refused_and_nothing_is_written(self):
        self.start()
        self.keys.write_text(COMMENTED_KEYS)
        before = self.keys.stat()
        for verb in ("show", "disable", "enable", "revoke", "rotate", "regenerate", "delete", "usage"):
            self.assertEqual(self.ctl(verb, "000000000000", status=1), "")
            self.assertIn(f"000000000000: no key with this id in {self.keys}", self.said)
        self.assertEqual((self.keys.stat().st_ino, self.keys.read_text()), (before.st_ino, COMMENTED_KEYS))

    def test_a_whole_key_in_the_place_of_an_id_is_not_repeated(self):
        self.start()
        _, key = self.issue()
        for arguments in (["revoke", key], ["verify", key], ["show", "--output", "json", key], [key], ["list", key]):
            self.ctl(*arguments, status=2)
            self.assertNotIn(key[-33:], self.said)

    def test_comments_and_order_stay(self):
        self.keys.write_text(COMMENTED_KEYS)
        self.start()
        self.ctl("disable", "2RkT9pQwX4Za")
        lines = self.keys.read_text().splitlines()
        added = [line for line in lines if line not in COMMENTED_KEYS.splitlines()]
        self.assertEqual([line.strip() for line in added], ["state: disabled"])
        self.assertEqual([line for line in lines if line not in added], COMMENTED_KEYS.splitlines())

    def test_list_filters(self):
        self.start()
        first, _ = self.issue("--owner", "acme", "--name", "a, \"b\"")
        second, _ = self.issue("--owner", "other", "--environment", "test")
        third, _ = self.issue("--owner", "acme", "--environment", "test")
        self.ctl("revoke", third)

        def listed(*filters):
            return [row["id"] for row in self.json("list", *filters, fields=KEY_FIELDS)]

        self.assertEqual(listed(), [first, second, third])
        self.assertEqual(listed("--owner", "acme"), [first, third])
        self.assertEqual(listed("--environment", "test", "--state", "active"), [second])
        self.assertEqual(listed("--owner", "nobody"), [])
        rows = list(csv.DictReader(io.StringIO(self.ctl("list", "--output", "csv", "--owner", "acme"), newline="")))
        self.assertEqual([(row["id"], row["name"], row["state"]) for row in rows],
                         [(first, 'a, "b"', "active"), (third, "", "revoked")])  # fmt: skip
        table = self.ctl("list").splitlines()
        self.assertEqual(table[0].split(), [name.upper() for name in KEY_FIELDS])
        self.assertEqual([line.split()[0] for line in table[1:]], [first, second, third])
        self.ctl("list", "--state", "gone", status=2)


class Terms(Ctl):
    def setUp(self):
        super().setUp()
        self.keys.write_text(KEYS_WITH_TERMS)

    def test_show_and_list_have_them(self):
        shown = self.json("show", "2RkT9pQwX4Za", fields=SHOW_FIELDS)
        self.assertEqual(
            [shown[name] for name in ("plan", "scopes", "addresses")],
            ["free", ["billing.read", "reports.*"], ["192.0.2.0/24", "2001:db8::/32"]],
        )
        self.assertEqual([list(limit) for limit in shown["limits"]], [LIMIT_FIELDS] * 2)
        self.assertEqual(
            [list(limit.values()) for limit in shown["limits"]],
            [["burst", "50/min", 10, None, False], ["monthly", None, None, "7/month", True]],
        )
        lines = dict(re.split(" +", line, maxsplit=1) for line in self.ctl("show", "2RkT9pQwX4Za").splitlines())
        self.assertEqual(
            [lines[name] for name in ("plan", "scopes", "addresses", "limits")],
            ["free", "billing.read reports.*", "192.0.2.0/24 2001:db8::/32",
             "burst=50/min,burst=10 monthly=7/month,shadow"],
        )  # fmt: skip
        row = next(csv.DictReader(io.StringIO(self.ctl("show", "2RkT9pQwX4Za", "--output", "csv"), newline="")))
        self.assertEqual(row["limits"], lines["limits"])
        bare = self.json("show", "7HnB3sLqV0Ty", fields=SHOW_FIELDS)
        self.assertEqual([bare[name] for name in ("plan", "scopes", "addresses", "limits")], [None, [], [], []])
        self.assertEqual([row["plan"] for row in self.json("list", fields=KEY_FIELDS)], ["free", None])
        self.assertEqual([row["id"] for row in self.json("list", "--plan", "free")], ["2RkT9pQwX4Za"])
        self.assertEqual(self.json("list", "--plan", "team"), [])

    def terms(self, key_id):
        """Plan, scopes, addresses, and limits as they are given."""
        text = dict(re.split(" +", line, maxsplit=1) for line in self.ctl("show", key_id).splitlines())
        return [text[name] for name in ("plan", "scopes", "addresses", "limits")]

    def test_issue_takes_them(self):
        self.configure_slow()
        self.start()
        key_id, key = self.issue(
            "--plan", "free", "--scope", "reports.*", "--scope", "billing.read", "--address", "192.0.2.0/24",
            "--address", "2001:db8::/32", "--limit", "burst=50/s,burst=60", "--limit", "monthly=7/month,shadow",
        )  # fmt: skip
        self.assertEqual(
            self.terms(key_id),
            ["free", "billing.read reports.*", "192.0.2.0/24 2001:db8::/32", "burst=50/s,burst=60 monthly=7/month,shadow"],
        )
        self.assertEqual(self.codes(key, status=1), ["IP_NOT_ALLOWED"])
        self.assertIn("# the first customer", self.keys.read_text())
        limited_id, limited = self.issue("--plan", "team", "--limit", "daily=2/day")
        self.assertEqual(self.codes(limited, limited, limited, status=1), ["VALID", "VALID", "USAGE_EXCEEDED"])
        self.assertEqual(self.terms(limited_id), ["team", "-", "-", "daily=2/day"])
        self.assertEqual(self.events("reload.done"), 1)

    def test_what_is_wrong_is_named_and_nothing_is_recorded(self):
        self.start()
        before = self.keys.read_bytes()
        for status, arguments, said in (
            (2, ["--plan", "Free!"], "--plan: 'Free!' is no plan's name (want"),
            (2, ["--plan", ""], "--plan: '' is no plan's name"),
            (1, ["--plan", "gold"], "--plan: 'gold' is defined nowhere"),
            (2, ["--scope", "reports..read"], "--scope: 'reports..read' is no scope (want"),
            (1, ["--scope", "reports.delete"], "--scope: 'reports.delete' is defined nowhere"),
            (2, ["--address", "10.0.0.1/8"], "--address: '10.0.0.1/8' has bits behind its first 8"),
            (2, ["--address", "office"], "--address: 'office' is no address"),
            (2, ["--address", "::1", *["--address", "::2"] * 64], "--address: more than 64"),
            (2, ["--limit", "burst=fast"], "--limit: burst: 'fast' is no rate"),
            (2, ["--limit", "burst=9/s", "--limit", "burst=8/s"], "--limit: burst is given twice"),
            (1, ["--limit", "burst=9/s"], "--limit: burst is no limit of the key's plan"),
            (1, ["--plan", "free", "--limit", "burst=9/day"], "--limit: burst is 100/s in the key's plan"),
        ):
            for verb in (["issue"], ["update", "7HnB3sLqV0Ty"]):
                self.assertEqual(self.ctl(*verb, *arguments, status=status), "", arguments)
                self.assertTrue(self.said.startswith(said), (said, self.said))
                self.assertEqual(self.said.count("\n"), 1, self.said)
        for status, arguments, said in (
            (2, [], "update: nothing to change"),
            (2, ["--clear", "plan", "--plan", "free"], "--clear: plan is set by another option"),
            (2, ["--clear", "scopes", "--scope", "billing.read"], "--clear: scopes is set by another option"),
            (2, ["--clear", "everything"], "apikeyctl: --clear"),
            (2, ["--owner", ""], "--owner: empty (want --clear owner)"),
            (2, ["--expires", "soon"], "--expires: want"),
            (2, ["--metadata", "[1]"], "--metadata: "),
            (2, ["--name", "x" * 256], "key 2RkT9pQwX4Za: name: 256 bytes"),
            (1, ["--drop-limit", "daily"], "--drop-limit: key 2RkT9pQwX4Za itself has no limit 'daily'"),
            (2, ["--limit", "burst=9/s", "--drop-limit", "burst"], "--drop-limit: burst is set by --limit"),
            (1, ["--plan", "team"], "--plan: burst is no limit of the key's plan (it takes the place of one); see --drop-limit"),
        ):
            self.assertEqual(self.ctl("update", "2RkT9pQwX4Za", *arguments, status=status), "", arguments)
            self.assertTrue(self.said.startswith(said), (said, self.said))
        self.ctl("update", "000000000000", "--plan", "free", status=1)
        self.assertIn("000000000000: no key with this id", self.said)
        self.assertEqual(self.keys.read_bytes(), before)

    def test_update_changes_what_is_named_and_nothing_else(self):
        self.configure_slow()
        self.start()
        before = self.keys.read_text()
        self.ctl("update", "2RkT9pQwX4Za", "--limit", "burst=70/min", "--scope", "billing.read", "--scope", "reports.read")
        after = before.replace("name: burst   # slower\n        rate: 50/min\n        burst: 10", "{name: burst, rate: 70/min}")
        after = after.replace("      - reports.*   # all of them\n", "")
        after = after.replace("      - billing.read\n", "      - billing.read\n      - reports.read\n")
        self.assertEqual(self.keys.read_text(), after)
        self.ctl("update", "2RkT9pQwX4Za", "--name", "n", "--owner", "other", "--expires", "1h", "--metadata", '{"a":1}',
                 "--drop-limit", "burst", "--drop-limit", "monthly", "--plan", "team", "--address", "::1")  # fmt: skip
        shown = self.json("show", "2RkT9pQwX4Za", fields=SHOW_FIELDS)
        self.assertEqual([shown[name] for name in ("name", "owner", "metadata", "plan", "addresses", "limits", "scopes")],
                         ["n", "other", {"a": 1}, "team", ["::1"], [], ["billing.read", "reports.read"]])  # fmt: skip
        self.assertIsNotNone(shown["expires"])
        cleared = ["owner", "name", "expires", "metadata", "plan", "scopes", "addresses"]
        self.ctl("update", "2RkT9pQwX4Za", *(word for field in cleared for word in ("--clear", field)))
        shown = self.json("show", "2RkT9pQwX4Za", fields=SHOW_FIELDS)
        self.assertEqual([shown[name] for name in cleared], [None, None, None, None, None, [], []])
        self.assertIn("# of its own", self.keys.read_text())
        self.assertEqual(self.events("reload.done"), 1)

    def test_an_update_is_in_force_at_once(self):
        self.start()
        key_id, key = self.issue("--plan", "team")
        self.assertEqual(self.codes(key, status=0), ["VALID"])
        self.ctl("update", key_id, "--address", "192.0.2.7")
        self.assertEqual(self.codes(key, status=1), ["IP_NOT_ALLOWED"])
        self.ctl("update", key_id, "--clear", "addresses", "--limit", "daily=1/day")
        self.assertEqual(self.codes(key, status=1), ["USAGE_EXCEEDED"])  # what was spent stays spent
        self.ctl("update", key_id, "--drop-limit", "daily")
        self.assertEqual(self.codes(key, status=0), ["VALID"])
        self.kill()
        self.ctl("update", key_id, "--address", "192.0.2.7", status=3)
        self.assertIn("recorded, not in force", self.said)
        self.assertEqual(self.codes(key, status=0), ["VALID"])
        self.start()
        self.assertEqual(self.codes(key, status=1), ["IP_NOT_ALLOWED"])

    def test_rotate_hands_them_on(self):
        self.start()
        before = self.terms("2RkT9pQwX4Za")
        new_id = self.json("rotate", "2RkT9pQwX4Za")["id"]
        self.assertEqual(self.terms(new_id), before)
        self.assertEqual(self.terms("2RkT9pQwX4Za"), before)
        key_id, _ = self.issue("--plan", "team", "--limit", "daily=1/day")
        successor = self.json("rotate", key_id, "--grace", "1h")["key"]
        self.assertEqual(self.codes(successor, successor, status=1), ["VALID", "USAGE_EXCEEDED"])


class Policies(Ctl):
    """Plans, owners and scopes, of the set above unless a test has its own."""

    def setUp(self):
        super().setUp()
        self.keys.write_text(KEYS_WITH_TERMS)

    def changed(self, *replacements):
        """The set above with these lines in the place of others."""
        text = KEYS_WITH_TERMS
        for old, new in replacements:
            self.assertEqual(text.count(old), 1, old)
            text = text.replace(old, new)
        return text

    def test_they_are_listed_and_shown(self):
        plans = self.json("plan", "list", fields=["name", "limits", "keys", "owners"])
        self.assertEqual([(plan["name"], plan["keys"], plan["owners"]) for plan in plans], [("free", 1, 0), ("team", 0, 1)])
        self.assertEqual(
            [list(limit.items()) for limit in plans[0]["limits"]],
            [list(zip(LIMIT_FIELDS, limit, strict=True)) for limit in
             (["burst", "100/s", 200, None, False], ["monthly", None, None, "1000000/month", True])],
        )  # fmt: skip
        self.assertEqual(self.json("plan", "show", "team"), plans[1])
        self.assertIn("burst=100/s,burst=200 monthly=1000000/month,shadow", self.ctl("plan", "show", "free"))
        owners = self.json("owner", "list", fields=["name", "plan", "keys"])
        self.assertEqual([list(owner.values()) for owner in owners], [["acme", "team", 1], ["other", None, 0]])
        self.assertEqual(self.json("owner", "show", "other"), owners[1])
        scopes = self.json("scope", "list", fields=["name", "keys"])
        self.assertEqual([list(scope.values()) for scope in scopes],
                         [["reports.read", 0], ["reports.write", 0], ["billing.read", 1]])  # fmt: skip
        self.assertEqual(self.ctl("plan", "list", "--output", "csv").splitlines()[0], "name,limits,keys,owners")

    def test_a_changed_plan_holds_for_all_its_keys_at_once(self):
        self.configure_slow()
        self.start()
        keys = [self.issue("--plan", "team")[1] for _ in range(2)]
        self.assertEqual(self.codes(*keys * 2, status=0), ["VALID"] * 4)
        self.assertEqual(self.ctl("plan", "update", "team", "--limit", "daily=2/day"), "")
        self.assertEqual(self.codes(*keys, status=1), ["USAGE_EXCEEDED"] * 2)  # what was spent stays spent
        self.ctl("plan", "update", "team", "--limit", "daily=9/day", "--limit", "second=1/d")
        self.assertEqual(self.codes(*keys * 2, status=1), ["VALID"] * 2 + ["RATE_LIMITED"] * 2)
        self.ctl("plan", "update", "team", "--drop-limit", "daily", "--drop-limit", "second")
        self.assertEqual(self.codes(*keys, status=0), ["VALID"] * 2)
        # Nothing of it was parsed again, and what is in force is what the file says.
        self.assertEqual(self.ctl("reload"), "unchanged: the source is what is in force\n")
        self.assertEqual((self.events("reload.done"), self.events("plan.changed")), (1, 3))

    def test_an_owner_shares_from_the_moment_that_it_has_a_plan(self):
        self.configure_slow()
        self.start()
        (_, first), (_, second) = self.issue("--owner", "new"), self.issue("--owner", "new")
        _, stranger = self.issue("--owner", "other")
        self.ctl("plan", "create", "two", "--limit", "daily=2/day")
        self.ctl("owner", "create", "new", "--plan", "two")
        self.assertEqual(self.codes(first, second, first, stranger, status=1), ["VALID", "VALID", "USAGE_EXCEEDED", "VALID"])
        _, third = self.issue("--owner", "new")
        self.assertEqual(self.codes(third, status=1), ["USAGE_EXCEEDED"])
        self.ctl("owner", "update", "new", "--plan", "team")
        self.assertEqual(self.codes(third, status=0), ["VALID"])
        self.ctl("owner", "update", "new", "--clear", "plan")
        self.assertEqual(self.codes(*[first, second, third] * 3, status=0), ["VALID"] * 9)
        self.ctl("owner", "update", "new", "--plan", "two")
        self.assertEqual(self.codes(first, second, third, stranger, status=1)[-1], "VALID")
        self.assertEqual(self.ctl("reload"), "unchanged: the source is what is in force\n")
        self.assertEqual(self.events("reload.done"), 1)

    def test_comments_and_order_stay(self):
        self.start()
        self.ctl("plan", "update", "free", "--limit", "monthly=5/month", "--limit", "hourly=7/hour,shadow")
        self.ctl("plan", "create", "gold", "--limit", "burst=9/s,burst=20", "--limit", "daily=8/day")
        self.ctl("owner", "create", "Zürich AG", "--plan", "gold")
        self.ctl("owner", "update", "acme", "--clear", "plan")
        self.ctl("owner", "delete", "other")
        self.ctl("plan", "delete", "team")
        self.ctl("scope", "delete", "reports.write")
        self.ctl("scope", "create", "a.b")
        self.assertEqual(self.keys.read_text(), self.changed(
            ("      - name: monthly   # long\n        quota: 1000000/month\n        shadow: true\n",
             "      - {name: monthly, quota: 5/month}\n      - {name: hourly, quota: 7/hour, shadow: true}\n"),
            ("  - {name: team, limits: [{name: daily, quota: 5/day}]}\n",
             "  - name: gold\n    limits:\n      - {name: burst, rate: 9/s, burst: 20}\n      - {name: daily, quota: 8/day}\n"),
            ("plan: team}   # the first customer\n  - name: other\n",
             'plan: null}   # the first customer\n  - {name: "Zürich AG", plan: gold}\n'),
            ("[reports.read, reports.write, billing.read]", "[reports.read, billing.read, a.b]"),
        ))  # fmt: skip

    def test_what_is_in_use_is_not_deleted(self):
        self.start()
        key_id, _ = self.issue("--plan", "free", "--owner", "other", "--scope", "billing.read")
        before = self.keys.read_bytes()
        for arguments, said in (
            (["plan", "delete", "free"], "plan free: used by 2 keys, the first 2RkT9pQwX4Za (give them"),
            (["plan", "delete", "team"], "plan team: used by 1 owners, the first 'acme' (give them"),
            (["owner", "delete", "other"], f"owner 'other': used by 1 keys, the first {key_id} (revoke them"),
            (["scope", "delete", "billing.read"], "scope billing.read: used by 2 keys, the first 2RkT9pQwX4Za (grant"),
            (["plan", "update", "free", "--drop-limit", "burst"], "plan free: key 2RkT9pQwX4Za: limits: burst is no limit"),
            (["plan", "update", "free", "--limit", "burst=9/day"], "plan free: key 2RkT9pQwX4Za: limits: burst is 9/day in"),
        ):
            self.assertEqual(self.ctl(*arguments, status=1), "", arguments)
            self.assertTrue(self.said.startswith(said), (said, self.said))
        self.assertEqual(self.keys.read_bytes(), before)
        self.ctl("scope", "delete", "reports.read")  # reports.* still covers another
        self.ctl("revoke", key_id)
        self.ctl("owner", "delete", "other")

    def test_what_is_wrong_is_named_and_nothing_is_recorded(self):
        self.start()
        before = self.keys.read_bytes()
        for status, arguments, said in (
            (2, ["plan"], "apikeyctl: "),
            (2, ["plan", "issue"], "apikeyctl: "),
            (2, ["plan", "create", "Gold"], "'Gold' is no plan's name (want"),
            (1, ["plan", "create", "free"], "free: there is a plan with this name"),
            (2, ["plan", "create", "x", "--limit", "daily=many"], "--limit: daily: 'many' is no rate"),
            (2, ["plan", "create", "x", *(word for i in range(7) for word in ("--limit", f"l{i}=1/s"))], "--limit: 7 limits"),
            (2, ["plan", "update", "free"], "plan update: nothing to change"),
            (1, ["plan", "update", "free", "--drop-limit", "daily"], "--drop-limit: plan free has no limit 'daily'"),
            (1, ["plan", "update", "gold", "--limit", "a=1/s"], "'gold': no plan with this name in"),
            (1, ["plan", "show", "gold"], "'gold': no plan with this name in"),
            (1, ["plan", "delete", "gold"], "'gold': no plan with this name in"),
            (2, ["owner", "create", ""], "'' is no owner's name (want"),
            (2, ["owner", "create", "x", "--plan", "Gold"], "--plan: 'Gold' is no plan's name"),
            (1, ["owner", "create", "x", "--plan", "gold"], "--plan: 'gold' is defined nowhere"),
            (1, ["owner", "create", "acme"], "'acme': there is an owner with this name"),
            (2, ["owner", "update", "acme"], "owner update: want either --plan or --clear plan"),
            (2, ["owner", "update", "acme", "--plan", "free", "--clear", "plan"], "owner update: want either"),
            (1, ["owner", "update", "nobody", "--plan", "free"], "'nobody': no owner with this name in"),
            (1, ["owner", "show", "nobody"], "'nobody': no owner with this name in"),
            (1, ["owner", "delete", "nobody"], "'nobody': no owner with this name in"),
            (2, ["scope", "create", "reports.*"], "'reports.*' is no scope (a branch is granted"),
            (2, ["scope", "create", "a b"], "'a b' is no scope (want"),
            (1, ["scope", "create", "reports.read"], "reports.read: there is a scope with this name"),
            (1, ["scope", "delete", "a.b"], "'a.b': no scope with this name in"),
        ):
            self.assertEqual(self.ctl(*arguments, status=status), "", arguments)
            self.assertTrue(self.said.startswith(said), (said, self.said))
        self.assertEqual(self.keys.read_bytes(), before)

    def test_the_first_ones_of_a_set_are_in_force_when_the_verb_ends(self):
        self.keys.write_text("version: 1\nkeys: []\n")
        self.start()
        generation = self.json("status")["generation"]
        self.ctl("plan", "create", "free", "--limit", "daily=1/day")
        self.assertGreater(self.json("status")["generation"], generation)  # the table had no meters
        self.ctl("scope", "create", "reports.read")
        _, key = self.issue("--plan", "free", "--scope", "reports.*")
        self.assertEqual(self.codes(key, key, status=1), ["VALID", "USAGE_EXCEEDED"])
        self.keys.unlink()
        other = self.top / "other.yaml"
        self.ctl("plan", "create", "free", "--store", f"yaml:{other}", status=3)
        self.assertEqual(other.read_text(), "version: 1\nplans:\n  - name: free\nkeys: []\n")

    def test_with_the_daemon_down_a_change_is_recorded(self):
        self.start()
        _, key = self.issue("--plan", "team")
        self.kill()
        said = f"{self.keys}: recorded, not in force: {self.instance}/admin.sock: "
        for arguments in (["plan", "update", "team", "--limit", "daily=0/day"], ["plan", "create", "gold"],
                          ["owner", "update", "other", "--plan", "gold"], ["scope", "create", "a.b"]):  # fmt: skip
            self.ctl(*arguments, status=3)
            self.assertTrue(self.said.startswith(said), self.said)
        self.assertEqual(self.codes(key, status=0), ["VALID"])
        self.start()
        self.assertEqual(self.codes(key, status=1), ["USAGE_EXCEEDED"])
        self.assertEqual(self.json("owner", "show", "other")["plan"], "gold")

    def test_a_set_that_was_edited_meanwhile_is_read(self):
        self.configure_slow()
        self.start()
        _, key = self.issue("--plan", "free")
        self.keys.write_text(self.keys.read_text().replace("100/s, burst: 200", "1/d"))
        self.ctl("plan", "update", "team", "--limit", "daily=7/day")
        self.assertEqual(self.events("reload.done"), 2)
        self.assertEqual(self.codes(key, key, status=1), ["VALID", "RATE_LIMITED"])
        self.keys.write_text("nonsense: [\n")
        self.ctl("plan", "update", "team", "--limit", "daily=8/day", status=3)
        self.assertNotIn("recorded", self.said)


class Rotation(Ctl):
    def expiry(self, key_id):
        return self.json("show", key_id)["expires"]

    def rotate(self, key_id, *arguments):
        answer = self.json("rotate", key_id, *arguments, fields=["id", "key"])
        return answer["id"], answer["key"]

    def test_without_grace_the_old_key_ends_at_once(self):
        self.start()
        old_id, old = self.issue("--owner", "acme", "--name", "n", "--environment", "test", "--expires", "1h",
                                 "--metadata", '{"a":1}')  # fmt: skip
        new_id, new = self.rotate(old_id)
        self.assertEqual(self.codes(old, new, status=1), ["REVOKED", "VALID"])
        old_row, new_row = self.json("show", old_id), self.json("show", new_id)
        for name in ("owner", "name", "environment", "metadata", "expires"):
            self.assertEqual(new_row[name], old_row[name], name)
        self.assertNotEqual(new_row["sha256"], old_row["sha256"])

    def test_regenerate_is_rotate_without_grace(self):
        self.start()
        old_id, old = self.issue("--owner", "acme")
        new = self.json("regenerate", old_id, fields=["id", "key"])
        self.assertEqual(self.codes(old, new["key"], status=1), ["REVOKED", "VALID"])
        self.assertEqual(self.json("show", new["id"])["owner"], "acme")

    def test_with_grace_the_old_key_ends_at_the_earlier_moment(self):
        self.start()
        never_id, never = self.issue()
        before = int(time.time())
        _, new = self.rotate(never_id, "--grace", "24h")
        self.assertTrue(before <= rfc3339(self.expiry(never_id)) - 86400 <= time.time())
        self.assertEqual(self.codes(never, new, status=0), ["VALID", "VALID"])
        soon_id, _ = self.issue("--expires", "1h")
        ends = self.expiry(soon_id)
        new_id, _ = self.rotate(soon_id, "--grace", "24h")
        self.assertIn(f"{new_id}: expires {ends}, as {soon_id} did", self.said)
        self.assertEqual((self.expiry(soon_id), self.expiry(new_id)), (ends, ends))

    def test_a_grace_ends(self):
        self.start()
        old_id, old = self.issue()
        _, new = self.rotate(old_id, "--grace", "1s")
        self.wait_for(lambda: json.loads(self.verify_any(old))[0]["code"] != "VALID")
        self.assertEqual(self.codes(old, new, status=1), ["EXPIRED", "VALID"])
        self.ctl("rotate", old_id, status=1)
        self.assertIn("has expired", self.said)

    def verify_any(self, key):
        return subprocess.run([OPTIONS.tool, "-c", self.config, "verify", "--output", "json"], input=key + "\n",
                              stdout=subprocess.PIPE, text=True, check=False).stdout  # fmt: skip

    def test_both_rows_stand_in_one_rewrite(self):
        self.start()
        old_id, _ = self.issue()
        changed = self.events("key.changed")
        position = self.json("status")["position"]
        self.rotate(old_id, "--grace", "1h")
        self.assertEqual(self.events("key.changed") - changed, 2)
        self.assertEqual(self.json("status")["position"] - position, 1)

    def test_what_is_over_is_not_rotated(self):
        self.start()
        key_id, _ = self.issue()
        self.ctl("revoke", key_id)
        before = self.keys.read_bytes()
        self.assertEqual(self.ctl("rotate", key_id, status=1), "")
        self.ctl("rotate", key_id, "--grace", "soon", status=2)
        self.assertEqual(self.keys.read_bytes(), before)

    def test_a_disabled_key_hands_on_that_it_is_disabled(self):
        self.start()
        key_id, _ = self.issue()
        self.ctl("disable", key_id)
        _, new = self.rotate(key_id)
        self.assertEqual(self.codes(new, status=1), ["DISABLED"])

    def test_a_successor_that_could_not_be_shown_ends_nothing(self):
        self.start()
        key_id, key = self.issue()
        with open("/dev/full", "w", encoding="ascii") as full:
            self.ctl("rotate", key_id, stdout=full, status=1)
        self.assertEqual(self.codes(key, status=0), ["VALID"])


class Verify(Ctl):
    def test_codes_in_the_order_of_the_lines(self):
        self.start()
        key_id, key = self.issue()
        wrong = key[:-1] + ("0" if key[-1] != "0" else "1")
        stranger = "ak_live_" + "0" * 45
        self.assertEqual(self.codes(key, wrong, "x" * 100_000, "", "not-a-key-of-any-kind", status=1),
                         ["VALID", "MALFORMED", "MALFORMED", "MALFORMED", "NOT_FOUND"])  # fmt: skip
        self.assertEqual(len(self.codes(stranger, status=1)), 1)
        self.assertIn("accepted", self.ctl("verify", stdin=key))  # the last line may lack its line feed
        self.ctl("revoke", key_id)
        table = self.ctl("verify", stdin=key + "\n", status=1)
        self.assertEqual(table.splitlines()[1].split()[:2], ["REVOKED", key_id])
        self.assertIn("revoked for ever", table)

    def test_without_a_key_or_a_table(self):
        self.ctl("verify", stdin="any-key-at-all-1\n", status=3)
        self.assertTrue(self.said.startswith(str(self.instance) + ": "), self.said)
        self.start()
        self.ctl("verify", status=2)
        self.assertIn("standard input: no key", self.said)

    def test_the_table_answers_while_the_daemon_is_down(self):
        self.start()
        _, key = self.issue()
        self.kill()
        self.assertEqual(self.codes(key, status=0), ["VALID"])
        answer = json.loads(self.ctl("--directory", self.top / "run", "verify", "--output", "json", stdin=key, config=False))
        self.assertEqual(answer[0]["code"], "VALID")


class Explain(Ctl):
    FIELDS = ["id", "code", "stale", "checks"]
    ROW_FIELDS = ["check", "result", "detail", "limit", "of", "shadow", "allowance", "remaining", "reset_ms"]

    def setUp(self):
        super().setUp()
        self.keys.write_text(KEYS_WITH_TERMS.replace("daily, quota: 5/day", "daily, quota: 3/day"))

    def explain(self, *arguments, status=0):
        """The code, and the rows by their check, limits by their name."""
        answer = self.json("explain", *arguments, status=status, fields=self.FIELDS)
        for row in answer["checks"]:
            self.assertEqual(list(row), self.ROW_FIELDS)
            self.assertEqual(row.pop("reset_ms") is None, row["limit"] is None)  # another one each time
        return answer["code"], {row["limit"] or row["check"]: row for row in answer["checks"]}

    def test_check_by_check_with_the_daemon_up_and_down(self):
        self.start()
        key_id, key = self.issue("--owner", "acme", "--plan", "free", "--scope", "reports.*", "--expires", "1h",
                                 "--address", "192.0.2.0/24", "--limit", "monthly=0/month,shadow")  # fmt: skip
        request = [key_id, "--address", "192.0.2.7", "--scope", "reports.read OR billing.read", "--environment", "live"]
        before = self.json("usage")
        code, rows = self.explain(*request)
        self.assertEqual(code, "VALID")
        self.assertEqual(list(rows), ["known", "state", "expiry", "environment", "address", "scopes", "burst", "monthly", "daily"])
        self.assertEqual({row["result"] for row in rows.values()}, {"passed"})
        self.assertEqual((rows["state"]["detail"], rows["environment"]["detail"]), ("active", "live"))
        self.assertEqual(rows["expiry"]["detail"], self.json("show", key_id)["expires"])
        figures = ("check", "of", "shadow", "allowance", "remaining")
        self.assertEqual([[rows[name][figure] for figure in figures] for name in ("burst", "monthly", "daily")],
                         [["rate", "key", False, 200, 200], ["quota", "key", True, 0, 0], ["quota", "owner", False, 3, 3]])  # fmt: skip
        self.assertIn("in shadow mode; would refuse", rows["monthly"]["detail"])
        self.assertEqual(self.json("usage"), before)  # nothing was counted
        self.assertEqual(self.explain(*request)[1], rows)  # nor spent
        self.kill()
        self.assertEqual(self.explain(*request), (code, rows))
        self.assertEqual(self.explain(*request, "--cost", "4", status=1)[0], "USAGE_EXCEEDED")
        code, rows = self.explain(key_id, "--scope", "billing.read", "--environment", "test", status=1)
        self.assertEqual(code, "INSUFFICIENT_PERMISSIONS")  # the first that fails
        self.assertEqual([rows[name]["result"] for name in ("environment", "address", "scopes", "daily")],
                         ["failed", "failed", "failed", "passed"])  # fmt: skip
        self.assertEqual(rows["address"]["detail"], "none is given, and the key is bound to 1 networks")
        self.assertEqual(self.explain(key_id, "--address", "::1", status=1)[0], "IP_NOT_ALLOWED")

    def test_the_code_is_what_a_request_is_answered(self):
        self.start()
        spent_id, spent = self.issue("--plan", "team")
        self.assertEqual(self.codes(*[spent] * 3, status=0), ["VALID"] * 3)
        ids = {name: self.issue()[0] for name in ("disable", "revoke")}
        for verb, key_id in ids.items():
            self.ctl(verb, key_id)
        for key_id, code in ((spent_id, "USAGE_EXCEEDED"), (ids["disable"], "DISABLED"), (ids["revoke"], "REVOKED"),
                             ("000000000000", "NOT_FOUND"), ("7HnB3sLqV0Ty", "VALID")):  # fmt: skip
            self.assertEqual(self.explain(key_id, status=0 if code == "VALID" else 1)[0], code)
        self.assertEqual(self.explain(spent_id, status=1)[1]["daily"]["remaining"], 0)
        unlimited = self.explain("7HnB3sLqV0Ty")[1]
        self.assertEqual([unlimited[name]["result"] for name in ("environment", "address", "scopes", "limits")], ["not asked"] * 4)
        table = self.ctl("explain", spent_id, status=1).splitlines()
        self.assertEqual(table[0].split(), [name.upper() for name in self.ROW_FIELDS])
        self.assertEqual(table[-1].split()[:3], ["verdict", "failed", "USAGE_EXCEEDED"])
        rows = list(csv.DictReader(io.StringIO(self.ctl("explain", spent_id, "--output", "csv", status=1), newline="")))
        self.assertEqual([row["check"] for row in rows],
                         ["known", "state", "expiry", "environment", "address", "scopes", "quota", "verdict"])  # fmt: skip

    def test_wrong_use_and_no_table(self):
        self.ctl("explain", "7HnB3sLqV0Ty", status=3)
        self.assertTrue(self.said.startswith(str(self.instance) + ": "), self.said)
        self.start()
        for arguments, said in (
            (["--scope", "reports.delete"], "--scope: 'reports.delete', character 1: no scope of this name"),
            (["--scope", "(reports.read"], "--scope: '(reports.read', character 14: no expression"),
            (["--address", "office"], "--address: 'office' is no address"),
            (["--cost", "0"], "apikeyctl: --cost"),
            (["--environment", ""], "--environment: want 1 to 15 characters"),
        ):
            self.assertEqual(self.ctl("explain", "7HnB3sLqV0Ty", *arguments, status=2), "", arguments)
            self.assertTrue(self.said.startswith(said), (said, self.said))


class Usage(Ctl):
    def test_totals_are_what_was_verified(self):
        self.start()
        first_id, first = self.issue()
        second_id, second = self.issue()
        unused_id, _ = self.issue()
        self.codes(first, first, second, "no-such-key-anywhere", status=1)
        self.ctl("revoke", first_id)
        self.codes(first, first, first, status=1)
        answer = self.json("usage", fields=["complete", "unflushed", "keys", "codes"])
        self.assertIs(answer["complete"], True)
        totals = {one["id"]: (one["allowed"], one["denied"]) for one in answer["keys"]}
        self.assertEqual(totals, {first_id: (2, 3), second_id: (1, 0)})
        self.assertEqual(answer["codes"], {"VALID": 3, "NOT_FOUND": 1, "REVOKED": 3})
        one = self.json("usage", first_id, fields=["id", "allowed", "denied", "last_used"])
        self.assertEqual((one["allowed"], one["denied"]), (2, 3))
        shown = self.json("show", first_id)
        self.assertEqual((shown["allowed"], shown["denied"], shown["last_used"]), (2, 3, one["last_used"]))
        zeros = self.json("usage", unused_id)
        self.assertEqual(zeros, {"id": unused_id, "allowed": 0, "denied": 0, "last_used": None})
        self.assertEqual(self.ctl("usage", "--output", "csv").splitlines()[0], "id,allowed,denied,last_used")
        self.assertIn("REVOKED", self.ctl("usage"))

    def test_by_time(self):
        self.start()
        first_id, first = self.issue()
        second_id, second = self.issue()
        self.codes(first, first, second, status=0)
        self.ctl("usage")
        self.codes(first, "no-such-key-anywhere", status=1)
        wanted = {first_id: 3, second_id: 1}
        for by in ("minute", "hour", "day"):
            answer = self.json("usage", "--by", by, fields=["complete", "unflushed", "partial", "keys", "codes"])
            sums = dict.fromkeys(wanted, 0)
            for one in answer["keys"]:
                self.assertEqual(list(one), ["start", "id", "allowed", "denied"])
                sums[one["id"]] += one["allowed"]
            self.assertEqual(sums, wanted)
            self.assertEqual(sum(one["total"] for one in answer["codes"] if one["code"] == "NOT_FOUND"), 1)
            one = self.json("usage", first_id, "--by", by, "--since", "2d", fields=["complete", "unflushed", "partial", "keys"])
            self.assertEqual(sum(one["allowed"] for one in one["keys"]), 3)
        for period in (["--since", "1970-01-01"], ["--since", "24h"], ["--since", "90m"]):
            answer = self.json("usage", *period, fields=["complete", "unflushed", "partial", "keys", "codes"])
            self.assertEqual({one["id"]: one["allowed"] for one in answer["keys"]}, wanted)
            self.assertIn({"code": "VALID", "total": 4}, answer["codes"])
        self.assertIn("START", self.ctl("usage", "--by", "day").splitlines()[0])
        day = ["--since", "1970-01-01", "--until", "2020-01-01"]
        self.assertEqual(self.ctl("usage", *day, "--output", "csv"), "id,allowed,denied\n")
        self.assertEqual(self.json("usage", *day), {"complete": True, "unflushed": 0, "partial": False, "keys": [], "codes": []})

        # A stretch that is over stays as it is, whatever is counted later.
        minute = (int(time.time()) // 60 + 1) * 60
        until = ["--until", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(minute - 60)), "--output", "csv"]
        before = self.ctl("usage", "--by", "minute", *until)
        self.codes(first, second, status=0)
        self.assertEqual(self.ctl("usage", "--by", "minute", *until), before)

    def test_no_stretch_of_time(self):
        self.start()
        key_id, _ = self.issue()
        for arguments, said in (
            (["--since", "last week"], "--since: 'last week' is no time (want "),
            (["--until", "2026-01-01T00:00:01Z"], "--until: 2026-01-01T00:00:01Z is not the start of a full minute"),
            (["--since", "2026-01-02", "--until", "2026-01-01"], "--since: 2026-01-02T00:00:00Z is after --until"),
            (["--since", "9999-01-01"], "--since: 9999-01-01T00:00:00Z has no counts yet"),
            (["--by", "week"], "apikeyctl: --by"),
        ):
            self.assertEqual(self.ctl("usage", *arguments, status=2), "", arguments)
            self.assertTrue(self.said.startswith(said), (said, self.said))
        self.assertEqual(self.json("usage", key_id, "--since", "1d")["keys"][0]["allowed"], 0)
        self.assertEqual(self.ctl("usage", "000000000000", "--by", "day", status=1), "")
        self.assertIn("000000000000: no key with this id", self.said)

    def test_a_store_that_was_removed_is_filled_again(self):
        self.start()
        idle_id, idle = self.issue()
        busy_id, busy = self.issue()
        self.codes(idle, idle, busy, status=0)
        self.ctl("usage")
        for file in self.top.glob("usage.db*"):
            file.unlink()
        self.codes(busy, status=0)
        self.ctl("usage")  # finds the store gone, makes another, and marks what that one does not know
        totals = {one["id"]: one["allowed"] for one in self.json("usage")["keys"]}
        self.assertEqual(totals, {idle_id: 2, busy_id: 2})
        self.assertEqual(self.events("usage.reopened"), 1)

    def test_with_the_daemon_down_the_store_is_read(self):
        self.start()
        key_id, key = self.issue()
        self.codes(key, status=0)
        self.ctl("usage")
        self.kill()
        self.codes(key, status=0)  # counted, not flushed
        answer = self.json("usage")
        self.assertIn("counts since the last flush are missing: 1 unflushed", self.said)
        self.assertEqual((answer["complete"], answer["unflushed"]), (False, 1))
        self.assertEqual([(one["id"], one["allowed"]) for one in answer["keys"]], [(key_id, 1)])
        self.start()
        self.assertEqual(self.json("usage", key_id)["allowed"], 2)

    def test_without_a_store(self):
        self.ctl("usage", "--no-flush", status=3)
        self.assertIn(f"{self.top}/usage.db: ", self.said)


class DaemonDown(Ctl):
    def test_a_change_is_recorded_and_in_force_after_the_start(self):
        self.start()
        gone_id, gone = self.issue()
        old_id, old = self.issue()
        self.kill()
        said = f"{self.keys}: recorded, not in force: {self.instance}/admin.sock: "
        new = json.loads(self.ctl("issue", "--output", "json", status=3))["key"]
        self.assertTrue(self.said.startswith(said), self.said)
        self.ctl("revoke", gone_id, status=3)
        self.assertTrue(self.said.startswith(said), self.said)
        successor = self.ctl("rotate", old_id, status=3).strip()
        self.assertEqual(self.codes(gone, old, new, successor, status=1), ["VALID", "VALID", "NOT_FOUND", "NOT_FOUND"])
        self.start()
        self.assertEqual(self.codes(gone, old, new, successor, status=1), ["REVOKED", "REVOKED", "VALID", "VALID"])

    def test_a_stopped_daemon_is_silent_not_down(self):
        self.start()
        key_id, _ = self.issue()
        self.daemon.send_signal(signal.SIGSTOP)
        try:
            self.assertEqual(self.json("status", status=3, fields=STATUS_FIELDS)["daemon"], "silent")
        finally:
            self.daemon.send_signal(signal.SIGCONT)
        self.ctl("revoke", key_id)

    def test_what_is_not_there_is_not_counted(self):
        answer = self.json("verify", stdin="ak_live_2RkT9pQwX4Za_" + "0" * 33 + "\n", status=3)[0]
        self.assertEqual((answer["code"], answer["counted"]), ("UNAVAILABLE", False))

    def test_verbs_that_need_it(self):
        self.ctl("reload", status=3)
        self.assertTrue(self.said.startswith(f"{self.instance}/admin.sock: "), self.said)

    def test_status_from_shared_memory(self):
        before = self.json("status", status=3, fields=STATUS_FIELDS)
        self.assertEqual((before["daemon"], before["generation"]), ("down", 0))
        self.start()
        self.issue()
        up = self.json("status", fields=STATUS_FIELDS)
        self.assertEqual((up["daemon"], up["pid"], up["keys"]), ("up", self.daemon.pid, 1))
        self.assertEqual((up["source"], up["load_error"]), (f"yaml:{self.keys}", None))
        self.kill()
        down = self.json("status", status=3, fields=STATUS_FIELDS)
        self.assertEqual((down["daemon"], down["pid"], down["keys"], down["generation"]), ("down", None, 1, up["generation"]))
        self.assertIn("down", self.ctl("--directory", self.top / "run", "status", status=3, config=False))

    def test_an_answer_that_is_an_error(self):
        """Played by a socket of the test's own: the daemon itself cannot easily be brought to it."""
        self.start()
        key_id, _ = self.issue()
        self.kill()
        (self.instance / "admin.sock").unlink(missing_ok=True)
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as door:
            door.bind(str(self.instance / "admin.sock"))
            door.listen()
            door.settimeout(WAIT_S)
            verbs = []

            def answer():
                for _ in range(2):
                    with contextlib.closing(door.accept()[0]) as peer, peer.makefile("rw") as lines:
                        verbs.append(json.loads(lines.readline())["verb"])
                        apply = {"ok": False, "error": "no room in the table"}
                        status = {"ok": True, "source": f"yaml:{self.keys}", "superseded": []}
                        lines.write(json.dumps(apply if verbs[-1] == "apply" else status) + "\n")

            thread = threading.Thread(target=answer)
            thread.start()
            self.ctl("revoke", key_id, status=3)
            thread.join()
        self.assertIn(f"{self.keys}: recorded, not in force: ", self.said)
        self.assertIn("no room in the table", self.said)
        self.assertEqual(verbs, ["status", "apply"])


class Together(Ctl):
    def test_two_operators_lose_nothing_and_the_daemon_never_parses(self):
        # The notice of a rename waits longer than the tool takes to tell what it changed, also on a busy machine.
        self.configure("{debounce_ms: 3000, poll_ms: 3600000}")
        self.start()
        parsed = self.events("reload.done")
        with concurrent.futures.ThreadPoolExecutor(2) as operators:
            def twenty(owner):
                return [self.plain_issue(owner) for _ in range(20)]

            issued = [key for keys in operators.map(twenty, ["left", "right"]) for key in keys]
        self.assertEqual(len(set(issued)), 40)
        self.assertEqual(self.codes(*issued, status=0), ["VALID"] * 40)
        rows = self.json("list")
        self.assertEqual(sorted(row["id"] for row in rows), sorted(key.split("_")[2] for key in issued))
        self.ctl("revoke", rows[0]["id"])
        self.ctl("rotate", rows[1]["id"])
        self.assertEqual(self.ctl("reload"), "unchanged: the source is what is in force\n")
        # An editor's change is parsed; its one parse comes after whatever ours might have started.
        with self.keys.open("a") as keys:
            keys.write("# edited\n")
        self.wait_for(lambda: self.events("reload.done") > parsed)
        self.assertEqual(self.events("reload.done"), parsed + 1)

    def plain_issue(self, owner):
        done = subprocess.run([OPTIONS.tool, "-c", self.config, "issue", "--owner", owner], stdout=subprocess.PIPE,
                              text=True, check=True, timeout=WAIT_S)  # fmt: skip
        return done.stdout.strip()

    def test_a_plaintext_is_nowhere(self):
        self.start()
        key_id, key = self.issue("--owner", "acme", "--metadata", '{"a":1}')
        said = self.said
        successor = self.json("rotate", key_id, "--grace", "1h")["key"]
        said += self.said
        for _ in range(3):
            self.codes(key, successor, key + "x", status=1)
            said += self.said
        self.ctl("usage")
        self.ctl("list")
        self.ctl("doctor")
        looked_at = 0
        for path in self.top.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                looked_at += 1
                for one in (key, successor):
                    self.assertNotIn(one[-33:-6].encode(), content, path)
        self.assertGreaterEqual(looked_at, 7)  # control, table, cells, lock, key set, usage store, log
        self.assertNotIn(key[-33:-6], said)
        self.assertIn(key_id.encode(), self.keys.read_bytes())  # the search does find what is there

    def test_a_daemon_of_another_source_is_not_told(self):
        self.start()
        other = self.top / "other.yaml"
        other.write_text("version: 1\nkeys: []\n")
        key = self.ctl("issue", "--store", f"yaml:{other}", status=3).strip()
        self.assertIn(f"serves yaml:{self.keys}", self.said)
        self.assertEqual(self.codes(key, status=1), ["NOT_FOUND"])
        self.assertEqual(len(self.json("list", "--store", f"yaml:{other}")), 1)
        self.ctl("list", "--store", "mysql:x", status=2)


class Reload(Ctl):
    def test_results(self):
        self.keys.write_text(COMMENTED_KEYS)
        self.start()
        self.assertEqual(self.ctl("reload"), "unchanged: the source is what is in force\n")
        answer = self.json("reload", "--force", fields=["unchanged", "keys", "added", "updated", "removed"])
        self.assertEqual(answer, {"unchanged": False, "keys": 2, "added": 0, "updated": 0, "removed": 0})
        self.keys.write_text(COMMENTED_KEYS + "nonsense: [\n")
        self.ctl("reload", status=1)
        self.assertTrue(self.said.startswith(f"{self.keys}:"), self.said)
        self.ctl("list", status=3)
        self.assertTrue(self.said.startswith(f"{self.keys}:"), self.said)
        self.ctl("disable", "2RkT9pQwX4Za", status=3)
        self.assertEqual(self.keys.read_text(), COMMENTED_KEYS + "nonsense: [\n")

    def test_a_key_that_only_a_refused_set_lacks_is_said_to_be_accepted_still(self):
        self.start()
        issued = [self.issue() for _ in range(12)]
        lost_id, lost = issued[0]
        self.keys.write_text("version: 1\nkeys: []\n")
        self.ctl("reload", status=1)
        self.assertEqual(self.codes(lost, status=0), ["VALID"])
        self.ctl("revoke", lost_id, status=1)
        self.assertIn(f"{lost_id}: no key with this id in {self.keys}", self.said)
        self.assertIn("may still be accepted", self.said)
        self.assertIn("would remove 12 of 12 keys", self.said)
        self.ctl("reload", "--force")
        self.assertEqual(self.codes(lost, status=1), ["NOT_FOUND"])
        self.ctl("revoke", lost_id, status=1)
        self.assertNotIn("accepted", self.said)

    def test_a_stranger_is_not_permitted(self):
        self.assertEqual(os.geteuid(), 0, "this test plays two users: run it as root")
        self.start()
        key_id, _ = self.issue()
        # Reachable for everyone, so that only the peer's credentials are left to decide.
        for path, mode in ((self.top, 0o755), (self.top / "run", 0o755), (self.instance, 0o755),
                           (self.instance / "admin.sock", 0o666), (self.config, 0o644), (self.keys, 0o644)):  # fmt: skip
            path.chmod(mode)
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f"apikeyd-test-{os.getpid()}-"))
        self.addCleanup(shutil.rmtree, folder)
        folder.chmod(0o755)
        tool = shutil.copy(OPTIONS.tool, folder)

        def as_nobody(*arguments):
            return subprocess.run([tool, "-c", self.config, *arguments], user=NOBODY, group=NOBODY, extra_groups=[],
                                  capture_output=True, text=True, timeout=WAIT_S, check=False)  # fmt: skip

        refused = as_nobody("reload")
        self.assertEqual((refused.returncode, refused.stdout), (1, ""))
        self.assertIn("not permitted", refused.stderr)
        self.assertEqual(as_nobody("status").returncode, 0)
        (self.instance / "admin.sock").chmod(0o660)
        unknown = as_nobody("status", "--output", "json")
        self.assertEqual((unknown.returncode, json.loads(unknown.stdout)["daemon"]), (3, "forbidden"))
        self.assertIn("Permission denied", unknown.stderr)
        (self.instance / "admin.sock").chmod(0o666)
        before = self.keys.read_bytes()
        self.assertEqual(as_nobody("revoke", key_id).returncode, 3)
        self.assertEqual(self.keys.read_bytes(), before)
        # With a key set of his own he may record what he likes, but the daemon does not take it from him.
        self.keys.chmod(0o666)
        os.chown(self.keys, NOBODY, NOBODY)
        os.chown(self.top / "keys.yaml.lock", NOBODY, NOBODY)
        self.top.chmod(0o777)
        refused = as_nobody("disable", key_id)
        self.assertEqual(refused.returncode, 3, refused.stderr)
        self.assertRegex(refused.stderr, "recorded, not in force: .*not permitted")


    def test_a_group_of_operators_shares_a_key_set(self):
        self.assertEqual(os.geteuid(), 0, "this test plays several users: run it as root")
        operators, clients = grp.getgrnam("staff"), grp.getgrnam("games")
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f"apikeyd-test-{os.getpid()}-"))
        self.addCleanup(shutil.rmtree, folder)
        folder.chmod(0o755)
        tool = shutil.copy(OPTIONS.tool, folder)
        team = self.top / "team"
        team.mkdir()
        os.chown(team, 0, operators.gr_gid)
        team.chmod(0o2770)
        self.top.chmod(0o755)
        self.keys = team / "keys.yaml"
        self.configure("{debounce_ms: 1, poll_ms: 100}")
        with self.config.open("a") as config:
            config.write(f"operators_group: {operators.gr_name}\nclients_group: {clients.gr_name}\n")
        self.config.chmod(0o644)
        self.keys.write_text("version: 1\nkeys: []\n")
        os.chown(self.keys, 0, operators.gr_gid)
        self.keys.chmod(0o660)
        self.start()
        first_id, first = self.issue()  # by root, who also makes the lock file

        def as_operator(user, *arguments):
            return subprocess.run([tool, "-c", self.config, *arguments], user=user, group=NOBODY,
                                  extra_groups=[operators.gr_gid, clients.gr_gid], capture_output=True, text=True,
                                  timeout=WAIT_S, check=False)  # fmt: skip

        issued = as_operator(4242, "issue", "--owner", "acme")
        self.assertEqual((issued.returncode, issued.stderr), (0, ""))
        revoked = as_operator(4343, "revoke", first_id)
        self.assertEqual((revoked.returncode, revoked.stderr), (0, ""))
        self.assertEqual(self.codes(first, issued.stdout.strip(), status=1), ["REVOKED", "VALID"])
        status = self.keys.stat()
        self.assertEqual((status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)), (4343, operators.gr_gid, 0o660))
        # Without the group's write permission it is its owner's alone.
        self.keys.chmod(0o640)
        refused = as_operator(4242, "disable", issued.stdout.split("_")[2])
        self.assertEqual(refused.returncode, 3)
        self.assertIn("keep its owner and group", refused.stderr)
        self.assertEqual(self.keys.stat().st_ino, status.st_ino)


class Doctor(Ctl):
    def levels(self, *arguments, status):
        findings = self.json("doctor", *arguments, status=status, fields=["check", "level", "detail", "advice"])
        return {one["check"]: one["level"] for one in findings}

    def test_all_is_well(self):
        self.start()
        self.issue()
        levels = self.levels(status=0)
        self.assertEqual(
            list(levels),
            ["config", "directory", "daemon", "last load", "attach", "heartbeat", "cells", "sha256", "memory", "source",
             "in force", "usage", "flush"],
        )  # fmt: skip
        self.assertEqual({level for check, level in levels.items() if check not in ("sha256", "memory")}, {"ok"}, levels)
        self.assertRegex(self.ctl("doctor"), r"(?m)^ok +directory +/")

    def test_with_the_daemon_down(self):
        levels = self.levels(status=3)
        self.assertEqual((levels["directory"], levels["daemon"], levels["attach"]), ("fail", "fail", "fail"))
        self.start()
        self.kill()
        levels = self.levels(status=3)
        self.assertEqual((levels["directory"], levels["daemon"], levels["attach"], levels["flush"]),
                         ("ok", "fail", "ok", "warn"))  # fmt: skip

    def test_each_fault_is_found(self):
        self.start()
        self.issue()
        (self.instance / "control").chmod(0o644)
        self.assertEqual(self.levels(status=1)["files"], "fail")
        (self.instance / "control").chmod(0o640)
        self.instance.chmod(0o755)
        self.assertEqual(self.levels(status=1)["directory"], "ok")  # the last finding of that name
        self.instance.chmod(0o750)
        good = self.keys.read_text()
        self.keys.write_text(good + "nonsense: [\n")
        self.ctl("reload", status=1)
        levels = self.levels(status=1)
        self.assertEqual((levels["source"], levels["last load"]), ("fail", "fail"))
        self.keys.write_text(good)
        self.ctl("reload", "--force")
        self.levels(status=0)
        self.kill()
        self.keys.write_text(good + "# other\n")
        self.assertEqual(self.levels(status=3)["in force"], "warn")
        self.config.write_text("source: [\n")
        self.assertEqual(self.levels(status=3)["config"], "fail")


class Gen(Ctl):
    def gen(self, count, *arguments, **options):
        return self.ctl("gen", str(count), "--keys", self.keys, "--plain", self.top / "plain.txt", *arguments, **options)

    def test_every_key_is_good(self):
        self.keys.unlink()
        self.gen(5000, "--environment", "trial", "--owners", "3")
        for path in (self.keys, self.top / "plain.txt"):
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        plain = (self.top / "plain.txt").read_text().split()
        self.assertEqual(len(set(plain)), 5000)
        self.start()
        self.assertEqual(self.json("status")["keys"], 5000)
        self.assertEqual(set(self.codes(*plain, status=0)), {"VALID"})
        owners = [row["owner"] for row in self.json("list", "--environment", "trial")]
        self.assertEqual({name: owners.count(name) for name in set(owners)},
                         {"owner-0": 1667, "owner-1": 1667, "owner-2": 1666})  # fmt: skip

    def test_nothing_is_overwritten(self):
        before = self.keys.read_bytes()
        self.gen(10, status=1)
        self.assertIn(f"{self.keys}: is there already", self.said)
        self.assertEqual(self.keys.read_bytes(), before)
        self.keys.unlink()
        (self.top / "plain.txt").write_text("mine")
        self.gen(10, status=1)
        self.assertEqual((self.top / "plain.txt").read_text(), "mine")
        self.assertFalse(self.keys.exists())

    def test_wrong_use(self):
        self.keys.unlink()
        self.gen(0, status=2)
        self.gen(10, "--owners", "0", status=2)
        self.gen(10, "--environment", "Nope", status=2)
        self.assertFalse(self.keys.exists())


class Help(Ctl):
    VERBS = ("issue list show update disable enable revoke rotate regenerate delete import export verify explain usage reload "
             "status doctor gen").split()
    NOUNS = {
        "plan": "list show create update delete",
        "owner": "list show create update delete",
        "scope": "list create delete",
    }

    def test_every_verb_shows_an_example(self):
        listed = self.ctl("--help")
        for verb in self.VERBS:
            self.assertRegex(listed, rf"(?m)^  {verb} ")
            self.assertIn(f"Example:\n  apikeyctl {verb}", self.ctl(verb, "--help"))
        for noun, verbs in self.NOUNS.items():
            self.assertRegex(listed, rf"(?m)^  {noun} ")
            listed_verbs = self.ctl(noun, "--help")
            for verb in verbs.split():
                self.assertRegex(listed_verbs, rf"(?m)^  {verb} ")
                self.assertIn(f"Example:\n  apikeyctl {noun} {verb}", self.ctl(noun, verb, "--help"))
        self.ctl(status=2)
        self.ctl("unknown-verb", status=2)
        self.ctl("--output", "xml", "list", status=2)

    def test_a_configuration_that_was_named_must_be_good(self):
        self.config.write_text("source: [\n")
        for verb in ("issue", "list", "status", "reload", "usage"):
            self.ctl(verb, status=3)
            self.assertTrue(self.said.startswith(f"{self.config}:"), self.said)


def main(*more):
    """Runs the tests of the program, which is told by options where daemon and tool are, and what else is named."""
    global OPTIONS
    parser = argparse.ArgumentParser()
    for option in ("--daemon", "--tool", *more):
        parser.add_argument(option, required=True)
    OPTIONS, rest = parser.parse_known_args()
    # A test that is ended from outside still stops its daemon and removes its files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)


if __name__ == "__main__":
    main()
