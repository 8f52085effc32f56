#!/usr/bin/env python3
"""Promise: apikey-bench measures a live daemon and checks every verdict; one wrong verdict ends it with 1."""

import json
import pathlib
import subprocess
import tempfile
import unittest

import live_daemon

KEYS = 1000
SWITCHED = KEYS // 10  # as apikey-bench(1) says


class ApikeyBench(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="apikey-bench-test-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.keys = [live_daemon.make_key() for _ in range(KEYS)]
        cls.stranger = live_daemon.make_key()
        cls.daemon = live_daemon.LiveDaemon(live_daemon.binary("APIKEYD"))
        cls.addClassCleanup(cls.daemon.close)
        cls.daemon.rows = {key: {"owner": "bench", "name": "trial", "metadata": {"n": 1}} for key in cls.keys}
        cls.daemon.start()

    def bench(self, keys, *arguments):
        path = self.folder / f"{self._testMethodName}.txt"
        path.write_text("".join(key + "\n" for key in keys))
        command = [live_daemon.binary("APIKEY_BENCH"), "--directory", self.daemon.directory, *arguments, path]
        run = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=live_daemon.PATIENCE_S
        )
        for key in [*self.keys, self.stranger]:
            self.assertNotIn(key, run.stdout + run.stderr)
        return run

    def check_figures(self, figures, processes):
        speed = figures["validations_per_second"]
        self.assertEqual(len(speed["by_process"]), processes)
        self.assertTrue(all(one > 0 for one in speed["by_process"]))
        self.assertAlmostEqual(sum(speed["by_process"]), speed["total"], delta=processes)
        latency = figures["latency_ns"]
        self.assertGreater(latency["p50"], 0)
        self.assertLessEqual(latency["p50"], latency["p99"])
        self.assertLessEqual(latency["p99"], latency["p99_9"])
        self.assertLessEqual(latency["p99_9"], latency["max"])
        self.assertGreater(figures["clock"]["step_ns"], 0)
        presented = sum(figures["codes"].values())
        self.assertEqual(presented, latency["samples"] * latency["validations_per_sample"])

    def test_two_processes_with_misses_and_a_writer(self):
        out = self.folder / "figures.json"
        run = self.bench(
            self.keys, "--processes", "2", "--seconds", "2", "--misses", "5", "--writer", "100", "--json", out
        )
        self.assertEqual(run.returncode, 0, run.stderr)
        figures = json.loads(out.read_text())
        self.check_figures(figures, 2)
        codes = figures["codes"]
        self.assertEqual(set(codes), {"VALID", "NOT_FOUND", "DISABLED"})
        self.assertAlmostEqual(codes["NOT_FOUND"] / sum(codes.values()), 0.05, delta=0.02)
        self.assertEqual(figures["writer"]["keys"], SWITCHED)
        self.assertGreater(figures["writer"]["changes"], 0)
        self.assertIn("validations/s", run.stdout)

        # What the writer switched is on again, with everything else about the keys as it was.
        after = self.daemon.request({"verb": "reload", "force": True})
        self.assertEqual((after["ok"], after["updated"], after["added"]), (True, 0, 0), after)

    def test_threads_batches_and_zipf(self):
        out = self.folder / "batches.json"
        run = self.bench(
            self.keys, "--threads", "2", "--seconds", "0.3", "--batch", "3", "--zipf", "0.99", "--json", out
        )
        self.assertEqual(run.returncode, 0, run.stderr)
        figures = json.loads(out.read_text())
        self.check_figures(figures, 1)
        self.assertEqual(figures["latency_ns"]["validations_per_sample"], 9)  # whole batches, at least 8 keys
        self.assertEqual(set(figures["codes"]), {"VALID"})
        self.assertIsNone(figures["writer"])

    def test_a_key_that_is_not_in_the_set_is_a_wrong_verdict(self):
        planted = [*self.keys[:50], self.stranger, *self.keys[50:]]
        for batch in ("1", "16"):
            run = self.bench(planted, "--seconds", "60", "--misses", "0", "--batch", batch)
            self.assertEqual(run.returncode, 1, run.stdout + run.stderr)
            self.assertIn(".txt:51 was answered NOT_FOUND, right is VALID", run.stderr)
            self.assertEqual(run.stdout, "")

    def test_without_a_daemon_it_says_so(self):
        run = self.bench(self.keys[:1], "--instance", "nobody", "--seconds", "1")
        self.assertEqual(run.returncode, 3)
        self.assertIn("run/nobody: ", run.stderr)

    def test_a_bad_key_file_is_named_with_its_line(self):
        run = self.bench([*self.keys[:2], "", self.keys[2]], "--seconds", "1")
        self.assertEqual(run.returncode, 2)
        self.assertIn(".txt:3: 0 bytes", run.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
