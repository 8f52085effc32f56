#!/usr/bin/env python3
"""Promise: pages of `list` show each key once, in the order of ids, also while keys come and go."""

import unittest

import apikeyctl_test
from apikeyctl_test import KEY_FIELDS, Ctl
from live_daemon import key_id, make_key


class Pages(Ctl):
    def setUp(self):
        super().setUp()
        self.ids = [key_id(make_key()) for _ in range(23)]
        rows = [f'{{"id": "{one}", "sha256": "{number:064x}", "environment": "live", "owner": "o{number % 2}"}}\n'
                for number, one in enumerate(self.ids, 1)]  # fmt: skip
        self.ctl("import", stdin="".join(rows), status=3)

    def pages(self, limit, *more, between=lambda: None):
        after, shown = [], []
        while True:
            page = self.json("list", "--limit", str(limit), *after, *more, fields=KEY_FIELDS)
            self.assertLessEqual(len(page), limit)
            if not page:
                return shown
            shown += [row["id"] for row in page]
            after = ["--after", page[-1]["id"]]
            between()

    def test_each_key_once(self):
        self.assertEqual([row["id"] for row in self.json("list")], self.ids)
        for limit in (1, 5, 23, 100):
            self.assertEqual(self.pages(limit), sorted(self.ids))
        self.assertEqual(self.json("list", "--limit", "0"), self.json("list"))
        self.assertEqual([row["id"] for row in self.json("list", "--after", "5" * 12)],
                         sorted(one for one in self.ids if one > "5" * 12))  # fmt: skip

    def test_filters_come_before_the_limit(self):
        odd = sorted(self.ids[0::2])
        self.assertEqual(self.pages(4, "--owner", "o1"), odd)
        self.assertEqual([row["id"] for row in self.json("list", "--owner", "o1", "--limit", "3")], odd[:3])

    def test_keys_that_go_move_nothing(self):
        """The key that a page ended with goes before the next one is asked for."""
        order = sorted(self.ids)
        self.assertEqual(self.pages(1, between=lambda: self.ctl("delete", order.pop(0), status=3)), sorted(self.ids))


class Sqlite(Pages):
    STORE = "sqlite:{}/keys.db"


if __name__ == "__main__":
    apikeyctl_test.main()
