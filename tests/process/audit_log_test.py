#!/usr/bin/env python3
"""Promise: every admin action that was answered stands in the audit log once, with who did it as the kernel says and
what it changed, through rotation; and a log that cannot be written stops nothing."""

import contextlib
import grp
import gzip
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import subprocess
import sys
import threading
import unittest

from live_daemon import LiveDaemon, PATIENCE_S, binary, key_id, make_key, wait_until

LOGROTATE = pathlib.Path(sys.argv.pop(1))  # the file that is installed
NOBODY = 65534


def fields(line):
    """A logfmt line as a dictionary; a quoted value stays quoted."""
    return dict(part.split("=", 1) for part in re.findall(r'[a-z_.]+=(?:"(?:[^"\\]|\\.)*"|[^" ]+)', line))


class AuditLog(unittest.TestCase):
    more = "audit_log: {{file: {home}/audit.log}}\n"

    def setUp(self):
        self.daemon = LiveDaemon(binary("APIKEYD"), self.more)
        self.addCleanup(self.daemon.close)
        self.audit = self.daemon.home / "audit.log"
        self.key = make_key()
        self.daemon.rows[self.key] = {"name": "CI"}
        self.prepare()
        self.daemon.start()

    def prepare(self):
        """Before the daemon starts."""

    def tool(self, *arguments, status=0):
        command = [binary("APIKEYCTL"), "--config", self.daemon.config, *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tool:
            out, err = tool.communicate(timeout=PATIENCE_S)
        self.assertEqual(tool.returncode, status, out + err)
        return tool.pid, out

    def lines(self):
        return [fields(line) for line in self.audit.read_text().splitlines()]

    def main_log(self, event):
        return [line for line in (self.daemon.home / "log").read_text().splitlines() if f"event={event} " in line + " "]

    def kill(self, number):
        self.daemon.process.send_signal(number)


class Actions(AuditLog):
    def expect(self, line, **wanted):
        wanted = {name.replace("__", "."): value for name, value in wanted.items()}
        self.assertEqual({name: line.get(name) for name in wanted}, wanted, line)

    def test_a_verb_is_told_with_the_peer_and_what_it_changed(self):
        identifier = key_id(self.key)
        me = {"actor": "operator", "uid": str(os.getuid()), "gid": str(os.getgid()), "result": "ok"}
        me["user"] = pwd.getpwuid(os.getuid()).pw_name
        pid, _ = self.tool("disable", identifier)
        self.expect(self.lines()[-1], event="key.disable", pid=str(pid), id=identifier, before__state="active",
                    after__state="disabled", **me)
        self.tool("enable", identifier)
        self.expect(self.lines()[-1], event="key.enable", before__state="disabled", after__state="active", **me)
        self.tool("plan", "create", "team", "--limit", "burst=10/s")
        self.expect(self.lines()[-1], event="plan.create", id="team", after__limits='"{name: burst, rate: 10/s}"', **me)
        self.tool("owner", "create", "acme", "--plan", "team")
        self.expect(self.lines()[-1], event="owner.create", id="acme", after__plan="team", **me)
        self.tool("update", identifier, "--name", 'a "b" \\ c', "--owner", "acme", "--plan", "team")
        self.expect(self.lines()[-1], event="key.update", before__name="CI", after__name=r'"a \"b\" \\ c"',
                    after__owner="acme", after__plan="team", before__state=None, **me)
        self.tool("rotate", identifier, "--grace", "1h")
        created, rotated = self.lines()[-2:]
        self.expect(created, event="key.create", after__name=r'"a \"b\" \\ c"', before__name=None, **me)
        self.expect(rotated, event="key.rotate", id=identifier, successor=created["id"], before__expires=None, **me)
        self.assertRegex(rotated["after.expires"], r"^\d{4}-")
        self.tool("revoke", identifier)
        self.expect(self.lines()[-1], event="key.revoke", before__state="active", after__state="revoked", **me)
        text = self.audit.read_text()
        self.assertNotRegex(text, r"ak_live_|[0-9a-f]{40}", "neither a key nor a digest")
        # A key that only its plaintext tells: what the tool printed.
        _, key = self.tool("issue", "--owner", "acme", "--environment", "live")
        self.assertNotIn(key.strip()[-46:], self.audit.read_text().replace(key_id(key.strip()), ""))
        self.expect(self.lines()[-1], event="key.create", id=key_id(key.strip()), after__owner="acme", **me)

    def test_a_failure_is_told_with_its_reason(self):
        identifier = key_id(self.key)
        self.tool("revoke", identifier)
        row = {"id": identifier, "sha256": "00" * 32, "foreign": False, "state": "active", "environment": "live",
               "owner": "", "name": "", "metadata": "", "created": 0, "terms": {"plan": "none"}}
        before = self.lines()
        answer = self.daemon.request({"verb": "apply", "before": "00" * 32, "after": "00" * 32,
                                      "changes": [{"op": "upsert", "row": row}]})
        self.assertFalse(answer["ok"])
        self.assertEqual(len(self.lines()), len(before) + 1)
        line = self.audit.read_text().splitlines()[-1]
        self.assertIn("level=warn event=key.create actor=operator ", line)
        self.assertIn(f'result="{answer["error"]}"', line)

    def test_an_edited_source_is_told_key_by_key_up_to_a_bound(self):
        self.expect(self.lines()[-1], event="source.load", actor="source", keys="1", added="1", left_out="0")
        many = [make_key() for _ in range(300)]
        for key in many:
            self.daemon.rows[key] = {}
        self.daemon.rows[self.key] = {"name": "other", "state": "revoked"}
        before = len(self.lines())
        self.daemon.write_keys()
        wait_until(lambda: len(self.lines()) > before and self.lines()[-1]["event"] == "source.load", "no load")
        told = self.lines()[before:]
        self.assertEqual([line["actor"] for line in told], ["source"] * len(told))
        self.assertEqual([line["event"] for line in told].count("key.create"), 250)
        revoked = [line for line in told if line["event"] == "key.revoke"]
        self.assertEqual(len(revoked), 1)
        self.expect(revoked[0], id=key_id(self.key), before__name="CI", after__name="other", before__state="active",
                    after__state="revoked")
        self.expect(told[-1], result="ok", keys="301", added="300", updated="1", removed="0", left_out="50")

    def test_reloads_and_what_was_refused(self):
        self.tool("reload")
        self.expect(self.lines()[-1], event="reload", actor="operator", force="false", unchanged="true", result="ok")
        good = self.daemon.key_set.read_text()
        fresh = self.daemon.key_set.with_suffix(".new")
        fresh.write_text("keys: 7\n")
        fresh.rename(self.daemon.key_set)
        self.tool("reload", status=1)
        self.kill(signal.SIGHUP)
        wait_until(lambda: len(self.main_log("reload.refused")) >= 2, "no second refusal")
        refused = [line for line in self.lines() if "want a list of keys" in line["result"]]
        self.assertEqual(sorted(line["event"] for line in refused), ["reload", "source.load"])
        fresh.write_text(good)
        fresh.rename(self.daemon.key_set)
        self.tool("reload")
        self.assertEqual(self.lines()[-1]["result"], "ok")

    @unittest.skipIf(os.getuid() != 0, "only root changes users")
    def test_strangers_are_told_and_cannot_fill_the_disk(self):
        before = len(self.lines())
        for path in (self.daemon.home, self.daemon.directory, self.daemon.directory / "default"):
            path.chmod(0o755)
        (self.daemon.directory / "default" / "admin.sock").chmod(0o666)
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                answers = [self.daemon.request({"verb": "reload", "force": True}) for _ in range(200)]
                os._exit(0 if all("not permitted" in answer["error"] for answer in answers) else 1)
            os._exit(2)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
        told = self.lines()[before:]
        self.expect(told[0], event="admin.refused", actor="other", uid=str(NOBODY), gid=str(NOBODY), pid=str(child),
                    user=pwd.getpwuid(NOBODY).pw_name, request="reload", result='"not permitted"')
        # All came in one second, or in some: each has its share, and counts what it left out before.
        self.assertLess(len(told), 200)
        self.assertLessEqual(len(told) + sum(int(line["left_out"]) for line in told), 200)


class Trouble(AuditLog):
    @unittest.skipIf(os.getuid() != 0, "only root mounts")
    def test_a_full_disk_stops_nothing_and_is_told_once(self):
        disk = self.daemon.home / "disk"
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]
        mounted = subprocess.run(mount, capture_output=True, check=False)
        if mounted.returncode != 0:
            self.skipTest("no file system can be mounted here")
        self.addCleanup(lambda: subprocess.run(["umount", "-l", disk], check=True))
        self.full()
        (disk / "filler").unlink()
        self.recovered(disk / "audit.log")

    def prepare(self):
        (self.daemon.home / "disk").mkdir()
        text = self.daemon.config.read_text().replace("/audit.log", "/disk/audit.log")
        self.daemon.config.write_text(text)
        self.audit = self.daemon.home / "disk" / "audit.log"

    def full(self):
        # The file that is open lies beneath the mount: opened anew, as after a rotation.
        self.kill(signal.SIGUSR1)
        wait_until(lambda: self.audit.exists(), "not reopened")
        with contextlib.suppress(OSError):
            with (self.audit.parent / "filler").open("wb", buffering=0) as filler:
                while filler.write(b"x" * 512):
                    pass
        for _ in range(5):
            self.tool("disable", key_id(self.key))
            self.tool("enable", key_id(self.key))
        self.assertEqual(len(self.main_log("audit.not_written")), 1)
        self.assertIn("No space left on device", self.daemon.request({"verb": "status"})["audit_problem"])

    def recovered(self, path):
        self.tool("revoke", key_id(self.key))
        self.assertEqual(len(self.main_log("audit.written_again")), 1)
        self.assertEqual(self.daemon.request({"verb": "status"})["audit_problem"], "")
        self.assertRegex(path.read_text(), r"event=log.dropped lines=\d+\n.*event=key.revoke")

    def test_a_directory_that_is_gone_stops_nothing(self):
        shutil.rmtree(self.audit.parent)
        self.tool("disable", key_id(self.key))
        self.assertIn("No such file", self.daemon.request({"verb": "status"})["audit_problem"])
        self.assertIn("audit log", self.tool("doctor", "--output", "json")[1])
        self.daemon.stop()
        self.daemon.start()
        self.tool("enable", key_id(self.key))
        self.assertEqual(len(self.main_log("audit.not_written")), 2)  # once by each daemon
        self.audit.parent.mkdir()
        self.recovered(self.audit)


class Rotation(AuditLog):
    def rotate(self):
        """By the file that is installed, with this test's paths, user and daemon in it."""
        home = self.daemon.home
        text = LOGROTATE.read_text()
        user = f"su {pwd.getpwuid(os.getuid()).pw_name} {grp.getgrgid(os.getgid()).gr_name}"
        for theirs, ours in (("/var/log/apikeyd/*.log", f"{home}/*.log"), ("su apikeyd apikey", user)):
            self.assertIn(theirs, text)
            text = text.replace(theirs, ours)
        config = home / "logrotate.conf"
        config.write_text(text)
        systemctl = home / "bin" / "systemctl"
        systemctl.parent.mkdir(exist_ok=True)
        systemctl.write_text(
            f'#!/bin/sh\n[ "$*" = "kill --kill-who=main --signal=USR1 apikeyd.service" ] || exit 1\n'
            f"kill -USR1 {self.daemon.process.pid}\n"
        )
        systemctl.chmod(0o755)
        subprocess.run(
            ["logrotate", "-f", "-s", home / "state", config], check=True, timeout=PATIENCE_S,
            env=os.environ | {"PATH": f"{systemctl.parent}:{os.environ['PATH']}:/usr/sbin:/sbin"},
        )

    def test_under_load_no_line_is_lost_and_none_doubled(self):
        wanted = []
        done = threading.Event()

        def act():
            while not done.is_set():
                pid, _ = self.tool("disable" if len(wanted) % 2 == 0 else "enable", key_id(self.key))
                wanted.append(str(pid))

        actor = threading.Thread(target=act)
        actor.start()
        self.addCleanup(actor.join)
        self.addCleanup(done.set)
        for turn in range(5):
            at_least = len(wanted) + 10
            wait_until(lambda: len(wanted) >= at_least or not actor.is_alive(), "no actions")
            self.rotate()
            wait_until(lambda: self.audit.exists(), f"rotation {turn}: not reopened")
        done.set()
        actor.join()
        told = []
        for number in range(5, -1, -1):
            path = self.audit.with_name(f"audit.log.{number}") if number else self.audit
            packed = path.with_name(path.name + ".gz")
            text = gzip.decompress(packed.read_bytes()).decode() if packed.exists() else path.read_text()
            told += [fields(line)["pid"] for line in text.splitlines() if "actor=operator" in line]
        self.assertEqual(told, wanted)
        self.assertGreaterEqual(len(wanted), 50)


class Json(AuditLog):
    more = "audit_log: {{file: {home}/audit.log, format: json}}\n"

    def test_each_line_is_an_object(self):
        self.tool("update", key_id(self.key), "--name", "a \"b\" 'c' \\n")
        line = json.loads(self.audit.read_text().splitlines()[-1])
        self.assertEqual((line["event"], line["uid"]), ("key.update", os.getuid()))
        self.assertEqual(line["after.name"], "a \"b\" 'c' \\n")


if __name__ == "__main__":
    unittest.main(argv=["audit_log_test"], verbosity=2)
