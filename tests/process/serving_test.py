#!/usr/bin/env python3
"""Promise: bench/serving measures all its duties, its figures agree with each other, and it leaves nothing behind.

No speed is asserted: the runs here are too short to mean anything.
"""

import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

SERVING = pathlib.Path(sys.argv[1])
PATIENCE_S = 240
KEYS = 3000
SWITCHES = 5
REPETITIONS = 3
SHORT = ["--keys", KEYS, "--switch-keys", KEYS, "--seconds", "0.03", "--repetitions", REPETITIONS]
SHORT += ["--switches", SWITCHES]
REVOCATIONS = 10
PERCENTILES = ("p50_ns", "p99_ns", "p99_9_ns", "max_ns")


class Serving(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="serving-test-")
        self.addCleanup(folder.cleanup)
        self.json = pathlib.Path(folder.name) / "figures.json"
        before = self.directories()
        self.addCleanup(lambda: self.assertEqual(self.directories() - before, set(), "left behind"))

    @staticmethod
    def directories():
        return {path for place in ("/dev/shm", "/var/tmp") for path in pathlib.Path(place).glob("apikeyd-bench-*")}

    def start(self, *arguments):
        command = [SERVING, *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run_serving(self, *arguments):
        process = self.start(*arguments)
        out, err = process.communicate(timeout=PATIENCE_S)
        return process.returncode, out, err

    def figures(self, *arguments):
        status, out, err = self.run_serving(*SHORT, "--json", self.json, *arguments)
        self.assertEqual(status, 0, err)
        figures = json.loads(self.json.read_text())
        self.assertGreater(figures["clock"]["step_ns"], 0)
        tables = {name: {row["what"]: row for row in rows} for name, rows in figures["tables"].items()}
        for name, rows in tables.items():
            self.assertIn(f"\n{name}: ", out)
            for what in rows:
                self.assertIn(f"  {what} ", out)
        return tables

    def check_percentiles(self, row):
        values = [row[name] for name in PERCENTILES]
        self.assertEqual(values, sorted(values), row)

    def test_switch(self):
        rows = self.figures("--only", "switch")["switch"]
        for row in rows.values():
            self.check_percentiles(row)
        self.assertEqual(rows["no refresh, calls at a switch"]["samples"], SWITCHES)
        fewer = (SWITCHES + 3) // 4
        for case in ("refresh every 10 ms", "refresh every 1 s", "refresh every 1 s, unknown keys too"):
            # A refresh may catch up with two publications at once.
            self.assertLessEqual(rows[f"{case}, refreshes that switch"]["samples"], fewer)
            self.assertGreater(rows[f"{case}, around"]["samples"], 0)
            self.assertGreater(rows[f"{case}, calls at a switch"]["samples"], 0)
        # The slowest call around switches is at least as slow as the slowest that switched, up to the buckets' 3%.
        slowest = rows["no refresh, calls at a switch"]["max_ns"]
        self.assertGreaterEqual(rows["no refresh, around"]["max_ns"], 0.9 * slowest)
        self.assertGreater(rows["quiet"]["p50_ns"], 0)
        self.assertGreater(rows["quiet, unknown"]["samples"], 0)
        self.assertGreater(rows["refresh every 1 s, unknown keys too, unknown, around"]["samples"], 0)

    def test_hot(self):
        rows = self.figures("--only", "hot")["hot"]
        self.assertEqual(len(rows), 9)
        for row in rows.values():
            self.assertGreater(row["counted"], 0)
            self.assertGreater(row["call_ns"], 0)
        for cells in ("sharded", "sharded, limited", "one cell"):
            alone = rows[f"{cells}, 1 thread"]
            self.assertEqual(alone["ratio"], 1)
            for case in ("2 threads", "2 processes"):
                row = rows[f"{cells}, {case}"]
                self.assertAlmostEqual(row["ratio"], row["call_ns"] / alone["call_ns"], places=4)
        self.assertEqual(rows["one cell, 1 thread"]["shards"], 1)
        self.assertGreaterEqual(rows["sharded, 1 thread"]["shards"], 1)

    def test_pair(self):
        rows = self.figures("--only", "pair")["pair"]
        self.assertEqual(len(rows), 12)
        for table in ("small table", "large table"):
            self.assertEqual(rows[f"{table}, 1 process"]["ratio"], 1)
            self.assertEqual(rows[f"{table}, hashes, 1 process"]["ratio"], 1)
            for case, floor in (
                ("2 processes", "hashes, 2 processes"),
                ("beside the writer", "beside a writer of another table"),
            ):
                self.assertEqual(rows[f"{table}, {case}"]["floor"], rows[f"{table}, {floor}"]["ratio"])
        for what, row in rows.items():
            self.assertEqual(row["keys"], KEYS)
            self.assertGreater(row["keys_per_s"], 0)
            self.assertEqual(row["changes_per_s"] > 0, "writer" in what)

    def test_build_and_sweep(self):
        tables = self.figures("--only", "build,sweep")
        self.assertEqual(set(tables), {"build", "build_throughput", "revocation", "sweep", "harvest"})
        build = tables["build"]["build"]
        self.assertEqual(build["builds"], 3 * ((REPETITIONS + 1) // 2))
        self.assertAlmostEqual(build["keys_per_s"] * build["seconds"], KEYS, delta=1)
        self.assertLessEqual(build["seconds"], build["worst_seconds"])
        for row in tables["build_throughput"].values():
            self.assertGreater(row["before_keys_per_s"], 0)
        revocation = tables["revocation"]
        self.assertGreater(revocation["no build, made"]["samples"], 0)
        for when in ("no build", "during a build"):
            self.assertEqual(
                revocation[f"{when}, made"]["samples"], revocation[f"{when}, last accepted"]["samples"]
            )
        for what, row in revocation.items():
            self.check_percentiles(row)
            alone = revocation[what.replace("during a build", "no build")]
            expected = row["p99_ns"] / alone["p99_ns"] if alone["p99_ns"] else 0
            self.assertAlmostEqual(row["p99_ratio"], expected, delta=1e-6 * expected)
        sweep = tables["sweep"]
        self.assertEqual([row["keys_changed"] for row in sweep.values()], [1000, 0, 1000])
        for row in sweep.values():
            self.assertAlmostEqual(row["share_percent"], row["cpu_ms"] / 10, places=4)
            self.assertLessEqual(row["cpu_ms"], row["worst_cpu_ms"])
        self.assertGreater(tables["harvest"]["a generation"]["keys_counted"], 1000)

    def test_load(self):
        tables = self.figures("--only", "load")
        rows = tables["load"]
        for row in rows.values():
            self.assertGreater(row["wall_seconds"], 0)
            self.assertGreater(row["cpu_seconds"], 0)
        self.assertEqual([rows["scan"]["wall_ratio"], rows["scan"]["cpu_ratio"]], [1, 1])
        self.assertGreater(tables["load_memory"]["load"]["private_mib"], 0)

    def test_store(self):
        tables = self.figures("--only", "store", "--store-keys", 500, "--revocations", REVOCATIONS)
        self.assertEqual(set(tables), {"store", "store_histogram"})
        self.assertEqual(len(tables["store"]), 4)
        for row in tables["store"].values():
            self.assertEqual(row["samples"], REVOCATIONS)
            self.check_percentiles(row)
        for who, row in tables["store_histogram"].items():
            # It begins before it commits.
            since_commit, since_begin = (tables["store"][f"{who}, {since}"] for since in ("commit", "beginning"))
            self.assertLessEqual(since_commit["max_ns"], since_begin["max_ns"])
            counts = [count for head, count in row.items() if head != "what"]
            self.assertEqual(sum(counts), REVOCATIONS)
            self.assertEqual(row["more"] > 0, since_commit["max_ns"] >= 20e6)

    def test_store_says_what_keeps_it(self):
        status, out, err = self.run_serving(*SHORT, "--only", "store", "--store-directory", "/proc")
        self.assertEqual((status, out), (3, ""))
        self.assertIn("/proc: cannot make a directory", err)

    def test_a_signal_ends_it_and_its_processes(self):
        # Two servers; two servers, the foreign program, the daemon.
        for number, duty, processes in ((signal.SIGTERM, "hot", 2), (signal.SIGINT, "hot", 2), (signal.SIGTERM, "store", 4)):
            with self.subTest(number=number, duty=duty):
                process = self.start("--only", duty, "--seconds", "60", "--keys", KEYS)
                limit = time.monotonic() + PATIENCE_S
                children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
                while len(clients := children.read_text().split()) < processes:
                    self.assertLess(time.monotonic(), limit)
                    time.sleep(0.01)
                process.send_signal(number)
                process.communicate(timeout=PATIENCE_S)
                self.assertEqual(process.returncode, -number)
                self.assertFalse([pid for pid in clients if pathlib.Path("/proc", pid).exists()])

    def test_refuses_bad_options(self):
        for arguments in (
            ["--keys", "999"],
            ["--only", "nothing"],
            ["--seconds", "0"],
            ["--repetitions", "0"],
            ["--revocations", "0"],
            ["--store-directory", "/nowhere"],
            ["--fast"],
            ["word"],
        ):
            with self.subTest(arguments):
                status, out, err = self.run_serving(*arguments)
                self.assertEqual(status, 2, err)
                self.assertEqual(out, "")
                self.assertIn(arguments[0], err)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
