#!/usr/bin/env python3
"""Promise: `meson install` puts every file where it belongs, with its mode, and nothing else."""

import argparse
import os
import pathlib
import stat
import subprocess
import tempfile
import unittest

SYMLINK = "symbolic link"
# For folders of the library, whose name depends on the machine, LIBDIR stands.
FILES = {
    "LIBDIR/libapikey.so": SYMLINK,
    "LIBDIR/libapikey.so.0": SYMLINK,
    "LIBDIR/libapikey.so.0.1.0": 0o755,
    "LIBDIR/pkgconfig/apikey.pc": 0o644,
    "include/apikey/apikey.h": 0o644,
    "include/apikey/apikey.hpp": 0o644,
    "bin/apikeyctl": 0o755,
    "bin/apikey-bench": 0o755,
    "sbin/apikeyd": 0o755,
    "sbin/apikeyd-door": 0o755,
    "etc/logrotate.d/apikeyd": 0o644,
    "lib/systemd/system/apikeyd-door.service": 0o644,
    "lib/systemd/system/apikeyd.service": 0o644,
    "lib/sysusers.d/apikeyd.conf": 0o644,
    "share/doc/apikeyd/examples/apikeyd.yaml.example": 0o644,
    "share/doc/apikeyd/examples/keys.yaml.example": 0o644,
    "share/apikeyd/postgres_schema.sql": 0o644,
    "share/apikeyd/postgres_usage.sql": 0o644,
    "share/bash-completion/completions/apikeyctl": 0o644,
    "share/man/man1/apikeyctl.1": 0o644,
    "share/man/man1/apikey-bench.1": 0o644,
    "share/man/man3/libapikey.3": 0o644,
    "share/man/man5/apikeyd.yaml.5": 0o644,
    "share/man/man8/apikeyd-door.8": 0o644,
    "share/man/man8/apikeyd.8": 0o644,
}
STRANGERS_PROGRAM = r"""
#include <apikey/apikey.h>
#include <stdio.h>

int main(int argc, char** argv) {
    apikey_options options = {.size = sizeof(options), .directory = argv[argc - 1]};
    apikey_client* client;
    apikey_verdict verdict;
    apikey_result opened = apikey_open(&options, &client);
    apikey_code code = apikey_validate(client, "k", 1, &verdict);
    printf("%s: %s\n", apikey_result_text(opened), apikey_code_name(code));
    apikey_close(client);
    return opened == APIKEY_WAITING && code == APIKEY_UNAVAILABLE ? 0 : 1;
}
"""


def parse_options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--libdir", required=True)
    parser.add_argument("--cc", required=True)
    parser.add_argument("--cxx", required=True)
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
        expected = {name.replace("LIBDIR", options.libdir): mode for name, mode in FILES.items()}
        installed = {}
        for path in self.destdir.rglob("*"):
            if path.is_symlink():
                installed[str(path.relative_to(self.root))] = SYMLINK
            elif not path.is_dir():
                installed[str(path.relative_to(self.root))] = stat.S_IMODE(path.stat().st_mode)
        self.assertEqual(installed, expected)

    def test_unit_names_installed_paths(self):
        unit = (self.root / "lib/systemd/system/apikeyd.service").read_text()
        self.assertNotIn("@", unit.replace("@system-service", ""), "a place-holder was left")
        # All of them mean one configuration, whatever the prefix: the one that is read without --config.
        config = "--config /etc/apikeyd/apikeyd.yaml"
        self.assertIn(f"ExecStart={options.prefix}/sbin/apikeyd {config}\n", unit)
        self.assertIn(f"ExecReload={options.prefix}/bin/apikeyctl {config} reload\n", unit)
        door = (self.root / "lib/systemd/system/apikeyd-door.service").read_text()
        self.assertIn(f"ExecStart={options.prefix}/sbin/apikeyd-door {config}\n", door)
        tool = subprocess.run([self.root / "bin/apikeyctl", "--help"], capture_output=True, text=True, check=True)
        self.assertIn("[/etc/apikeyd/apikeyd.yaml]", tool.stdout)

    def test_man_pages_have_no_warning(self):
        pages = sorted((self.root / "share/man").rglob("*.[1-8]"))
        self.assertTrue(pages)
        lint = subprocess.run(
            ["mandoc", "-Tlint", "-Wwarning", *pages], capture_output=True, text=True, check=False
        )
        self.assertEqual((lint.stdout, lint.returncode), ("", 0))

    def flags(self, *what):
        environment = os.environ | {
            "PKG_CONFIG_LIBDIR": str(self.root / options.libdir / "pkgconfig"),
            "PKG_CONFIG_SYSROOT_DIR": str(self.destdir),
        }
        command = ["pkg-config", *what, "apikey"]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.split()

    def test_a_c_program_finds_links_and_runs_the_library(self):
        source = self.destdir / "stranger.c"
        program = self.destdir / "stranger"
        self.addCleanup(source.unlink)
        source.write_text(STRANGERS_PROGRAM)
        subprocess.run(
            [options.cc, "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", *self.flags("--cflags"), source]
            + ["-o", program, *self.flags("--libs")],
            check=True,
        )
        self.addCleanup(program.unlink)
        run = subprocess.run(
            [program, self.destdir / "no-daemon-here"],
            env={"LD_LIBRARY_PATH": str(self.root / options.libdir)},
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)

    def test_the_cxx_header_needs_only_what_is_installed(self):
        source = self.destdir / "stranger.cc"
        self.addCleanup(source.unlink)
        source.write_text("#include <apikey/apikey.hpp>\nint main() {}\n")
        command = [options.cxx, "-std=c++20", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
        subprocess.run([*command, *self.flags("--cflags"), source], check=True)


if __name__ == "__main__":
    os.umask(0o077)  # what is installed must not depend on who installs
    options = parse_options()
    unittest.main(argv=["install_test"], verbosity=2)
