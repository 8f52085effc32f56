#!/usr/bin/env python3
"""Promise: long work shows on a terminal how far it is and leaves the line clean; elsewhere nothing is written."""

import os
import pty
import subprocess
import unittest

import apikeyctl_test
from apikeyctl_test import Ctl


class Progress(Ctl):
    def on_terminal(self, *arguments):
        """What the tool writes to standard error where that is a terminal."""
        control, terminal = pty.openpty()
        command = [apikeyctl_test.OPTIONS.tool, "--config", self.config, *arguments]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=terminal):
            os.close(terminal)
            shown = b""
            while chunk := self.read(control):
                shown += chunk
        os.close(control)
        return shown.decode()

    @staticmethod
    def read(control):
        try:
            return os.read(control, 65536)
        except OSError:  # the other end is closed
            return b""

    def test_a_terminal_is_shown_how_far_it_is(self):
        keys, plain = self.top / "many.yaml", self.top / "plain"
        self.ctl("gen", "10000", "--keys", keys, "--plain", plain)
        self.assertEqual(self.said, "")
        shown = self.on_terminal("migrate", f"yaml:{keys}", f"sqlite:{self.top}/many.db")
        lines = [line for line in shown.split("\r") if "/s" in line]
        self.assertTrue(lines, shown)
        self.assertRegex(lines[0], r"^keys [0-9]+ of 10000 \[#*\.*\] [0-9]+% [0-9]+/s\x1b\[K")
        # The line is taken away before anything else is said.
        self.assertRegex(shown, r"\r\x1b\[K[^\r\x1b]*many.db: made, ")
        self.assertRegex(shown, r"(\x1b\[K|\n)sqlite:[^\r\x1b]*many.db: 10000 keys, 0 plans")
        self.ctl("migrate", f"yaml:{keys}", f"sqlite:{self.top}/quiet.db")
        self.assertNotIn("\r", self.said)
        self.assertNotIn("\x1b", self.said)

    def test_what_is_quick_shows_nothing(self):
        self.ctl("issue", status=3)
        self.assertEqual(self.on_terminal("export"), "")


if __name__ == "__main__":
    apikeyctl_test.main()
