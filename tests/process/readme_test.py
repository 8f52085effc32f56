#!/usr/bin/env python3
"""Promise: what README shows compiles against the library and does what README says; the man page has all of it."""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import unittest

from live_daemon import LiveDaemon, PATIENCE_S, binary, make_key

SNIPPETS = {"cpp": "minimal.cc", "c": "minimal.c"}
# As README says: what a valid key prints, and what any other does.
SAYS = {
    "cpp": (["VALID", "CI, acme, live"], ["NOT_FOUND"]),
    "c": (["VALID"], ["NOT_FOUND"]),
}


def parse_options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=pathlib.Path, required=True)
    parser.add_argument("--library", type=pathlib.Path, required=True)
    parser.add_argument("--cc", required=True)
    parser.add_argument("--cxx", required=True)
    parser.add_argument("--sanitize", required=True)
    return parser.parse_args()


def snippet(language):
    """The code block behind the marker `<!-- snippet: LANGUAGE -->`."""
    blocks = re.findall(
        rf"<!-- snippet: {language} -->\n```{language}\n(.*?)^```$",
        (options.source / "README.md").read_text(),
        re.DOTALL | re.MULTILINE,
    )
    if len(blocks) != 1:
        raise AssertionError(f"README.md has {len(blocks)} blocks marked `snippet: {language}`, wanted 1")
    return blocks[0]


class Readme(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = LiveDaemon(binary("APIKEYD"))
        cls.addClassCleanup(cls.daemon.close)
        cls.key = make_key()
        cls.daemon.rows = {cls.key: {"owner": "acme", "name": "CI"}}
        cls.daemon.start()

    def build(self, language):
        source = self.daemon.home / f"readme.{language}"
        source.write_text(snippet(language))
        program = self.daemon.home / f"readme-{language}"
        compiler = [options.cxx, "-std=c++20"] if language == "cpp" else [options.cc, "-std=c11"]
        sanitize = [] if options.sanitize == "none" else [f"-fsanitize={options.sanitize}"]
        folder = options.library.parent
        include = options.source / "client/include"
        subprocess.run(
            [*compiler, "-Wall", "-Wextra", "-Wpedantic", "-Werror", *sanitize, f"-I{include}", source]
            + ["-o", program, f"-L{folder}", "-lapikey", f"-Wl,-rpath,{folder}"],
            check=True,
        )
        return program

    def run_snippet(self, program, key):
        run = subprocess.run(
            [program, self.daemon.directory],
            input=key + "\n",
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        self.assertEqual(run.stderr, "")
        return run.returncode, run.stdout.splitlines()

    def test_snippets_do_what_readme_says(self):
        for language, (accepted, refused) in SAYS.items():
            with self.subTest(language):
                program = self.build(language)
                self.assertEqual(self.run_snippet(program, self.key), (0, accepted))
                self.assertEqual(self.run_snippet(program, make_key()), (1, refused))

    def test_what_readme_says_stands_there(self):
        text = (options.source / "README.md").read_text()
        for line in ["VALID", "CI, acme, live"]:
            self.assertIn(f"\n{line}\n", text)

    def test_examples_are_the_same_code(self):
        for language, name in SNIPPETS.items():
            self.assertEqual((options.source / "client/examples" / name).read_text(), snippet(language), name)

    def test_every_file_that_readme_names_is_there(self):
        text = (options.source / "README.md").read_text()
        named = re.findall(r"`((?:tools|client|shm|daemon|bench|tests|build)/[\w./-]*)`", text)
        self.assertTrue(named)
        for path in named:
            if not path.startswith("build/"):
                self.assertTrue((options.source / path).exists(), path)

    def test_the_man_page_has_every_function_of_the_header_and_no_other(self):
        header = (options.source / "client/include/apikey/apikey.h").read_text()
        page = (options.source / "client/libapikey.3").read_text()
        declared = re.findall(r"^APIKEY_API [\w* ]*?(apikey_\w+)\(", header, re.MULTILINE)
        synopsis = page.partition(".Sh SYNOPSIS")[2].partition(".Sh DESCRIPTION")[0]
        self.assertTrue(declared)
        self.assertEqual(sorted(re.findall(r"^\.F[no] (\w+)", synopsis, re.MULTILINE)), sorted(declared))
        for constant in re.findall(r"^ +(APIKEY_\w+) = ", header, re.MULTILINE):
            self.assertRegex(page, rf"\b{constant}\b|\.It Dv {constant.removeprefix('APIKEY_')} ")


if __name__ == "__main__":
    os.umask(0o077)
    options = parse_options()
    unittest.main(argv=sys.argv[:1], verbosity=2)
