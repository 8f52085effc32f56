#!/usr/bin/env python3
"""Promise: `meson install` puts every file where it belongs, with its mode, and nothing else."""

import argparse
import os
import pathlib
import stat
import subprocess
import tempfile
import unittest

FILES = {
    "lib/systemd/system/apikeyd.service": 0o644,
    "lib/sysusers.d/apikeyd.conf": 0o644,
    "share/man/man1/apikeyctl.1": 0o644,
    "share/man/man3/libapikey.3": 0o644,
    "share/man/man5/apikeyd.yaml.5": 0o644,
    "share/man/man8/apikeyd.8": 0o644,
}
BENCH_FILES = {
    "share/man/man1/apikey-bench.1": 0o644,
}


def parse_options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--libdir", required=True)
    parser.add_argument("--cc", required=True)
    parser.add_argument("--bench", action=argparse.BooleanOptionalAction, required=True)
    return parser.parse_args()


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.destdir = pathlib.Path(cls.folder.name)
        cls.root = cls.destdir / options.prefix.lstrip("/")
        command = ["meson", "install", "-C", options.build, "--no-rebuild", "--quiet", "--destdir", str(cls.destdir)]
        subprocess.run(command, check=True)

    def test_exactly_the_listed_files_with_their_modes(self):
        expected = FILES | (BENCH_FILES if options.bench else {})
        installed = {}
        for path in self.destdir.rglob("*"):
            if not path.is_dir():
                installed[str(path.relative_to(self.root))] = stat.S_IMODE(path.lstat().st_mode)
        self.assertEqual(installed, expected)

    def test_unit_names_installed_paths(self):
        unit = (self.root / "lib/systemd/system/apikeyd.service").read_text()
        self.assertNotIn("@", unit.replace("@system-service", ""), "a place-holder was left")
        self.assertIn(f"ExecStart={options.prefix}/sbin/apikeyd ", unit)
        self.assertIn(f"ExecReload={options.prefix}/bin/apikeyctl reload\n", unit)

    def test_man_pages_have_no_warning(self):
        pages = sorted((self.root / "share/man").rglob("*.[1-8]"))
        self.assertTrue(pages)
        lint = subprocess.run(
            ["mandoc", "-Tlint", "-Wwarning", *pages], capture_output=True, text=True, check=False
        )
        self.assertEqual((lint.stdout, lint.returncode), ("", 0))


if __name__ == "__main__":
    os.umask(0o077)  # what is installed must not depend on who installs
    options = parse_options()
    unittest.main(argv=["install_test"], verbosity=2)
