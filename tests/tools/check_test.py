#!/usr/bin/env python3
"""Promise: tools/check passes only when every test of every program ran, passed and left nothing behind."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

TOOLS = pathlib.Path(sys.argv[1])
PASSED = '<testcase name="a" classname="S" status="run"/>'
FAILED = '<testcase name="b" classname="S" status="run"><failure message="no"/></testcase>'
DISABLED = '<testcase name="c" classname="S" status="notrun"/>'
SKIPPED = '<testcase name="d" classname="S" status="run"><skipped message="no"/></testcase>'


def reporting(*cases, then="exit 0"):
    """The body of a program that writes a gtest report where meson tells it to."""
    report = "<testsuites><testsuite name='S'>" + "".join(cases) + "</testsuite></testsuites>"
    return f"cat >\"${{1#--gtest_output=xml:}}\" <<'END'\n{report}\nEND\n{then}"


def alive(pid):
    try:
        return not pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):
        return False


class Check(unittest.TestCase):
    """Runs a copy of the scripts on a project of shell scripts that play the test programs."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.top = pathlib.Path(folder.name) / "tree"
        self.memory = pathlib.Path(folder.name) / "memory"
        self.memory.mkdir()
        (self.top / "tools").mkdir(parents=True)
        (self.top / "tests/unit").mkdir(parents=True)
        shutil.copy(TOOLS / "testlog.py", self.top / "tools")
        # Other tests may be at work in the true places, so this check looks at a folder of its own.
        script = (TOOLS / "check").read_text()
        self.assertEqual(script.count("find /dev/shm /run "), 1)
        self.write("tools/check", script.replace("find /dev/shm /run ", f"find {self.memory} "))
        self.write("tools/setup", "#!/bin/sh\n")
        self.write("meson_options.txt", "option('fuzz', type: 'boolean', value: false)\n")
        self.write("meson.build", "project('tree')\nsubdir('tests/unit')\n")

    def write(self, path, text):
        (self.top / path).write_text(text)
        (self.top / path).chmod(0o755)

    def programs(self, protocol="gtest", timeouts=None, **bodies):
        lines = ["sh = find_program('sh')"]
        for name, body in bodies.items():
            self.write(f"tests/unit/{name}", f"#!/bin/sh\n{body}\n")
            # Each needs a target, as real tests do.
            lines.append(
                f"t = custom_target('{name}', output: '{name}.run', input: '{name}',"
                " command: ['cp', '@INPUT@', '@OUTPUT@'])\n"
                f"test('{name}', sh, args: t, suite: 'unit', protocol: '{protocol}', timeout: {(timeouts or {}).get(name, 60)})"
            )
        self.write("tests/unit/meson.build", "\n".join(lines) + "\n")

    def check(self):
        """Returns the exit status and the last line."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MESON")}
        result = subprocess.run(
            ["bash", "tools/check", "--quick"],
            cwd=self.top,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.output = result.stdout
        return result.returncode, result.stdout.splitlines()[-1]

    def test_sums_the_cases(self):
        self.programs(one=reporting(PASSED, PASSED, DISABLED), two=reporting(PASSED, SKIPPED))
        self.assertEqual(self.check(), (0, "3 passed, 0 failed, 2 skipped"), self.output)

    def test_a_failed_case_fails(self):
        self.programs(one=reporting(PASSED, FAILED, then="exit 1"), two=reporting(PASSED))
        self.assertEqual(self.check(), (1, "2 passed, 1 failed, 0 skipped"), self.output)
        self.assertIn("one: S.b", self.output)

    def test_a_crash_fails_though_an_earlier_run_left_a_report(self):
        self.programs(one=reporting(PASSED))
        self.assertEqual(self.check()[0], 0, self.output)
        self.programs(one="kill -ABRT $$")
        self.assertEqual(self.check(), (1, "0 passed, 1 failed, 0 skipped"), self.output)

    def test_a_bad_end_after_good_cases_fails(self):
        self.programs(one=reporting(PASSED, then="exit 66"))
        self.assertEqual(self.check(), (1, "1 passed, 1 failed, 0 skipped"), self.output)

    def test_a_timeout_fails(self):
        self.programs(timeouts={"two": 1}, one=reporting(PASSED), two="exec sleep 20")
        self.assertEqual(self.check(), (1, "1 passed, 1 failed, 0 skipped"), self.output)
        self.assertIn("two: TIMEOUT", self.output)

    def test_a_program_without_cases_or_report_fails(self):
        self.programs(one=reporting(), two="exit 0", three=reporting(PASSED))
        self.assertEqual(self.check(), (1, "1 passed, 2 failed, 0 skipped"), self.output)

    def test_no_test_at_all_fails(self):
        self.programs()
        self.assertEqual(self.check(), (1, "0 passed, 1 failed, 0 skipped"), self.output)

    def test_a_broken_build_fails(self):
        self.programs(one=reporting(PASSED))
        self.write("tests/unit/meson.build", (self.top / "tests/unit/meson.build").read_text().replace("'cp'", "'false'"))
        self.assertEqual(self.check(), (1, "0 passed, 1 failed, 0 skipped"), self.output)

    def test_other_programs_count_as_one(self):
        self.programs(protocol="exitcode", one="exit 0", two="exit 1", three="exit 77")
        self.assertEqual(self.check(), (1, "1 passed, 1 failed, 1 skipped"), self.output)

    def test_a_segment_left_behind_fails(self):
        (self.memory / "apikeyd-before").mkdir()
        self.programs(one=reporting(PASSED, then=f"mkdir {self.memory}/apikeyd-1000"))
        self.assertEqual(self.check(), (1, "1 passed, 1 failed, 0 skipped"), self.output)
        self.assertIn(f"{self.memory}/apikeyd-1000\n", self.output)
        self.assertNotIn("apikeyd-before", self.output)

    def test_a_process_left_running_fails_and_is_ended(self):
        pid_file = self.top / "pid"
        left = f"setsid sleep 300 >/dev/null 2>&1 </dev/null & echo $! >{pid_file}"
        self.programs(one=reporting(PASSED, then=left))
        self.assertEqual(self.check(), (1, "1 passed, 1 failed, 0 skipped"), self.output)
        self.assertIn("left running by the tests", self.output)
        pid = int(pid_file.read_text())
        # A killed process takes its time to go on a busy machine, and may stay as a zombie where nobody waits.
        for _ in range(600):
            if not alive(pid):
                break
            time.sleep(0.1)
        self.assertFalse(alive(pid))


if __name__ == "__main__":
    unittest.main(argv=["check_test", *sys.argv[2:]], verbosity=2)
