#!/usr/bin/env python3
"""Promise: bash completes the verbs, options and choices that --help of apikeyctl and of each verb shows, and no others."""

import argparse
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import unittest

OPTIONS = argparse.Namespace()
# Splits a line as readline does, and prints what is offered for its last word.
COMPLETE = r"""
source "$1"
line=$2
COMP_WORDS=() rest=$line
while [[ $rest =~ ^\ *([^\ :=]+|[:=])(.*)$ ]]; do COMP_WORDS+=("${BASH_REMATCH[1]}") rest=${BASH_REMATCH[2]}; done
[[ $line != *' ' ]] || COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_LINE=$line COMP_POINT=${#line}
complete -p apikeyctl > /dev/null
_apikeyctl
((${#COMPREPLY[@]} == 0)) || printf '%s\n' "${COMPREPLY[@]}"
"""


def text_of(*verb):
    return subprocess.run([OPTIONS.tool, *verb, "--help"], stdout=subprocess.PIPE, text=True, check=True).stdout


def verbs_in(text):
    part = re.search(r"^Subcommands:\n((?:  .*\n?)+)", text, re.MULTILINE)
    return re.findall(r"^  ([a-z]+)", part[1], re.MULTILINE) if part else []


def options_in(text):
    return re.findall(r"^  (?:-[a-z],)?(--[a-z-]+)", text, re.MULTILINE)


class Completion(unittest.TestCase):
    def offered(self, line, **options):
        done = subprocess.run(["bash", "--norc", "-c", COMPLETE, "bash", OPTIONS.completion.resolve(), line], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, check=True, **options)  # fmt: skip
        self.assertEqual(done.stderr, "", line)
        return sorted(done.stdout.splitlines())

    def test_verbs_and_options_are_those_of_help(self):
        text = text_of()
        verbs = verbs_in(text)
        self.assertGreater(len(verbs), 20)
        self.assertEqual(self.offered("apikeyctl "), sorted(verbs))
        self.assertEqual(self.offered("apikeyctl -"), sorted(options_in(text)))
        shared = [option for option in options_in(text) if option != "--version"]
        for verb in verbs:
            parts = verbs_in(text_of(verb))
            if parts:
                self.assertEqual(self.offered(f"apikeyctl {verb} "), sorted(parts))
            for whole in [f"{verb} {part}" for part in parts] or [verb]:
                wanted = sorted(set(options_in(text_of(*whole.split())) + shared))
                self.assertEqual(self.offered(f"apikeyctl {whole} --"), wanted, whole)
                self.assertEqual(self.offered(f"apikeyctl --output json {whole} --"), wanted, whole)

    def test_choices_are_those_of_help(self):
        seen = 0
        for verb in ["list", "import", "export", "update", "owner update", "usage", "top"]:
            for option, choices in re.findall(r"^  (--[a-z-]+) TEXT:\{([a-z,]+)\}", text_of(*verb.split()), re.MULTILINE):
                self.assertEqual(self.offered(f"apikeyctl {verb} {option} "), sorted(choices.split(",")), f"{verb} {option}")
                seen += 1
        self.assertGreater(seen, 6)
        self.assertEqual(self.offered("apikeyctl --output "), ["csv", "json", "table"])
        self.assertEqual(self.offered("apikeyctl list --output=j"), ["json"])
        self.assertEqual(self.offered("apikeyctl list --output="), ["csv", "json", "table"])

    def test_words_and_files(self):
        self.assertEqual(self.offered("apikeyctl re"), ["regenerate", "reload", "restore", "revoke"])
        self.assertEqual(self.offered("apikeyctl plan up"), ["update"])
        self.assertEqual(self.offered("apikeyctl list --owner list --st"), ["--state", "--store"])
        self.assertEqual(self.offered("apikeyctl --store y"), ["yaml:"])
        self.assertEqual(self.offered("apikeyctl issue --owner "), [])
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "keys.yaml").touch()
            for line in ("--config k", "--store yaml:k", "migrate yaml:k", "migrate yaml:keys.yaml sqlite:k", "backup k"):
                self.assertEqual(self.offered(f"apikeyctl {line}", cwd=folder), ["keys.yaml"], line)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool", required=True)
    parser.add_argument("--completion", type=pathlib.Path, required=True)
    OPTIONS, rest = parser.parse_known_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)
