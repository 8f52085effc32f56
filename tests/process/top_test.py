#!/usr/bin/env python3
"""Promise: apikeyctl top shows live what servers count, whether the daemon runs or not, on any terminal, and leaves
the terminal as it was, however it ends."""

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import termios
import time
import unittest

from live_daemon import PATIENCE_S, LiveDaemon, binary, key_id, make_key, wait_until

ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"
SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Screen:
    """top on a terminal of its own; close() ends it."""

    def __init__(self, command, columns, lines, environment):
        self.master, self.slave = pty.openpty()
        self.resize(columns, lines)
        self.before = termios.tcgetattr(self.slave)
        self.output = b""
        self.process = subprocess.Popen(
            command, stdin=self.slave, stdout=self.slave, stderr=self.slave, start_new_session=True,
            env={"PATH": os.environ["PATH"], "TERM": "xterm"} | environment,
        )  # fmt: skip

    def resize(self, columns, lines):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read(self):
        while select.select([self.master], [], [], 0.02)[0]:
            self.output += os.read(self.master, 65536)
        return self.output

    def frames(self):
        """What was drawn whole, one text after the other; colours are left in."""
        drawn = self.read().decode().split("\x1b[H\x1b[K")
        return [frame.split("\x1b[J")[0] for frame in drawn[1:]]

    def lines(self, frame):
        return [SEQUENCE.sub("", line).rstrip("\r") for line in frame.split("\n")]

    def wait_for(self, text):
        def seen():
            frames = self.frames()
            return frames and text in SEQUENCE.sub("", frames[-1])

        wait_until(seen, f"{text!r} does not show")
        return self.lines(self.frames()[-1])

    def wait_frames(self, more):
        wanted = len(self.frames()) + more
        wait_until(lambda: len(self.frames()) >= wanted, "nothing is drawn")
        return self.frames()[-1]

    def end(self):
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None and time.monotonic() < deadline:
            self.read()
        self.read()
        return self.process.wait(0)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


class Top(unittest.TestCase):
    def setUp(self):
        self.daemon = LiveDaemon(binary("APIKEYD"))
        self.addCleanup(self.daemon.close)
        self.key = make_key()
        self.daemon.rows[self.key] = {"name": "CI Ä deploy", "owner": "acme"}
        self.tool = [binary("APIKEYCTL"), "--config", str(self.daemon.config)]

    def top(self, *options):
        command = self.tool + ["top", "--interval", "1s", *options]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def screen(self, columns=80, lines=24, environment=None, options=()):
        screen = Screen(self.tool + ["top", "--interval", "1s", *options], columns, lines, environment or {})
        self.addCleanup(screen.close)
        screen.wait_frames(1)
        return screen

    def verify(self, key, times=1):
        for _ in range(times):
            subprocess.run(self.tool + ["verify"], input=key, text=True, capture_output=True, check=False)

    def check_left(self, screen):
        self.assertEqual(screen.output.count(ENTER), screen.output.count(LEAVE))
        self.assertTrue(screen.output.rstrip().endswith(LEAVE), screen.output[-200:])
        self.assertEqual(termios.tcgetattr(screen.slave), screen.before)

    def test_counts_of_others_are_told_as_json_one_object_a_refresh(self):
        self.daemon.start()
        with self.top("--output", "json", "--iterations", "6") as watching:
            first = json.loads(watching.stdout.readline())
            self.verify(self.key, 3)
            self.verify(make_key(), 2)
            looks = [first] + [json.loads(line) for line in watching.stdout]
        self.assertEqual((watching.returncode, len(looks)), (0, 6))
        counted = {
            code: sum(round(look["codes_per_s"][code] * look["seconds"]) for look in looks)
            for code in ("VALID", "NOT_FOUND")
        }
        self.assertEqual(counted, {"VALID": 3, "NOT_FOUND": 2})
        keys = [key for look in looks for key in look["keys"]]
        self.assertEqual({(key["id"], key["owner"], key["name"]) for key in keys}, {(key_id(self.key), "acme", "CI Ä deploy")})
        self.assertEqual(first["daemon"]["pid"], self.daemon.process.pid)
        self.assertEqual(first["table"]["keys"], 1)

    def test_limits_near_exhaustion(self):
        keys = self.daemon.key_set
        self.daemon.start()
        text = keys.read_text().replace('"environment"', '"plan": "small", "environment"')
        plans = 'plans:\n  - {name: small, limits: [{name: monthly, quota: 10/month}]}\nowners:\n  - {name: acme, plan: shared}\n'
        plans = plans.replace("owners:", "  - {name: shared, limits: [{name: burst, rate: 10/d}]}\nowners:")
        fresh = keys.with_suffix(".new")
        fresh.write_text(plans + text)
        fresh.rename(keys)
        self.assertTrue(self.daemon.request({"verb": "reload", "force": False})["ok"])
        self.verify(self.key, 9)
        before = (next((self.daemon.directory / self.daemon.instance).glob("cells.*"))).read_bytes()
        watching = self.top("--output", "json")
        look = json.loads(watching.communicate(timeout=PATIENCE_S)[0])
        limits = {limit["limit"]: limit for limit in look["limits"]}
        self.assertEqual(look["near_limits"], 2)
        self.assertEqual((limits["monthly"]["id"], limits["monthly"]["remaining"]), (key_id(self.key), 1))
        self.assertEqual((limits["burst"]["id"], limits["burst"]["owner"], limits["burst"]["kind"]), (None, "acme", "rate"))
        self.assertEqual(limits["burst"]["remaining"], 1)
        self.assertAlmostEqual(limits["monthly"]["used"], 0.9)
        after = (next((self.daemon.directory / self.daemon.instance).glob("cells.*"))).read_bytes()
        # The daemon clears marks; counters and meters are where they were.
        self.assertEqual(before[:8192], after[:8192])

    def test_plain_text_where_there_is_no_terminal(self):
        self.daemon.start()
        out, err = self.top("--iterations", "2").communicate(timeout=PATIENCE_S)
        self.assertEqual((out.count("apikeyctl top"), err), (2, ""))
        self.assertNotIn("\x1b", out)

    def test_wrong_usage_and_no_instance(self):
        for options in (["--interval", "0s"], ["--interval", "x"], ["--iterations", "-1"], ["--sort", "name"], ["--output", "csv"]):
            watching = self.top(*options)
            watching.communicate(timeout=PATIENCE_S)
            self.assertEqual(watching.returncode, 2, options)
        watching = self.top()
        out, err = watching.communicate(timeout=PATIENCE_S)
        self.assertEqual((watching.returncode, out, err.count("\n")), (3, "", 1))
        self.assertIn(str(self.daemon.directory), err)

    def test_every_width_is_kept_to(self):
        self.daemon.start()
        screen = self.screen()
        for columns, lines in ((80, 24), (40, 10), (200, 50), (8, 3), (1, 1), (80, 24)):
            screen.resize(columns, lines)
            screen.wait_frames(2)  # one may have been under way
            shown = screen.lines(screen.frames()[-1])
            self.assertLessEqual(len([line for line in shown if line]), lines)
            self.assertLessEqual(max(len(line) for line in shown), columns)
        self.assertIn("serving", "".join(screen.wait_for("heartbeat")))

    def test_the_terminal_is_restored_however_it_ends(self):
        self.daemon.start()
        for name, end, status in (
            ("q", lambda screen: os.write(screen.master, b"q"), 0),
            ("SIGINT", lambda screen: screen.process.send_signal(signal.SIGINT), 0),
            *(
                (name, lambda screen, name=name: screen.process.send_signal(getattr(signal, name)), -getattr(signal, name))
                for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGALRM", "SIGABRT", "SIGBUS", "SIGXCPU")
            ),
        ):
            with self.subTest(name):
                screen = self.screen()
                self.assertNotEqual(termios.tcgetattr(screen.slave), screen.before, "keys are read one by one")
                end(screen)
                self.assertEqual(screen.end(), status)
                self.check_left(screen)

    def test_stopped_and_continued_it_takes_the_screen_again(self):
        self.daemon.start()
        screen = self.screen()
        screen.process.send_signal(signal.SIGTSTP)
        os.waitpid(screen.process.pid, os.WUNTRACED)
        screen.read()
        self.check_left(screen)
        screen.process.send_signal(signal.SIGCONT)
        wait_until(lambda: screen.read().count(ENTER) == 2, "it does not go on")
        os.write(screen.master, b"q")
        self.assertEqual(screen.end(), 0)
        self.check_left(screen)

    def test_a_daemon_that_dies_and_comes_back(self):
        self.daemon.start()
        screen = self.screen()
        screen.wait_for("serving  heartbeat")
        self.daemon.process.kill()
        self.daemon.process.wait()
        screen.wait_for("daemon silent")
        self.daemon.start()
        screen.wait_for(f"pid {self.daemon.process.pid}")
        self.daemon.stop()
        screen.wait_for("daemon stopped")
        shutil.rmtree(self.daemon.directory)
        screen.wait_for("no table yet")
        self.daemon.start()
        screen.wait_for(f"pid {self.daemon.process.pid}")
        self.verify(self.key, 3)
        screen.wait_for(key_id(self.key))
        os.write(screen.master, b"q")
        self.assertEqual(screen.end(), 0)

    def test_colour_is_left_out_where_not_wanted(self):
        self.daemon.start()
        self.assertRegex(self.screen().wait_frames(1), COLOUR)
        screen = self.screen(environment={"NO_COLOR": "1"})
        screen.wait_frames(2)
        self.assertNotRegex("".join(screen.frames()), COLOUR)

    def test_ends_after_its_iterations(self):
        self.daemon.start()
        screen = self.screen(options=("--iterations", "1"))
        self.assertEqual(screen.end(), 0)
        self.check_left(screen)


if __name__ == "__main__":
    unittest.main()
