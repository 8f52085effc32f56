#!/usr/bin/env python3
"""Promise: bench/report writes tables, targets and plots of one run, checks its peers' answers, and leaves nothing.

No speed is asserted: the runs here are too short to mean anything.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import uuid
import xml.etree.ElementTree as ElementTree

REPORT, MICRO, SERVING = (pathlib.Path(argument) for argument in sys.argv[1:4])
PLOTS = ("latency", "throughput", "percentiles", "peers")
PATIENCE_S = 240

# Stands in for redis-server: stores nothing, and answers every GET with the bytes in its place.
FALSE_REDIS = """#!{python}
import re, socket, sys
if "--version" in sys.argv:
    sys.exit(print("v=0.0.1"))
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[sys.argv.index("--unixsocket") + 1])
listener.listen()
connection, _ = listener.accept()
while chunk := connection.recv(1 << 20):
    for word in re.findall(rb"SELECT|SET|GET", chunk):
        connection.sendall({answer!r} if word == b"GET" else b"+OK\\r\\n")
"""


class Report(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="report-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.output = self.folder / "report"
        self.mark = f"REPORT_TEST={uuid.uuid4()}"
        self.addCleanup(self.nobody_left)

    def nobody_left(self):
        """Whatever the report started has ended, and its directories are gone."""
        for environment in pathlib.Path("/proc").glob("[0-9]*/environ"):
            try:
                marked = self.mark.encode() in environment.read_bytes()
            except OSError:
                continue
            self.assertFalse(marked, f"{environment.parent.name} still runs")

    def start(self, *arguments, path=None, **options):
        """`path`: where programs are looked for, instead of the usual places."""
        command = [sys.executable, REPORT, *map(str, arguments)]
        name, value = self.mark.split("=")
        environment = {"PATH": path or "/usr/local/bin:/usr/bin:/bin", name: value}
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        )

    def run_report(self, *arguments, path=None):
        short = ["--min-time", "0.001", "--repetitions", "9", "--output", self.output]
        process = self.start(MICRO, *short, *arguments, path=path)
        out, err = process.communicate(timeout=PATIENCE_S)
        return process.returncode, out, err

    def rows(self, head):
        """The cells of the table in the report whose first column is called so."""
        lines = (self.output / "report.md").read_text().splitlines()
        first = next(number for number, line in enumerate(lines) if line.startswith(f"| {head} |"))
        last = next(number for number in range(first, len(lines)) if not lines[number])
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[first + 2 : last]]

    def test_tables_targets_and_plots(self):
        status, out, err = self.run_report("--keys", "50,1000")
        self.assertEqual(status, 0, err)
        self.assertRegex(out, r"\d+ targets held, \d+ missed, \d+ n/a\n$")
        self.assertGreater(len(json.loads((self.output / "micro.json").read_text())["benchmarks"]), 100)

        judged = 0
        for what, median, quartiles, target, floor, verdict in self.rows("ratio"):
            self.assertRegex(target, r"^[≤≥] \d+(\.\d+)?$", what)
            if median.startswith("n/a: "):
                self.assertRegex(median, "not asked for$|fewer than")
                self.assertEqual(verdict, "")
                continue
            judged += 1
            low, high = map(float, quartiles.split(" to "))
            # Of a difference the lower may be below 0: these runs are short.
            self.assertTrue((0 < low or "more than" in what) and low <= high, quartiles)
            bound = float(target[2:])
            verdict, within, _ = verdict.partition(", within the spread")
            if min(abs(low - bound), abs(high - bound)) > 0.01:
                self.assertEqual(bool(within), low < bound < high, what)
            beyond = float(median) - bound
            if abs(beyond) > 0.01:  # else the rounded figures do not tell
                self.assertEqual(verdict == "held", beyond < 0, what)
                if beyond > 0 and abs(float(floor or 0) - bound) > 0.01:
                    out_of_reach = floor and float(floor) > bound
                    self.assertEqual(verdict, "MISSED, beyond the floor" if out_of_reach else "MISSED", what)
        self.assertEqual(judged, 5)
        for row in self.rows("keys"):
            for cell in row[2:]:
                self.assertRegex(cell, r"^[\d. ]+ \([\d. ]+ to [\d. ]+\)$")
        self.assertEqual(len(self.rows("keys | limits of a key")), 6)
        for row in self.rows("keys | limits of a key"):
            for cell in row[3::2]:
                self.assertRegex(cell, r"^-?\d+\.\d$")

        text = (self.output / "report.md").read_text()
        self.assertEqual(set(re.findall(r"\]\((\w+)\.svg\)", text)), set(PLOTS))
        for name in PLOTS:
            picture = (self.output / f"{name}.svg").read_text()
            root = ElementTree.fromstring(picture)
            self.assertEqual((root.get("width"), root.get("height")), ("640", "360"))
            self.assertNotIn("nan", picture)
            words = " ".join(element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text"))
            self.assertRegex(words, "ns a|a second", name)

    def test_each_miss_says_what_it_is_made_of(self):
        status, _, err = self.run_report("--keys", "50,1000")
        self.assertEqual(status, 0, err)
        missed = [row[0] for row in self.rows("ratio") if row[5].startswith("MISSED")]
        self.assertEqual([row[0] for row in self.rows("missed")] if missed else [], missed)
        told = dict(self.rows("missed")) if missed else {}
        for what in filter(lambda what: "SHA-256" in what or "unknown" in what, told):
            self.assertRegex(told[what], r"\d ns .*more")

    def test_what_is_missing_is_in_its_row(self):
        empty = self.folder / "empty"
        empty.mkdir()
        self.output.mkdir()
        (self.output / "latency.svg").write_text("of an earlier run")
        status, _, err = self.run_report("--keys", "50", "--only", "std_key/", path=str(empty))
        self.assertEqual(status, 0, err)
        peers = {row[0]: row[1:] for row in self.rows("peer")}
        self.assertEqual(peers["Redis"][0], "n/a: no redis-server")
        self.assertEqual(peers["memcached"][3], "n/a: no memcached")
        self.assertEqual(peers["std::unordered_map"][1], "n/a: left out by --only")
        self.assertRegex(peers["std::unordered_map"][0], r"^\d")
        self.assertFalse((self.output / "throughput.svg").exists())
        self.assertNotIn("earlier", (self.output / "latency.svg").read_text())

    def test_serving_has_its_section_and_targets(self):
        arguments = ["--keys", "50", "--only", "sha256", "--serving", SERVING, "--serving-keys", "2000"]
        status, _, err = self.run_report(*arguments)
        self.assertEqual(status, 0, err)
        text = (self.output / "report.md").read_text()
        self.assertIn("## While the daemon works", text)
        self.assertIn("`serving.json`", text)
        judged = {row[0]: row[1:] for row in self.rows("ratio") if row[5]}
        flush = judged["a flush a second, 1 000 active keys, % of a core"]
        self.assertEqual(flush[1:3], ["", "≤ 1.00"])
        figures = json.loads((self.output / "serving.json").read_text())
        share = figures["tables"]["sweep"][0]["share_percent"]
        self.assertEqual(flush[4], "held" if share <= 1 else "MISSED")
        self.assertEqual(sum("revocation" in what for what in judged), 1)
        for what in ("revoked in SQLite by the tool, from its commit until no process accepts the key", "the same by a foreign program"):
            self.assertEqual(judged[f"{what}, p99, ms"][1:3], ["", "≤ 20.00"])
        self.assertEqual([row[0] for row in self.rows(" | below 1 ms")], ["by the tool", "by a foreign program"])
        two = judged["two processes / one, 2 000 keys"]
        pair = {row["what"]: row["ratio"] for row in figures["tables"]["pair"]}
        self.assertEqual(two[2], "≥ 1.90")
        self.assertEqual(two[3], f"{pair['large table, hashes, 2 processes']:.2f}")
        self.assertRegex(two[1], r"^\d.* to \d")
        self.assertRegex(two[4], "^held" if pair["large table, 2 processes"] >= 1.9 else "MISSED")

    def with_serving(self, lines):
        """Arguments for a run whose serving is this script."""
        program = self.folder / "serving"
        program.write_text("#!/bin/sh\n" + lines)
        program.chmod(0o755)
        return ["--keys", "50", "--only", "sha256", "--serving", program]

    def test_who_ends_it_while_it_serves_keeps_what_was_measured(self):
        begun = self.folder / "begun"
        arguments = self.with_serving(f"echo > {begun}\nexec sleep {PATIENCE_S}\n")
        process = self.start(MICRO, "--min-time", "0.001", "--output", self.output, *arguments, start_new_session=True)
        limit = time.monotonic() + PATIENCE_S
        while not begun.exists():
            self.assertIsNone(process.poll())
            self.assertLess(time.monotonic(), limit)
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
        self.assertNotEqual(process.returncode, 0)
        self.assertTrue(any("SHA-256" in row[0] for row in self.rows("ratio")))
        self.assertNotIn("While the daemon works", (self.output / "report.md").read_text())

    def test_a_wrong_verdict_of_serving_ends_the_run(self):
        status, _, err = self.run_report(*self.with_serving("echo WRONG >&2\nexit 1\n"))
        self.assertEqual(status, 1)
        self.assertIn("ended with status 1", err)
        self.assertFalse((self.output / "report.md").exists())

    def false_redis(self, answer):
        programs = self.folder / "bin"
        programs.mkdir()
        program = programs / "redis-server"
        program.write_text(FALSE_REDIS.format(python=sys.executable, answer=answer))
        program.chmod(0o755)
        return self.run_report("--keys", "50", "--only", "redis_key/50/hit_uniform/single", path=str(programs))

    def test_a_wrong_row_ends_the_run(self):
        status, _, err = self.false_redis(b"$16\r\n" + b"\xff" * 16 + b"\r\n")
        self.assertEqual(status, 1)
        self.assertIn("wrong row", err)
        self.assertFalse((self.output / "report.md").exists())

    def test_a_known_key_that_a_peer_does_not_know_ends_the_run(self):
        status, _, err = self.false_redis(b"$-1\r\n")
        self.assertEqual(status, 1)
        self.assertIn("wrong row", err)

    def test_an_answer_that_is_none_ends_the_run(self):
        status, _, err = self.false_redis(b"-ERR out of mood\r\n")
        self.assertEqual(status, 1)
        self.assertIn("no right one", err)

    def test_a_server_that_does_not_start_is_told(self):
        programs = self.folder / "bin"
        programs.mkdir()
        program = programs / "memcached"
        program.write_text("#!/bin/sh\necho cannot do that >&2\nexit 3\n")
        program.chmod(0o755)
        status, _, err = self.run_report("--keys", "50", path=str(programs))
        self.assertEqual(status, 1)
        self.assertIn("memcached does not start: cannot do that", err)

    @unittest.skipUnless(shutil.which("redis-server"), "no redis-server")
    def test_servers_end_with_it(self):
        arguments = ["--keys", "50", "--only", "redis_key/50/hit_uniform/single", "--min-time", "30"]
        process = self.start(MICRO, *arguments, "--output", self.output)
        self.assertIn("benchmarks", process.stderr.readline())  # by then the server runs
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
        self.assertEqual(process.returncode, 128 + signal.SIGTERM)

    def test_refuses_bad_options(self):
        (self.folder / "file").write_text("")
        for arguments, named in (
            ([], "micro"),
            ([self.folder / "none"], "none"),
            ([self.folder], "executable"),
            ([MICRO, "--keys", "0"], "--keys"),
            ([MICRO, "--keys", "10,10"], "--keys"),
            ([MICRO, "--keys", "1000,x"], "--keys"),
            ([MICRO, "--repetitions", "8"], "--repetitions"),
            ([MICRO, "--min-time", "0"], "--min-time"),
            ([MICRO, "--min-time", "nan"], "--min-time"),
            ([MICRO, "--serving", self.folder / "none"], "none"),
            ([MICRO, "--serving-keys", "10"], "--serving-keys"),
            ([MICRO, "--only", "("], "--only"),
            ([MICRO, "--only", "nothing is called so", "--output", self.output], "--only"),
            ([MICRO, "--output", self.folder / "file"], "--output"),
            ([MICRO, "--fast"], "--fast"),
        ):
            with self.subTest(arguments=arguments):
                process = self.start(*arguments, cwd=self.folder)
                _, err = process.communicate(timeout=PATIENCE_S)
                self.assertEqual(process.returncode, 2, err)
                self.assertIn(named, err.splitlines()[-1])
                self.assertFalse((self.output / "report.md").exists())


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
