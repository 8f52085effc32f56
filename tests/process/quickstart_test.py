#!/usr/bin/env python3
"""tools/quickstart as a newcomer runs it, on programs that are built already: what it shows, and what it leaves."""

import glob
import subprocess
import sys
import unittest

SEGMENTS = "/dev/shm/apikeyd-quickstart-*"


class Quickstart(unittest.TestCase):
    def test_shows_the_life_of_a_key_and_leaves_nothing(self):
        before = set(glob.glob(SEGMENTS))
        ran = subprocess.run([script, "--build", build], capture_output=True, text=True, timeout=250)
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        parts = ["apikeyctl -c apikeyd.yaml issue", "HTTP 200", "apikeyctl -c apikeyd.yaml revoke", "HTTP 401",
                 "REVOKED  1", "validations/s", "Stop everything"]
        at = 0
        for part in parts:
            found = ran.stdout.find(part, at)
            self.assertGreaterEqual(found, 0, f"{part!r} is not shown in its place\n{ran.stdout}")
            at = found
        issued = [line for line in ran.stdout.splitlines() if line.startswith("ak_live_")]
        self.assertEqual(len(issued), 1, "the key is shown once")
        self.assertEqual(ran.stdout.count(issued[0].split("_")[3]), 1, "its secret stands nowhere else")
        self.assertEqual(set(glob.glob(SEGMENTS)), before, "nothing is left behind")

    def test_a_folder_without_the_programs_is_told(self):
        ran = subprocess.run([script, "--build", "/nonexistent"], capture_output=True, text=True, timeout=60)
        self.assertEqual(ran.returncode, 2)
        self.assertIn("is missing: build it", ran.stderr)


if __name__ == "__main__":
    script, build = sys.argv[1:3]
    unittest.main(argv=sys.argv[:1], verbosity=2)
