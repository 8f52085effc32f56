#!/usr/bin/env python3
"""Promise: tags are put on keys, changed, taken away and found, on both kinds of store, and nothing else of a key's metadata
changes with them."""

import unittest

import apikeyctl_test
from apikeyctl_test import Ctl


class Tags(Ctl):
    def setUp(self):
        super().setUp()
        self.start()

    def tagged(self, *tags):
        return {row["id"] for row in self.json("list", *(part for tag in tags for part in ("--tag", tag)))}

    def metadata(self, one):
        return self.json("show", one)["metadata"]

    def test_the_life_of_tags(self):
        first, key = self.issue("--tag", "prod", "--tag", "eu", "--tag", "prod")
        second, _ = self.issue("--tag", "prod", "--metadata", '{"tags": ["old"], "team": "x"}')
        self.issue()
        self.assertEqual((self.metadata(first), self.metadata(second)), ({"tags": ["eu", "prod"]}, {"team": "x", "tags": ["prod"]}))
        self.assertEqual((self.tagged("prod"), self.tagged("prod", "eu"), self.tagged("old")), ({first, second}, {first}, set()))
        self.assertEqual(len(self.tagged()), 3)
        self.ctl("update", second, "--tag", "eu")
        self.assertEqual((self.tagged("prod"), self.tagged("eu")), ({first}, {first, second}))
        self.ctl("update", second, "--clear", "tags")
        self.assertEqual((self.tagged("eu"), self.metadata(second)), ({first}, {"team": "x"}))
        self.ctl("update", first, "--clear", "tags")
        self.assertIsNone(self.metadata(first))
        self.assertEqual(self.codes(key, status=0), ["VALID"])

    def test_all_else_of_metadata_stays_to_the_letter(self):
        rest = '"n":12345678901234567890.10,"s":"\\"tags\\":}],","o":{"tags":["deep"],"a":[{},"]"]},"tag":1'
        one, _ = self.issue("--metadata", f"{{{rest}}}")
        self.assertEqual(self.tagged("deep"), set())
        for tags in (["a"], ["b", 'q"\\x, é']):
            self.ctl("update", one, *(part for tag in tags for part in ("--tag", tag)))
            self.assertEqual(self.metadata(one)["tags"], tags)
            self.assertEqual(self.tagged(*tags), {one})
            self.assertIn(f"{rest},", self.ctl("export"))
        self.ctl("update", one, "--clear", "tags")
        self.assertIn(f'"metadata":{{{rest}}}', self.ctl("export"))
        other, _ = self.issue("--metadata", '{"tags": "a word"}')
        self.assertEqual(self.tagged("a word"), set())
        self.ctl("update", other, "--tag", "a word")
        self.assertEqual(self.tagged("a word"), {other})

    def test_what_is_no_tag(self):
        one, _ = self.issue()
        for tag in ("", "x" * 64, "two\nlines"):
            self.ctl("issue", "--tag", tag, status=2)
            self.ctl("update", one, "--tag", tag, status=2)
            self.assertIn("--tag: ", self.said)
        self.ctl("update", one, "--tag", "a", "--clear", "tags", status=2)
        self.assertEqual(len(self.json("list")), 1)


class Sqlite(Tags):
    STORE = "sqlite:{}/keys.db"


if __name__ == "__main__":
    apikeyctl_test.main()
