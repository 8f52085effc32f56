#!/usr/bin/env python3
"""Promise: keys of other systems come in all or not at all, each fault by its line; what is exported is what is imported;
no plaintext shows."""

import csv
import hashlib
import io
import json
import secrets
import unittest

import apikeyctl_test
from apikeyctl_test import Ctl
from live_daemon import key_id, make_key


def sha256(key):
    return hashlib.sha256(key.encode()).hexdigest()


class Transfer(Ctl):
    def setUp(self):
        super().setUp()
        self.start()

    def bring(self, rows, *arguments, status=0):
        return self.ctl("import", *arguments, stdin="".join(json.dumps(row) + "\n" for row in rows), status=status)

    def test_plain_hashed_and_native_keys(self):
        native, hashed, foreign = make_key(), make_key("test"), "sk-" + secrets.token_urlsafe(40)
        self.bring([
            {"key": native, "owner": "acme", "name": "CI"},
            {"id": key_id(hashed), "sha256": sha256(hashed), "environment": "test", "expires": None},
            {"key": foreign, "metadata": {"was": None, "n": 1}},
        ])  # fmt: skip
        self.assertIn("3 keys imported", self.said)
        self.assertEqual(self.codes(native, hashed, foreign, status=0), ["VALID"] * 3)
        shown = self.json("show", key_id(native))
        self.assertEqual((shown["owner"], shown["environment"], shown["foreign"]), ("acme", "live", False))
        other = next(row for row in self.json("list") if row["environment"] is None)
        self.assertEqual(self.json("show", other["id"])["metadata"], {"was": None, "n": 1})
        for path in self.top.rglob("*"):
            if path.is_file():
                self.assertNotIn(foreign.encode(), path.read_bytes(), path)

    def test_a_fault_keeps_all_out_and_each_is_named(self):
        good, weak = make_key(), "password-password"
        self.issue()
        before = self.json("list")
        twice = make_key()
        self.assertEqual(self.bring([
            {"key": good},
            {"id": "short", "sha256": sha256("x"), "environment": "live"},
            {"key": weak},
            {"key": twice}, {"key": twice},
            {"id": key_id(make_key()), "sha256": sha256("y"), "environment": "live", "plan": "none"},
        ], status=1), "")  # fmt: skip
        for line, what in ((2, "id: no key id"), (3, "random bits"), (5, "stands in line 4 too")):
            self.assertRegex(self.said, rf"(?m)^standard input:{line}: .*{what}")
        self.assertIn("nothing was imported", self.said)
        self.assertNotIn(weak, self.said)
        self.assertNotIn(twice[-33:], self.said)
        # What only the set knows is found once the rows are good by themselves.
        self.bring([{"key": good}, {"key": make_key(), "plan": "none"}, {"id": before[0]["id"], "sha256": sha256("z"),
                    "environment": "live"}], status=1)  # fmt: skip
        self.assertRegex(self.said, r"(?m)^standard input:2: .*none")
        self.assertRegex(self.said, rf"(?m)^standard input:3: id {before[0]['id']}: a key of the set has it")
        self.assertEqual(self.json("list"), before)
        self.assertEqual(self.codes(good, status=1), ["NOT_FOUND"])
        self.bring([{"key": weak}], "--allow-weak")
        self.assertEqual(self.codes(weak, status=0), ["VALID"])

    def test_a_key_in_the_wrong_column_is_not_repeated(self):
        secret = "sk-abcdefghijklmnop0123456789-zyxw"
        for text in (
            f"{secret},acme\n{secret},acme\n",
            f"sha256,environment,state\n{sha256('x')},{secret},active\n",
            f"sha256,environment,state\n{sha256('x')},live,{secret}\n",
            f"sha256,environment,expires\n{sha256('x')},live,{secret}\n",
            f"sha256,environment,plan\n{sha256('x')},live,{secret}\n",
            f"sha256,environment,scopes\n{sha256('x')},live,{secret}\n",
            f"sha256,environment,limits\n{sha256('x')},live,{secret}\n",
            f"sha256,environment,addresses\n{sha256('x')},live,{secret}\n",
            f"sha256,environment,foreign\n{sha256('x')},live,{secret}\n",
        ):
            with self.subTest(text=text):
                self.ctl("import", "--form", "csv", stdin=text, status=1)
            self.assertIn("standard input:2: ", self.said)
            self.assertNotIn(secret[:16], self.said)
            self.assertNotIn(secret[-12:], self.said)
        self.assertEqual(self.ctl("export"), "")

    def test_what_a_native_key_says_itself_is_not_said_otherwise(self):
        key = make_key()
        self.bring([{"key": key, "id": "A" * 12}], status=1)
        self.assertIn("standard input:1: id: not what the key says", self.said)
        self.bring([{"key": key, "environment": "test"}], status=1)
        self.assertIn("standard input:1: environment: not what the key says", self.said)
        self.bring([{"key": key, "id": key_id(key), "environment": "live"}])
        self.assertEqual(self.codes(key, status=0), ["VALID"])

    def test_metadata_keeps_its_digits_and_characters(self):
        written = r'{"n": [12345678901234567890123, 1.50], "e": "\ud83d\ude00\u00e4"}'
        for form, text in (
            ("jsonl", '{"sha256": "%s", "foreign": true, "metadata" : %s}\n' % (sha256("1"), written)),
            ("csv", 'sha256,foreign,metadata\n%s,true,"%s"\n' % (sha256("2"), written.replace('"', '""'))),
        ):
            self.ctl("import", "--form", form, stdin=text)
        exported = self.ctl("export").splitlines()
        self.assertEqual(len(exported), 2)
        for line in exported:
            self.assertIn('"metadata":{"n":[12345678901234567890123,1.50],"e":"\U0001f600ä"}', line)
        for text, what in (('{"a": 1} x', "no JSON"), ('[1]', "no JSON object"), ('{"a":1,"a":2}', "stands twice")):
            self.ctl("import", stdin='{"sha256": "%s", "foreign": true, "metadata": %s}\n' % (sha256("3"), text), status=1)
            self.assertRegex(self.said, f"(?m)^standard input:1: .*{what}")

    def test_what_is_no_record(self):
        for text, what in (("[1]\n", "no object"), ("{\n", "no JSON"), ('{"key": 1}\n', "key: no text"), ('{"x": 1}\n', "x")):
            self.ctl("import", stdin=text, status=1)
            self.assertRegex(self.said, rf"(?m)^standard input:1: .*{what}")
        for text, line, what in (("id,id\n", 1, "twice"), ('id,sha256\na,"b\n', 2, "not closed"), ("id,sha256\na\n", 2, "1 fields")):
            self.ctl("import", "--form", "csv", stdin=text, status=1)
            self.assertRegex(self.said, rf"(?m)^standard input:{line}: .*{what}")

    def test_what_is_exported_is_what_is_imported(self):
        self.ctl("scope", "create", "a.b")
        self.ctl("plan", "create", "free", "--limit", "burst=10/s,burst=20", "--limit", "daily=9/day")
        full, _ = self.issue(
            "--owner", 'a "b", c', "--name", "x, y", "--metadata", '{"a": [1, "ä"]}', "--expires", "90d", "--plan", "free",
            "--scope", "a.b", "--address", "192.0.2.0/24", "--address", "2001:db8::/32", "--limit", "burst=5/s,shadow",
            "--limit", "daily=7/day",
        )  # fmt: skip
        revoked, _ = self.issue()
        self.ctl("revoke", revoked)
        self.bring([{"key": "other-form-" + secrets.token_urlsafe(32)}])
        for form in ("jsonl", "csv"):
            exported = self.ctl("export", "--form", form)
            ids = [row["id"] for row in self.json("list")]
            if form == "jsonl":
                self.assertEqual([json.loads(line)["id"] for line in exported.splitlines()], ids)
            else:
                self.assertEqual([row["id"] for row in csv.DictReader(io.StringIO(exported, newline=""))], ids)
            shown = [self.json("show", one) for one in ids]
            for one in ids:
                self.ctl("delete", one)
            self.ctl("import", "--form", form, stdin=exported)
            self.assertEqual(self.ctl("export", "--form", form), exported)
            self.assertEqual([self.json("show", one) for one in ids], shown)

    def test_many_are_in_force_when_it_ends(self):
        keys = [make_key() for _ in range(1500)]
        self.bring({"id": key_id(key), "sha256": sha256(key), "environment": "live"} for key in keys)
        self.assertEqual(self.codes(*keys, status=0), ["VALID"] * len(keys))


class Sqlite(Transfer):
    STORE = "sqlite:{}/keys.db"


if __name__ == "__main__":
    apikeyctl_test.main()
