#!/usr/bin/env python3
"""Promise: tools/quickstart shows a key's whole life with real programs, and leaves nothing behind however it ends."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import unittest
import uuid

from live_daemon import PATIENCE_S

PROGRAMS = ["daemon/apikeyd", "tools/apikeyctl", "client/examples/apikey-example-server", "bench/apikey-bench"]
MARK = "APIKEYD_QUICKSTART_TEST"


def processes_with(mark):
    found = []
    for environment in pathlib.Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{MARK}={mark}".encode() in environment.read_bytes().split(b"\0"):
                found.append((environment.parent / "cmdline").read_bytes().replace(b"\0", b" "))
        except (PermissionError, FileNotFoundError, ProcessLookupError):
            pass
    return found


class Quickstart(unittest.TestCase):
    def setUp(self):
        self.mark = uuid.uuid4().hex
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.stand_in = pathlib.Path(folder.name)

    def start(self, *arguments):
        process = subprocess.Popen(
            [script, *arguments],
            env=os.environ | {MARK: self.mark},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        return process

    def run_to_its_end(self, *arguments):
        process = self.start(*arguments)
        output, errors = process.communicate(timeout=PATIENCE_S)
        return process.returncode, output, errors

    def assert_nothing_left(self, output):
        folder = re.search(r"in (/dev/shm/apikeyd-quickstart-\w+)$", output, re.MULTILINE)
        self.assertIsNotNone(folder, output)
        self.assertFalse(pathlib.Path(folder[1]).exists())
        self.assertEqual(processes_with(self.mark), [])

    def build_with(self, name, script):
        """A build folder of links to the real programs, but for one."""
        for program in PROGRAMS:
            path = self.stand_in / program
            path.parent.mkdir(parents=True, exist_ok=True)
            if program == name:
                path.write_text(script)
                path.chmod(0o755)
            else:
                path.symlink_to(build / program)
        return self.stand_in

    def test_a_key_is_issued_accepted_revoked_refused_and_counted(self):
        status, output, errors = self.run_to_its_end("--build", build)
        self.assertEqual((status, errors), (0, ""), output)
        sections = dict(re.findall(r"^== (.*)\n((?:(?!== ).*\n?)*)", output, re.MULTILINE))

        def of(start):
            return next(text for title, text in sections.items() if title.startswith(start))

        self.assertIn("\nsource: sqlite:keys.db\n", of("Start the daemon"))
        self.assertRegex(of("Define who owns keys"), r"owner create acme\n/dev/shm/\S+/keys.db: made")
        key = re.fullmatch(r"\$ apikeyctl .* issue .*\n(ak_live_(\w{12})_\w{33})\n\s*", of("Issue a key"))
        self.assertIsNotNone(key, of("Issue a key"))
        self.assertEqual(output.count(key[1]), 1, "the key is shown when it is issued, and never again")
        self.assertEqual(re.findall(r"^HTTP (\d+)$", of("The server accepts"), re.MULTILINE), ["200"])
        self.assertIn(f'"key_id":"{key[2]}"', of("The server accepts"))
        self.assertIn(f"revoke {key[2]}\n", of("Revoke it"))
        self.assertEqual(re.findall(r"^HTTP (\d+)$", of("The server refuses"), re.MULTILINE), ["401"])
        self.assertNotIn("revoked", of("The server refuses").lower())
        counted = of("What was counted")
        self.assertRegex(counted, rf"(?m)^{key[2]} +1 +1 ")
        self.assertRegex(counted, r"(?m)^VALID +1\s*$")
        self.assertRegex(counted, r"(?m)^REVOKED +1\s*$")
        self.assertIn("--keys trial-keys.yaml", of("Throughput"))
        throughput = re.search(r"^throughput +(\d+) validations/s$", of("Throughput"), re.MULTILINE)
        self.assertIsNotNone(throughput, of("Throughput"))
        self.assertGreater(int(throughput[1]), 0)
        shown = {"cat", "apikeyd", "apikeyctl", "apikey-example-server", "apikey-bench", "printf"}
        self.assertEqual(set(re.findall(r"^\$ (\S+)", output, re.MULTILINE)), shown)
        self.assert_nothing_left(output)

    def test_signals_end_it_and_everything_it_started(self):
        for number, status in (signal.SIGINT, 130), (signal.SIGTERM, 143):
            with self.subTest(number.name):
                process = self.start("--build", build)
                output = ""
                while "listening on" not in output:
                    line = process.stdout.readline()
                    if not line:
                        self.fail(output + process.communicate()[1])
                    output += line
                self.assertNotEqual(processes_with(self.mark), [])
                os.killpg(process.pid, number)  # as a terminal's Ctrl-C does
                rest, errors = process.communicate(timeout=PATIENCE_S)
                self.assertEqual(process.returncode, status, rest + errors)
                self.assertNotIn("Stop everything", rest)
                self.assert_nothing_left(output)

    def test_a_step_that_fails_is_named_and_everything_is_cleaned_up(self):
        real = build / "tools/apikeyctl"
        fails = f'#!/bin/sh\n[ "$3" != revoke ] || exit 3\nexec {real} "$@"\n'
        status, output, errors = self.run_to_its_end("--build", self.build_with("tools/apikeyctl", fails))
        self.assertEqual(status, 3)
        self.assertIn("stopped in step 'Revoke it", errors)
        self.assertNotIn("The server refuses", output)
        self.assert_nothing_left(output)

    def test_a_revocation_that_is_not_in_force_does_not_pass(self):
        real = build / "tools/apikeyctl"
        idle = f'#!/bin/sh\n[ "$3" != revoke ] || exit 0\nexec {real} "$@"\n'
        status, output, errors = self.run_to_its_end("--build", self.build_with("tools/apikeyctl", idle))
        self.assertEqual(status, 1)
        self.assertIn("the server should have answered HTTP 401", errors)
        self.assert_nothing_left(output)

    def test_a_daemon_that_does_not_start_is_told_with_its_own_words(self):
        broken = "#!/bin/sh\necho no such luck >&2\nexit 1\n"
        status, output, errors = self.run_to_its_end("--build", self.build_with("daemon/apikeyd", broken))
        self.assertEqual(status, 1)
        self.assertIn("apikeyd ended before it was ready", errors)
        self.assertIn("no such luck", errors)
        self.assert_nothing_left(output)

    def test_a_build_folder_without_programs_is_one_clear_line(self):
        status, output, errors = self.run_to_its_end("--build", self.stand_in)
        self.assertEqual((status, output, len(errors.splitlines())), (2, "", 1), errors)
        self.assertIn(f"{self.stand_in}/daemon/apikeyd is missing", errors)

    def test_wrong_usage(self):
        for arguments in ["--build"], ["--nonsense"]:
            with self.subTest(arguments):
                status, output, errors = self.run_to_its_end(*arguments)
                self.assertEqual((status, output), (2, ""))
                self.assertIn("usage: tools/quickstart", errors)


if __name__ == "__main__":
    script, build = map(pathlib.Path, sys.argv[1:3])
    unittest.main(argv=sys.argv[:1] + sys.argv[3:], verbosity=2)
