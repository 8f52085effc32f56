#!/usr/bin/env python3
"""Promise: `capacity N` foretells the size of the files that a daemon makes for N keys."""

import shutil
import unittest

import apikeyctl_test
from apikeyctl_test import Ctl
from live_daemon import key_id, make_key

FIELDS = [
    "keys", "table_bytes", "cells_bytes", "shards", "bytes", "change_bytes", "huge_pages", "huge_page_mode", "directory",
    "directory_bytes", "directory_free_bytes", "fits", "daemon_private_bytes",
]  # fmt: skip


class Capacity(Ctl):
    def foretold(self, *arguments):
        return self.json("capacity", *arguments, fields=FIELDS)

    def made(self, rows, plans=""):
        """The bytes of the files that a daemon makes for keys with these fields."""
        with self.keys.open("w", encoding="utf-8") as file:
            file.write(f"{plans}keys:\n")
            for row in rows:
                file.write(f"- {{id: {key_id(make_key())}, sha256: {self.digest:064x}, environment: live, {row}}}\n")
                self.digest += 1
        shutil.rmtree(self.top / "run", ignore_errors=True)
        self.start()
        sizes = [next(self.instance.glob(f"{kind}.*")).stat().st_size for kind in ("table", "cells")]
        self.assertEqual(sum(sizes), self.json("status")["bytes"])
        self.private = self.foretold("1")["daemon_private_bytes"]
        self.kill()
        return sizes

    def setUp(self):
        super().setUp()
        self.digest = 1

    def test_it_is_what_a_daemon_makes(self):
        for count, text, owners in ((1, 5, 1), (3000, 5, 1), (3000, 200, 7)):
            sizes = self.made([f"owner: owner-number-{row % owners:03}, name: {'n' * text}" for row in range(count)])
            foretold = self.foretold(str(count), "--text", str(text), "--owners", str(owners))
            self.assertEqual([foretold["table_bytes"], foretold["cells_bytes"]], sizes, (count, text, owners))
            self.assertEqual((foretold["bytes"], foretold["change_bytes"]), (sum(sizes), 2 * sum(sizes)))
            self.assertGreater(self.private, 100_000)

    def test_limits_take_room_in_the_cells(self):
        for limits in (2, 3):
            lines = "".join(f"    - {{name: l{number}, rate: 1/s}}\n" for number in range(limits))
            plans = f"plans:\n- name: plan\n  limits:\n{lines}"
            _, cells = self.made([f"name: nnnnn, plan: plan, owner: owner-number-{row % 5:03}" for row in range(2000)], plans)
            foretold = self.foretold("2000", "--text", "5", "--owners", "5", "--limits", str(limits))
            self.assertEqual(foretold["cells_bytes"], cells)
        self.assertGreater(foretold["cells_bytes"], self.foretold("2000")["cells_bytes"])

    def test_room_that_the_configuration_makes(self):
        self.config.write_text(self.config.read_text() + "capacity: 5000\n")
        sizes = self.made(["name: nnnnn, owner: owner-number-000"])
        foretold = self.foretold("1", "--text", "5")
        self.assertEqual([foretold["table_bytes"], foretold["cells_bytes"]], sizes)

    def test_whether_it_fits(self):
        self.assertIs(self.foretold("10")["fits"], True)
        self.assertIs(self.foretold("16000000", "--text", "4000")["fits"], False)
        self.assertIsNone(self.foretold("10")["daemon_private_bytes"])
        for wrong in ("0", "16000001", "x"):
            self.ctl("capacity", wrong, status=2)
        self.assertIn("table_bytes", self.ctl("capacity", "10"))


if __name__ == "__main__":
    apikeyctl_test.main()
