#!/usr/bin/env python3
"""Promise: tools/setup asks apt only for what is missing, and where it cannot install says so in one line."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

TOOLS = pathlib.Path(sys.argv[1])
PACKAGES = sorted(
    {line.split()[1] for line in (TOOLS / "packages.txt").read_text().splitlines() if line[:1] not in ("", "#")}
)
NEEDED = ["awk", "bash", "cat", "comm", "dirname", "env", "grep", "mktemp", "rm", "sort", "tail"]


class Setup(unittest.TestCase):
    """Runs the script with a PATH that holds what it needs, and stand-ins for dpkg-query and apt-get."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.bin = pathlib.Path(folder.name)
        self.asked = self.bin / "asked-of-apt"
        for name in NEEDED:
            (self.bin / name).symlink_to(shutil.which(name))
        self.program("sudo", '[ "$1" != -n ] || shift\nexec "$@"')

    def program(self, name, body):
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def machine(self, installed, apt_status=0):
        """apt-get notes what it was asked for, and when it succeeds installs everything."""
        database = self.bin / "installed"
        database.write_text("".join(f"installed {name}\n" for name in installed))
        self.program("dpkg-query", f"cat {database}\nexit 1")
        everything = " ".join(PACKAGES)
        self.program(
            "apt-get",
            f'echo "$@" >>{self.asked}\n[ {apt_status} = 0 ] || {{ echo "E: no way"; exit {apt_status}; }}\n'
            f'for p in {everything}; do echo "installed $p"; done >{database}',
        )

    def run_setup(self, *arguments, **environment):
        result = subprocess.run(
            ["bash", TOOLS / "setup", *arguments],
            env={"PATH": str(self.bin), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        asked = self.asked.read_text().splitlines() if self.asked.exists() else []
        return result.returncode, result.stderr.splitlines(), asked

    def test_asks_nothing_when_nothing_is_missing(self):
        self.machine(PACKAGES)
        self.assertEqual(self.run_setup("all"), (0, [], []))

    def test_installs_just_what_is_missing(self):
        self.machine([name for name in PACKAGES if name not in ("meson", "jq")])
        status, _, asked = self.run_setup("test")
        self.assertEqual(status, 0)
        self.assertEqual(len(asked), 2, "one update, one install")
        self.assertTrue(asked[1].endswith("install --no-install-recommends jq meson"), asked[1])

    def test_a_group_is_not_asked_for_another_groups_packages(self):
        self.machine([name for name in PACKAGES if name != "jq"])
        self.assertEqual(self.run_setup("build"), (0, [], []))

    def test_names_what_is_missing_when_apt_fails(self):
        self.machine([name for name in PACKAGES if name not in ("meson", "jq")], apt_status=100)
        status, lines, _ = self.run_setup("all")
        self.assertEqual(status, 3)
        self.assertRegex(lines[-1], r"missing: jq meson; .*E: no way.*apt-get install .* jq meson$")

    def test_does_not_remove_another_boost_unasked(self):
        self.machine([name for name in PACKAGES if name != "libboost1.81-dev"] + ["libboost1.74-dev"])
        status, lines, asked = self.run_setup("build")
        self.assertEqual((status, len(lines), asked), (3, 1, []))
        self.assertRegex(lines[0], "libboost1.74-dev .* excludes libboost1.81-dev.*--replace-boost build")

    def test_replaces_another_boost_when_told(self):
        for arguments, environment in ((["--replace-boost"], {}), ([], {"CI": "true"})):
            with self.subTest(arguments=arguments, environment=environment):
                self.machine([name for name in PACKAGES if name != "libboost1.81-dev"] + ["libboost1.74-dev"])
                status, _, asked = self.run_setup(*arguments, "build", **environment)
                self.assertEqual(status, 0)
                self.assertTrue(asked[-1].endswith(" libboost1.81-dev"), asked)

    def test_says_plainly_that_this_is_no_debian(self):
        status, lines, _ = self.run_setup("build")
        self.assertEqual((status, len(lines)), (3, 1))
        self.assertIn("no Debian system", lines[0])

    def test_wrong_usage(self):
        for arguments in ([], ["everything"]):
            self.assertEqual(self.run_setup(*arguments)[0], 2)


if __name__ == "__main__":
    os.umask(0o022)
    unittest.main(argv=["setup_test", *sys.argv[2:]], verbosity=2)
