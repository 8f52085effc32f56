#!/usr/bin/env python3
"""Promise: the admin door does what its document says and nothing else, for those who may, and bad input changes
nothing and is named."""

import argparse
import contextlib
import fcntl
import http.client
import json
import os
import pathlib
import random
import signal
import socket
import ssl
import string
import subprocess
import unittest
import urllib.parse

from live_daemon import PATIENCE_S, key_id, make_key, wait_until
from live_door import DOOR_SCOPES, LiveDoor
from openapi_document import OpenApiDocument

OPTIONS = argparse.Namespace()
NO_SUCH_ID = "0" * 12
SHADOW_BYTES_MIN = 1 << 30


class DoorCase(unittest.TestCase):
    more = ""

    @classmethod
    def setUpClass(cls):
        cls.document = OpenApiDocument(pathlib.Path(OPTIONS.document))
        cls.door = LiveDoor(OPTIONS.daemon, OPTIONS.tool, OPTIONS.door, cls.more)
        cls.addClassCleanup(cls.door.close)
        for scope in [*DOOR_SCOPES, "reports.read"]:
            cls.door.tool("scope", "create", scope)
        cls.door.tool("plan", "create", "free", "--limit", "burst=100/s,burst=200", "--limit", "monthly=1000/month")
        cls.door.tool("plan", "create", "one", "--limit", "only=1/day")
        cls.door.tool("owner", "create", "acme")
        cls.prepare()
        cls.door.start()

    @classmethod
    def prepare(cls):
        """What has to be there before the door starts."""

    def tearDown(self):
        self.assertIsNone(self.door.process.poll(), "the door has ended")

    def call(self, name, subject="", *, query="", **how):
        """Asks for an operation of the document, which judges the answer: (status, headers, body out of JSON)."""
        operation = self.document.operations[name]
        path = operation.path.replace("{id}", subject).replace("{name}", urllib.parse.quote(subject, safe=""))
        status, headers, body = self.door.ask(operation.method, path + query, **how)
        self.document.judge(name, status, headers, body)
        if status < 300 and isinstance(how.get("body"), dict):
            self.assertTrue(operation.fits(how["body"]), f"{name} took what its document forbids: {how['body']}")
        return status, headers, json.loads(body) if body else None

    def good(self, name, subject="", **how):
        """The body of an answer that is one of success."""
        status, _, body = self.call(name, subject, **how)
        self.assertLess(status, 300, body)
        return body

    def problem(self, expected, name, subject="", **how):
        """The body of a problem with this status."""
        status, headers, body = self.call(name, subject, **how)
        self.assertEqual(status, expected, body)
        self.assertEqual(body["status"], expected)
        self.assertEqual(headers["Cache-Control"], "no-store")
        return body

    def fresh(self, **fields):
        """A key made by the door: (id, plaintext)."""
        made = self.good("issueKey", body=fields)
        return made["id"], made["key"]

    def shown(self, key):
        return json.loads(self.door.tool("show", key, "--output", "json"))

    def verdict(self, plaintext):
        command = [OPTIONS.tool, "--config", self.door.daemon.config, "verify", "--output", "json"]
        run = subprocess.run(command, input=plaintext, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        return json.loads(run.stdout)[0]["code"]

    def check_wiped(self):
        """Issues and rotates keys, and finds none of them in the door's memory, nor the caller's own."""
        _, caller = self.door.issue(scopes=["apikeyd.keys.write"])
        made = [self.good("issueKey", key=caller, body={"name": "x"})["key"] for _ in range(5)]
        made.append(self.good("rotateKey", key_id(made[0]), key=caller)["key"])
        # An answer is read before the door is done with it; not before it is done with the next one.
        self.assertEqual(self.door.ask("GET", "/v1/openapi.json")[0], 200)
        pid = self.door.process.pid
        try:
            memory = open(f"/proc/{pid}/mem", "rb", buffering=0)
        except PermissionError:
            return  # a promise as well: the door is closed even to its own user
        with memory:
            maps = pathlib.Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
            has_shadow = any(library in maps for library in ("libasan", "libtsan"))
            for line in maps.splitlines():
                place, mode = line.split()[:2]
                begin, end = (int(number, 16) for number in place.split("-"))
                # A sanitizer's shadow tells of bytes, and has none of them.
                if "w" not in mode or (has_shadow and end - begin > SHADOW_BYTES_MIN):
                    continue
                memory.seek(begin)
                held = memory.read(end - begin)
                for key in [*made, caller]:
                    self.assertFalse(key[-39:].encode() in held, f"{key_id(key)} stands in {line}")

    def key_set(self):
        return self.door.daemon.key_set.read_bytes()


class EveryOperation(DoorCase):
    """Each path, method and declared status is seen; none that is not declared."""

    def subject_of(self, operation):
        """Something of its own that the operation can be done to."""
        if "{id}" in operation.path:
            return self.fresh(owner="acme")[0]
        if "{name}" in operation.path:
            name = "".join(random.choices(string.ascii_lowercase, k=12))
            self.door.tool(operation.path.split("/")[2][:-1], "create", name)
            return name
        return ""

    def body_of(self, operation):
        bodies = {
            "issueKey": {"owner": "acme"},
            "changeKey": {"name": "renamed"},
            "createOwner": {"name": "".join(random.choices(string.ascii_lowercase, k=12))},
            "changeOwner": {"plan": "free"},
        }
        return bodies.get(operation.name)

    def test_every_declared_status_of_every_operation(self):
        unknown, (_, nothing) = make_key(), self.door.issue()
        _, spent = self.door.issue("--plan", "one", scopes=["apikeyd.*"])
        self.good("listKeys", key=spent)
        for operation in self.document.operations.values():
            with self.subTest(operation.name):
                self.ask_in_every_way(operation, unknown, nothing, spent)
        revoked, _ = self.fresh()
        self.good("revokeKey", revoked)
        for name in "enableKey", "disableKey", "rotateKey":
            self.problem(409, name, revoked)
        self.problem(409, "createOwner", body={"name": "acme"})
        self.problem(409, "deleteOwner", "acme")
        self.while_the_store_is_away()
        self.assertEqual(self.document.unseen(), [])

    def ask_in_every_way(self, operation, unknown, nothing, spent):
        name, subject = operation.name, self.subject_of(operation)
        body = self.body_of(operation)
        self.problem(431, name, subject, body=body, headers={"X-Long": "x" * 9000})
        if not operation.scopes:
            self.good(name)
            return
        with_one = operation.scopes[-1]
        own = self.door.issue("--owner", "acme", scopes=[with_one])[1] if "self" in operation.path else None
        self.problem(400, name, subject, query="?nonsense=1", body=body)
        self.problem(401, name, subject, key=unknown, body=body)
        self.problem(403, name, subject, key=nothing, body=body)
        status, headers, _ = self.call(name, subject, key=spent, body=body)
        self.assertEqual(status, 429)
        self.assertGreater(int(headers["Retry-After"]), 0)
        if 404 in operation.statuses:
            self.problem(404, name, NO_SUCH_ID, body=body)
        if operation.body_types:
            self.problem(413, name, subject, key=own, body=b" " * 65537)
            self.problem(415, name, subject, key=own, body=b"{}", headers={"Content-Type": "text/plain"})
            found = self.problem(422, name, subject, key=own, body={"colour": "red"})
            self.assertIn("/colour", [error.get("pointer") for error in found["errors"]])
            self.assertFalse(operation.fits({"colour": "red"}))
        if operation.body_required:
            path = operation.path.replace("{id}", subject).replace("{name}", subject)
            request = f"{operation.method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
            answer = self.door.send(request.encode())
            head, _, text = answer.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
            self.document.judge(name, int(head.split()[1]), headers, text)
            self.assertTrue(head.startswith(b"HTTP/1.1 411 "), head)
        self.good(name, subject, key=own, body=body)

    def while_the_store_is_away(self):
        (subject, _), (_, own) = self.fresh(), self.door.issue(scopes=["apikeyd.*"])
        away = self.door.daemon.key_set.with_suffix(".away")
        self.door.daemon.key_set.rename(away)
        try:
            for operation in self.document.operations.values():
                if operation.scopes:
                    with self.subTest(operation.name):
                        found = self.problem(
                            503, operation.name, subject, key=own if "self" in operation.path else None,
                            body=self.body_of(operation),
                        )  # fmt: skip
                        self.assertIs(found["recorded"], False)
        finally:
            away.rename(self.door.daemon.key_set)

    def test_undeclared_methods_are_told_those_that_there_are(self):
        for template in self.document.root["paths"]:
            path = template.replace("{id}", NO_SUCH_ID).replace("{name}", "nobody")
            declared = self.document.methods(template)
            for method in {"GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE", "BREW"} - declared:
                with self.subTest(path=path, method=method):
                    status, headers, body = self.door.ask(method, path)
                    self.assertEqual(status, 405)
                    self.assertEqual(set(headers["Allow"].split(", ")), declared)
                    self.assertEqual(body == b"", method == "HEAD")

    def test_other_paths_are_not_there(self):
        paths = ["/", "/v1", "/v1/", "/v1/keys/", "/v2/keys", "/v1/keys/short", f"/v1/keys/{NO_SUCH_ID}/burn", "*"]
        for path in [*paths, "/v1/%6beys"]:
            with self.subTest(path):
                self.assertEqual(self.door.ask("GET", path)[0], 404)

    def test_the_document_is_the_one_that_is_served(self):
        self.assertEqual(self.door.ask("GET", "/v1/openapi.json")[2], pathlib.Path(OPTIONS.document).read_bytes())

    def test_each_scope_that_is_declared_lets_in_and_no_other(self):
        for operation in self.document.operations.values():
            for scope in DOOR_SCOPES if operation.scopes else ():
                with self.subTest(operation=operation.name, scope=scope):
                    subject = self.subject_of(operation)
                    _, key = self.door.issue("--owner", "acme", scopes=[scope])
                    status, headers, body = self.call(operation.name, subject, key=key, body=self.body_of(operation))
                    if scope in operation.scopes:
                        self.assertLess(status, 300, body)
                    else:
                        self.assertEqual(status, 403, body)
                        self.assertIn('error="insufficient_scope"', headers["WWW-Authenticate"])


class Lifecycle(DoorCase):
    def test_a_key_from_its_first_day_to_its_last(self):
        wanted = {
            "environment": "test", "owner": "acme", "name": "CI", "expires": "2100-01-01T00:00:00Z",
            "metadata": {"big": 12345678901234567890123, "team": "é"}, "tags": ["b", "a"], "plan": "free",
            "scopes": ["reports.read"], "addresses": ["192.0.2.0/24"],
            "limits": [
                {"name": "monthly", "quota": "5/month"}, {"name": "burst", "rate": "7/s", "burst": 9, "shadow": True},
            ],
        }  # fmt: skip
        status, headers, made = self.call("issueKey", body=wanted)
        self.assertEqual(status, 201, made)
        self.assertEqual((status, headers["Location"]), (201, f"/v1/keys/{made['id']}"))
        self.assertEqual(headers["Cache-Control"], "no-store")
        self.assertEqual(key_id(made["key"]), made["id"])
        shown = self.good("showKey", made["id"])
        self.assertEqual(shown, self.shown(made["id"]))
        self.assertEqual(shown["metadata"], {"big": 12345678901234567890123, "team": "é", "tags": ["a", "b"]})
        self.assertEqual([limit["name"] for limit in shown["limits"]], ["monthly", "burst"])
        self.assertEqual(self.verdict(made["key"]), "IP_NOT_ALLOWED")

        changed = self.good("changeKey", made["id"], body={"addresses": None, "name": None, "tags": [], "limits": None})
        self.assertEqual((changed["addresses"], changed["name"], changed["limits"]), ([], None, []))
        self.assertEqual((changed["owner"], changed["plan"]), ("acme", "free"))
        self.assertEqual(changed["metadata"], {"big": 12345678901234567890123, "team": "é"})
        self.assertEqual(self.verdict(made["key"]), "VALID")
        for name, state, verdict in ("disableKey", "disabled", "DISABLED"), ("enableKey", "active", "VALID"):
            self.assertEqual(self.good(name, made["id"])["state"], state)
            self.assertEqual(self.verdict(made["key"]), verdict)

        next_one = self.good("rotateKey", made["id"], body={"grace": "24h"})
        self.assertEqual([self.verdict(one["key"]) for one in (made, next_one)], ["VALID", "VALID"])
        self.assertEqual(self.good("revokeKey", made["id"])["state"], "revoked")
        self.assertEqual([self.verdict(one["key"]) for one in (made, next_one)], ["REVOKED", "VALID"])
        last = self.good("rotateKey", next_one["id"])
        self.assertEqual([self.verdict(one["key"]) for one in (next_one, last)], ["REVOKED", "VALID"])
        self.assertEqual(self.call("deleteKey", last["id"])[0], 204)
        self.assertEqual(self.verdict(last["key"]), "NOT_FOUND")
        self.problem(404, "showKey", last["id"])

    def test_pages(self):
        made = sorted(self.fresh(owner="pages", tags=["x"] if i % 2 else [])[0] for i in range(7))
        found, after = [], ""
        while after is not None:
            page = self.good("listKeys", query=f"?owner=pages&limit=3{'&after=' + after if after else ''}")
            self.assertLessEqual(len(page["keys"]), 3)
            found += [key["id"] for key in page["keys"]]
            after = page["next"]
        self.assertEqual(found, made)
        listed = self.door.tool("list", "--owner", "pages", "--tag", "x", "--output", "json", "--limit", "1000")
        found = self.good("listKeys", query="?owner=pages&tag=x&state=active&environment=live")
        self.assertEqual(found["keys"], json.loads(listed))
        self.assertEqual(self.good("listKeys", query="?tag=x&tag=y&owner=pages")["keys"], [])

    def test_a_change_that_is_recorded_and_not_in_force_is_told_and_its_key_is_not_lost(self):
        old, _ = self.fresh(name="old")
        self.door.daemon.stop()
        try:
            made = self.problem(503, "issueKey", body={"name": "early"})
            self.assertIs(made["recorded"], True)
            rotated = self.problem(503, "rotateKey", old)
            self.assertEqual(self.problem(503, "changeKey", made["id"], body={"name": "later"})["recorded"], True)
        finally:
            self.door.daemon.process = subprocess.Popen([OPTIONS.daemon, "--config", self.door.daemon.config])
            wait_until(self.door.daemon._ready, "the daemon does not come back")
        for key, name in (made, "later"), (rotated, "old"):
            wait_until(lambda: self.verdict(key["key"]) == "VALID", "what was recorded does not come in force")
            self.assertEqual(self.good("showKey", key["id"])["name"], name)

    def test_nobody_waits_for_who_holds_the_store(self):
        """Not as long as the tool does: four that wait are all that are served."""
        old, _ = self.fresh()
        before = self.key_set()
        [lock] = self.door.daemon.home.glob("*keys.yaml.lock")
        with lock.open("r+") as held:
            fcntl.lockf(held, fcntl.LOCK_EX)
            self.assertIs(self.problem(503, "issueKey", body={})["recorded"], False)
            self.assertIs(self.problem(503, "revokeKey", old)["recorded"], False)
        self.assertEqual(self.key_set(), before)
        self.good("revokeKey", old)

    def test_one_connection_serves_many_requests(self):
        connection = self.door.connect()
        self.addCleanup(connection.close)
        for _ in range(20):
            self.good("issueKey", body={}, connection=connection)
            self.problem(404, "showKey", NO_SUCH_ID, connection=connection)


class OwnersPlansUsage(DoorCase):
    def test_an_owner_with_a_name_that_a_path_has_to_quote(self):
        for name in "a/b c", "ключ", "50%?#", "..":
            with self.subTest(name):
                status, headers, body = self.call("createOwner", body={"name": name, "plan": "free"})
                self.assertEqual((status, body), (201, {"name": name, "plan": "free"}))
                self.assertEqual(self.door.ask("GET", headers["Location"])[0], 200)
                self.fresh(owner=name)
                shown = self.good("showOwner", name)
                self.assertEqual(shown, {"name": name, "plan": "free", "keys": 1})
                self.assertEqual(shown, json.loads(self.door.tool("owner", "show", name, "--output", "json")))
                self.assertEqual(self.good("changeOwner", name, body={"plan": None})["plan"], None)
                self.problem(409, "deleteOwner", name)
                for key in self.good("listKeys", query="?owner=" + urllib.parse.quote(name, safe=""))["keys"]:
                    self.good("revokeKey", key["id"])
                self.assertEqual(self.call("deleteOwner", name)[0], 204)
                self.problem(404, "showOwner", name)

    def test_owners_that_cannot_be_so(self):
        before = self.key_set()
        bodies = [
            ({"name": ""}, "/name"), ({}, "/name"), ({"name": None}, "/name"), ({"name": 5}, "/name"),
            ({"name": "a\nb"}, "/name"), ({"name": "x" * 256}, "/name"), ({"name": "x", "plan": "none-such"}, "/plan"),
            ({"name": "x", "plan": "No"}, "/plan"),
            ({"name": "x", "plan": []}, "/plan"), ({"name": "x", "keys": 1}, "/keys"),
        ]  # fmt: skip
        for body, pointer in bodies:
            with self.subTest(body=str(body)[:40]):
                found = self.problem(422, "createOwner", body=body)
                self.assertEqual([error["pointer"] for error in found["errors"]], [pointer])
        for body in {}, {"plan": 5}, {"plan": "none-such"}:
            self.assertEqual(self.problem(422, "changeOwner", "acme", body=body)["errors"][0]["pointer"], "/plan")
        self.assertEqual(self.key_set(), before)

    def test_owners_and_plans_are_what_the_tool_shows(self):
        for operation, name in ("listOwners", "owner"), ("listPlans", "plan"):
            shown = json.loads(self.door.tool(name, "list", "--output", "json"))
            self.assertEqual(self.good(operation), {name + "s": shown})
        shown = json.loads(self.door.tool("plan", "show", "free", "--output", "json"))
        self.assertEqual(self.good("showPlan", "free"), shown)

    def test_usage_is_what_the_tool_shows(self):
        used, key = self.door.issue("--owner", "users", scopes=["apikeyd.self"])
        for _ in range(3):
            self.assertEqual(self.verdict(key), "VALID")
        self.door.tool("disable", used)
        self.verdict(key)
        self.door.tool("enable", used)
        unused, _ = self.door.issue()
        for one in used, unused:
            for query, options in ("", ()), ("?since=1h", ("--since", "1h")), ("?by=minute", ("--by", "minute")):
                shown = json.loads(self.door.tool("usage", one, "--output", "json", *options))
                found = self.good("showUsage", one, query=query)
                self.assertEqual({name: found[name] for name in found if name != "unflushed"},
                                 {name: shown[name] for name in shown if name != "unflushed"})  # fmt: skip
        self.assertEqual([self.good("showUsage", used)[count] for count in ("allowed", "denied")], [3, 1])
        self.assertEqual(self.good("showOwnUsage", key=key)["allowed"], 4)  # and itself
        steps = self.good("showOwnUsage", key=key, query="?since=1h&by=minute")["keys"]
        self.assertEqual((sum(step["allowed"] for step in steps), {step["id"] for step in steps}), (5, {used}))
        other, _ = self.door.issue("--owner", "others")
        theirs = [self.problem(404, "showUsage", one, key=key) for one in (other, NO_SUCH_ID)]
        self.assertEqual(theirs[0], theirs[1])
        self.problem(404, "showUsage", NO_SUCH_ID)

    def test_periods_that_cannot_be(self):
        key, _ = self.door.issue()
        queries = {
            "since=x": "since", "until=x": "until", "since=": "since", "by=week": "by", "by=": None,
            "since=2100-01-01": "since", "since=2026-11-01&until=2026-10-01": "since",
            "since=2026-11-01T00:00:01Z": "since",
        }  # fmt: skip
        for query, parameter in queries.items():
            with self.subTest(query):
                if parameter is None:
                    self.good("showUsage", key, query="?" + query)
                else:
                    found = self.problem(400, "showUsage", key, query="?" + query)
                    self.assertEqual(found["errors"][0]["parameter"], parameter)


class Callers(DoorCase):
    more = "audit_log: {{file: {home}/audit.log}}\n"

    def test_keys_that_are_not_accepted_get_one_and_the_same_answer(self):
        revoked, revoked_key = self.door.issue(scopes=DOOR_SCOPES)
        disabled, disabled_key = self.door.issue(scopes=DOOR_SCOPES)
        self.door.tool("revoke", revoked)
        self.door.tool("disable", disabled)
        wrong = revoked_key[:-1] + ("a" if revoked_key[-1] != "a" else "b")
        answers = set()
        for key in make_key(), revoked_key, disabled_key, wrong, "short", "x" * 600:
            for header in f"Authorization: bearer  {key}", f"X-API-Key: {key}":
                request = f"GET /v1/keys HTTP/1.1\r\nHost: h\r\n{header}\r\nConnection: close\r\n\r\n"
                answer = self.door.send(request.encode())
                answers.add(b"\r\n".join(line for line in answer.split(b"\r\n") if not line.startswith(b"Date: ")))
        (answer,) = answers
        self.assertTrue(answer.startswith(b"HTTP/1.1 401 "), answer)
        self.assertIn(b'WWW-Authenticate: Bearer realm="apikeyd", error="invalid_token"\r\n', answer)

    def test_two_different_keys_are_a_bad_request_and_one_twice_is_one(self):
        _, key = self.door.issue(scopes=["apikeyd.keys.read"])
        self.problem(400, "listKeys", key=key, headers={"X-API-Key": make_key()})
        self.good("listKeys", key=key, headers={"X-API-Key": key})

    def test_a_key_is_the_caller_also_where_operators_may_come_without(self):
        _, key = self.door.issue(scopes=["apikeyd.keys.read"])
        self.problem(403, "issueKey", key=key, body={})
        self.assertIn("keys", self.good("listKeys"))

    def test_nobody_hands_on_what_they_do_not_hold(self):
        _, writer = self.door.issue(scopes=["apikeyd.keys.write", "apikeyd.keys.read"])
        stronger, _ = self.door.issue(scopes=["apikeyd.owners.write"])
        before = self.key_set()
        more = ["apikeyd.owners.write"], ["apikeyd.*"], ["*"], ["reports.read", "apikeyd.self"], ["apikeyd.keys.*"]
        for scopes in more:
            with self.subTest(scopes):
                refused = self.problem(403, "issueKey", key=writer, body={"scopes": scopes})
                self.assertIn("apikeyd" if scopes != ["*"] else "*", refused["detail"])
                self.problem(403, "changeKey", self.door.issue()[0], key=writer, body={"scopes": scopes})
        before = self.key_set()
        self.problem(403, "rotateKey", stronger, key=writer)
        self.assertEqual(self.key_set(), before)
        made = self.good("issueKey", key=writer, body={"scopes": ["apikeyd.keys.read", "reports.*"]})
        self.assertEqual(self.shown(made["id"])["scopes"], ["apikeyd.keys.read", "reports.*"])
        _, all_of_it = self.door.issue(scopes=["apikeyd.*"])
        self.good("rotateKey", stronger, key=all_of_it)
        self.good("issueKey", key=all_of_it, body={"scopes": ["apikeyd.*"]})

    def test_nobody_brings_back_what_they_do_not_hold(self):
        """Its bounds, its end and its being disabled keep a stronger key from those who have its plaintext."""
        _, writer = self.door.issue(scopes=["apikeyd.keys.write", "apikeyd.keys.read"])
        stronger, _ = self.door.issue(scopes=["*"])
        self.good("disableKey", stronger, key=writer)
        before = self.key_set()
        self.problem(403, "enableKey", stronger, key=writer)
        for body in {"addresses": []}, {"expires": None}, {"owner": "victim"}, {"name": "x"}, {"scopes": []}:
            self.problem(403, "changeKey", stronger, key=writer, body=body)
        self.assertEqual(self.key_set(), before)
        _, all_of_it = self.door.issue(scopes=["*"])
        self.good("enableKey", stronger, key=all_of_it)
        self.good("revokeKey", stronger, key=writer)

    def test_an_owner_sees_and_ends_its_own_keys_only(self):
        mine, key = self.door.issue("--owner", "mine", scopes=["apikeyd.self"])
        sister, _ = self.door.issue("--owner", "mine")
        other, _ = self.door.issue("--owner", "other")
        nobodys, _ = self.door.issue()
        stronger, _ = self.door.issue("--owner", "mine", scopes=["apikeyd.keys.write"])
        listed = [one["id"] for one in self.good("listKeys", key=key)["keys"]]
        self.assertEqual(listed, sorted([mine, sister, stronger]))
        before = self.key_set()
        for name in "showKey", "revokeKey", "rotateKey":
            theirs = [self.problem(404, name, one, key=key) for one in (other, nobodys, NO_SUCH_ID)]
            self.assertEqual(theirs, [theirs[0]] * 3)
        self.problem(403, "rotateKey", stronger, key=key)
        self.assertEqual(self.key_set(), before)
        self.good("revokeKey", sister, key=key)
        self.assertEqual(self.good("showSelf", key=key)["id"], mine)
        successor = self.good("rotateSelf", key=key, body={"grace": "1h"})
        self.assertEqual(self.good("showSelf", key=successor["key"])["owner"], "mine")
        self.assertEqual(self.good("showSelf", key=key)["id"], mine)
        self.good("revokeKey", mine, key=successor["key"])
        self.problem(401, "showSelf", key=key)

    def test_a_key_without_an_owner_is_alone(self):
        mine, key = self.door.issue(scopes=["apikeyd.self"])
        other, _ = self.door.issue()
        self.assertEqual([one["id"] for one in self.good("listKeys", key=key)["keys"]], [mine])
        self.problem(404, "showKey", other, key=key)

    def test_who_has_no_key_has_no_self(self):
        for name in "showSelf", "rotateSelf", "showOwnUsage":
            self.problem(403, name)

    def test_changes_are_logged_with_who_made_them_and_no_plaintext_is(self):
        actor, key = self.door.issue(scopes=["apikeyd.keys.write"])
        made = self.good("issueKey", key=key, body={"owner": "acme"})
        self.good("revokeKey", made["id"], key=key)
        self.problem(404, "deleteKey", NO_SUCH_ID)
        log = self.door.log.read_text()
        lines = [line for line in log.splitlines() if "event=door.change" in line]
        by_key = [line for line in lines if f"actor={actor}" in line and "revoke" in line and made["id"] in line]
        self.assertEqual(len(by_key), 1, log)
        self.assertTrue(any("uid=" in line and "status=404" in line for line in lines), log)
        self.problem(404, "deleteOwner", key)
        for secret in key, made["key"]:
            self.assertNotIn(secret[-39:], self.door.log.read_text())

    def test_the_daemons_audit_log_tells_who_the_door_acted_for(self):
        actor, key = self.door.issue(scopes=["apikeyd.keys.write"])
        made = self.good("issueKey", key=key, body={})["id"]
        self.good("disableKey", made)
        self.good("createOwner", body={"name": "audited"})
        told = [line for line in (self.door.daemon.home / "audit.log").read_text().splitlines()]
        for event, who, what in (
            ("key.create", f"key {actor}", made), ("key.disable", f"uid {os.getuid()}", made),
            ("owner.create", f"uid {os.getuid()}", "audited"),
        ):  # fmt: skip
            wanted = f'on_behalf_of="{who}" id={what} result=ok'
            self.assertEqual(len([line for line in told if f"event={event} " in line and wanted in line]), 1, told)
        self.assertNotIn("on_behalf_of", next(line for line in told if f"id={actor} " in line))


class BadInput(DoorCase):
    def setUp(self):
        self.id, _ = self.fresh(name="as it was")
        self.before = self.key_set()

    def tearDown(self):
        super().tearDown()
        self.assertEqual(self.key_set(), self.before)
        self.good("listKeys")

    def test_what_is_no_request(self):
        head = b"POST /v1/keys HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
        requests = {
            "no HTTP": (b"\x16\x03\x01 not HTTP at all\r\n\r\n", 400),
            "another version": (b"GET /v1/keys HTTP/9.9\r\nHost: h\r\n\r\n", 400),
            "no host": (b"GET /v1/keys HTTP/1.1\r\n\r\n", 400),
            "two hosts": (b"GET /v1/keys HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            "a length that is none": (head + b"Content-Length: 1x\r\n\r\n{", 400),
            "two lengths": (head + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ", 400),
            "a length and chunks": (head + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
            "a broken chunk": (head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", 400),
            "the half of a head": (b"POST /v1/ke", 400),
            "the half of a body": (head + b'Content-Length: 100\r\n\r\n{"owner":', 400),
            "the half of the chunks": (head + b'Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n', 400),
            "a long target": (b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 431),
            "a long header": (b"GET /v1/keys HTTP/1.1\r\nHost: h\r\nX-Long: " + b"x" * 20000 + b"\r\n\r\n", 431),
            "many headers": (b"GET /v1/keys HTTP/1.1\r\nHost: h\r\n" + b"a: b\r\n" * 5000 + b"\r\n", 431),
            "a long body": (head + b"Content-Length: 200000\r\n\r\n" + b"x" * 200000, 413),
            "a long body in chunks": (
                head + b"Transfer-Encoding: chunked\r\n\r\n" + (b"4000\r\n" + b" " * 0x4000 + b"\r\n") * 8, 413,
            ),
            "a body that nobody will take": (head + b"Expect: 100-continue\r\nContent-Length: 9999999\r\n\r\n", 413),
        }  # fmt: skip
        for what, (request, status) in requests.items():
            with self.subTest(what):
                answer = self.door.send(request)
                self.assertTrue(answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:200])
                self.assertIn(b"\r\nConnection: close\r\n", answer)
                self.assertEqual(json.loads(answer.partition(b"\r\n\r\n")[2])["status"], status)

    def test_where_a_request_ends_is_plain(self):
        """What Beast passes over, a proxy in front may not: no body is another's request."""
        hidden = b"GET /v1/openapi.json HTTP/1.1\r\nHost: h\r\n\r\n"
        for fields in (
            b"Transfer-Encoding: xchunked\r\nContent-Length: 0\r\n", b"Transfer-Encoding: chunked, identity\r\n",
            b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            b"Transfer-Encoding: xchunked\r\nExpect: 100-continue\r\n",
        ):  # fmt: skip
            with self.subTest(fields):
                answer = self.door.send(b"POST /v1/keys HTTP/1.1\r\nHost: h\r\n" + fields + b"\r\n" + hidden)
                self.assertRegex(answer, rb"^HTTP/1.1 400 ")
                self.assertEqual(answer.count(b"HTTP/1.1 "), 1)

    def test_torn_and_twisted_requests(self):
        dice = random.Random(7)
        fields = {"metadata": {"a": [1, {"b": "c"}]}, "limits": [{"name": "a", "rate": "1/s"}], "tags": ["x"]}
        body = json.dumps(fields).encode()
        head = f"PATCH /v1/keys/{NO_SUCH_ID} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n".encode()
        whole = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        for _ in range(500):
            sent = bytearray(whole)
            for _ in range(dice.randint(1, 4)):
                at = dice.randrange(len(sent))
                kind = dice.randrange(4)
                if kind == 0:
                    sent[at] = dice.randrange(256)
                elif kind == 1:
                    del sent[at : at + dice.randint(1, 8)]
                elif kind == 2:
                    sent[at:at] = sent[at : at + dice.randint(1, 40)]
                else:
                    sent[at:at] = dice.choice([b"\0", b"\r\n", b'"', b"{", b"}", b"[", b"]", b"\\u", b",", b"%", b":"])
            answer = self.door.send(bytes(sent))
            self.assertRegex(answer[:13], rb"^(HTTP/1.1 4\d\d )?$", sent)

    def test_bodies_that_are_no_json_object(self):
        bodies = {
            b"": None, b"nonsense": 0, b'{"owner":"a"': None, b'{"owner":"a",}': None, b'{"owner":"a"} x': 14,
            b"[]": None, b'"text"': None, b"null": None, b'{"owner":"\xff"}': None, b'{"owner":"\\ud800"}': None,
            b"{'owner':1}": 1,
            b"[" * 60000: None, b'{"metadata":' + b'{"a":' * 5000: None, b"\xef\xbb\xbf{}": 0,
        }  # fmt: skip
        for body, offset in bodies.items():
            for name in "issueKey", "changeKey":
                with self.subTest(name=name, body=body[:40]):
                    found = self.problem(400, name, self.id, body=body)
                    if offset is not None:
                        self.assertEqual(found["errors"][0]["offset"], offset)

    def test_names_that_stand_twice(self):
        nested = b'{"metadata":{"a":[{"b":1,"b":2}]}}'
        for body in b'{"owner":"a","owner":"b"}', b'{"owner":"a","own\\u0065r":"b"}', nested:
            with self.subTest(body):
                found = self.problem(400, "changeKey", self.id, body=body)
                self.assertIn("once", found["errors"][0]["detail"])

    def test_fields_that_cannot_be_so_are_named_all_at_once(self):
        one = {
            "owner": 5, "name": "x" * 256, "expires": "2001-01-01T00:00:00Z", "metadata": [], "tags": ["", "a"],
            "plan": "No Plan", "scopes": ["a.b", "A"], "addresses": ["192.0.2.1/24", "10.0.0.1"], "surprise": 1,
            "limits": [
                {"name": "a", "rate": "x"}, {"name": "a", "quota": "5/day", "burst": 4}, 7,
                {"name": "b", "rate": "1/s", "x/y": 1},
            ],
        }  # fmt: skip
        pointers = {
            "/owner", "/name", "/expires", "/metadata", "/tags", "/plan", "/scopes/1", "/addresses/0", "/surprise",
            "/limits/0/rate", "/limits/1/burst", "/limits/1/name", "/limits/2", "/limits/3/x~1y",
        }  # fmt: skip
        for name in "issueKey", "changeKey":
            found = self.problem(422, name, self.id, body=one)
            self.assertEqual({error["pointer"] for error in found["errors"]}, pointers)
        single = {
            "/environment": {"environment": "LIVE"}, "/name": {"name": "a\nb"}, "/plan": {"plan": "none-such"},
            "/scopes": {"scopes": ["none.such"]}, "/metadata": {"metadata": {"a": "x" * 5000}},
            "/addresses": {"addresses": ["10.0.0.1"] * 65}, "/limits/0": {"limits": [{"name": "a"}]},
        }  # fmt: skip
        for pointer, body in single.items():
            with self.subTest(body=str(body)[:60]):
                found = self.problem(422, "issueKey", body=body)
                self.assertEqual([error["pointer"] for error in found["errors"]], [pointer])
        self.problem(422, "changeKey", self.id, body={"environment": "test"})
        self.problem(422, "changeKey", self.id, body={"state": "revoked"})
        for body in {"grace": "soon"}, {"grace": 5}, {"grace": "-1s"}, {"id": self.id}:
            self.problem(422, "rotateKey", self.id, body=body)

    def test_parameters_that_cannot_be(self):
        queries = {
            "limit=0": "limit", "limit=1001": "limit", "limit=": "limit", "limit=1x": "limit",
            "limit=1&limit=2": "limit", "after=short": "after", "state=gone": "state", "colour=red": "colour",
            "owner=%ff": "owner", "owner=%2": "owner",
            "key=" + make_key(): "key",
        }  # fmt: skip
        for query, parameter in queries.items():
            with self.subTest(query[:20]):
                found = self.problem(400, "listKeys", query="?" + query)
                self.assertEqual(found["errors"][0]["parameter"], parameter)
                self.assertNotIn(query[-39:] if query.startswith("key") else "\0", json.dumps(found))

    def test_a_key_given_by_mistake_is_not_repeated(self):
        key = make_key()
        for body in {"plan": key}, {"scopes": [key]}, {key: 1}, {"expires": key}:
            found = self.problem(422, "issueKey", body=body)
            self.assertNotIn(key[-39:], json.dumps(found))
        self.assertNotIn(key[-39:], self.door.log.read_text())


class Process(DoorCase):
    def test_what_was_answered_is_wiped(self):
        self.check_wiped()

    def test_it_ends_when_told_and_leaves_no_socket(self):
        idle = self.door.connect()
        self.addCleanup(idle.close)
        idle.connect()
        for number in signal.SIGTERM, signal.SIGINT:
            self.door.process.send_signal(number)
            self.assertEqual(self.door.process.wait(PATIENCE_S), 0)
            self.assertFalse(self.door.socket.exists())
            self.door.start()

    def test_a_dead_doors_socket_is_taken_over_and_a_live_ones_is_not(self):
        command = [OPTIONS.door, "--config", self.door.daemon.config]
        second = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        self.assertEqual((second.returncode, len(second.stderr.splitlines())), (1, 1), second.stderr)
        self.assertIn("another door", second.stderr)
        self.good("listKeys")
        self.door.process.kill()
        self.door.process.wait()
        self.door.start()
        self.good("listKeys")

    def test_idle_connections_shut_nobody_out(self):
        idle = [self.door.connect() for _ in range(100)]
        for one in idle:
            self.addCleanup(one.close)
            one.connect()
            one.sock.sendall(b"GET /v1/ke")
        for _ in range(3):
            self.good("listKeys")

    def test_those_who_do_not_take_their_answers_shut_nobody_out(self):
        request = b"GET /v1/openapi.json HTTP/1.1\r\nHost: h\r\n\r\n"
        for _ in range(64):
            one = self.door.connect()
            self.addCleanup(one.close)
            one.connect()
            one.sock.settimeout(PATIENCE_S)
            one.sock.sendall(request * 100)
            one.sock.recv(1)
        for _ in range(3):
            self.good("listKeys")


class Tls(DoorCase):
    more = "door: {{listen: '127.0.0.1:0', certificate: {home}/certificate.pem, key: {home}/key.pem}}\n"

    @classmethod
    def prepare(cls):
        cls.make_certificate("first")

    @classmethod
    def make_certificate(cls, name):
        home = cls.door.daemon.home
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-keyout", home / "key.pem", "-out", home / "certificate.pem", "-days", "2", "-subj", f"/CN={name}"]
        subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)

    def setUp(self):
        self.port = self.door.tcp_port()
        self.door.connect = self.connect

    def connect(self):
        context = ssl.create_default_context(cafile=self.door.daemon.home / "certificate.pem")
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=PATIENCE_S, context=context)

    def test_nobody_is_an_operator_here(self):
        for name in "listKeys", "issueKey", "showSelf":
            status, headers, _ = self.call(name, body={} if name == "issueKey" else None)
            self.assertEqual((status, headers["WWW-Authenticate"]), (401, 'Bearer realm="apikeyd"'))

    def test_a_portal_issues_and_an_owner_rotates(self):
        _, portal = self.door.issue(scopes=["apikeyd.keys.write", "apikeyd.self"])
        made = self.good("issueKey", key=portal, body={"owner": "acme", "scopes": ["apikeyd.self", "reports.read"]})
        self.assertEqual(self.verdict(made["key"]), "VALID")
        rotated = self.good("rotateSelf", key=made["key"])
        self.problem(401, "showSelf", key=made["key"])
        self.assertEqual(self.good("showSelf", headers={"X-API-Key": rotated["key"]})["id"], rotated["id"])

    def test_a_key_is_bound_to_its_addresses(self):
        _, near = self.door.issue("--address", "127.0.0.0/8", scopes=["apikeyd.keys.read"])
        _, far = self.door.issue("--address", "192.0.2.0/24", scopes=["apikeyd.keys.read"])
        self.good("listKeys", key=near)
        self.problem(403, "listKeys", key=far)

    def test_what_was_answered_is_wiped(self):
        self.check_wiped()

    def test_what_is_no_tls_gets_nothing_and_shuts_nobody_out(self):
        _, key = self.door.issue(scopes=["apikeyd.keys.read"])
        for sent in b"GET /v1/keys HTTP/1.1\r\nHost: h\r\n\r\n", b"\x16\x03\x01\x40\x00" + b"x" * 100000, b"":
            with socket.create_connection(("127.0.0.1", self.port), PATIENCE_S) as peer:
                with contextlib.suppress(OSError):
                    peer.sendall(sent)
                    peer.shutdown(socket.SHUT_WR)
                    self.assertNotIn(b"HTTP/1.1", peer.makefile("rb").read())
        silent = [socket.create_connection(("127.0.0.1", self.port), PATIENCE_S) for _ in range(100)]
        for one in silent:
            self.addCleanup(one.close)
        self.good("listKeys", key=key)

    def test_another_certificate_is_taken_and_a_broken_one_is_not(self):
        def served():
            with socket.create_connection(("127.0.0.1", self.port), PATIENCE_S) as peer:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
                with context.wrap_socket(peer) as stream:
                    return stream.getpeercert(binary_form=True)

        before = served()
        self.make_certificate("second")
        self.door.process.send_signal(signal.SIGHUP)
        wait_until(lambda: served() != before, "the new certificate is not served")
        now = served()
        (self.door.daemon.home / "key.pem").write_text("nonsense")
        self.door.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "door.certificate_kept" in self.door.log.read_text(), "a broken key is not told of")
        self.assertEqual(served(), now)
        self.door.stop()
        with self.assertRaisesRegex(RuntimeError, "the door ended with 1: .*key.pem: door.key: cannot be used"):
            self.door.start()
        self.make_certificate("third")
        self.door.start()


class InTheClear(DoorCase):
    more = "door: {{listen: '127.0.0.1:0', tls: off}}\n"

    def test_on_loopback_where_it_is_said(self):
        port = self.door.tcp_port()
        self.door.connect = lambda: http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        self.problem(401, "listKeys")
        self.good("listKeys", key=self.door.issue(scopes=["apikeyd.keys.read"])[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--daemon", required=True)
    parser.add_argument("--tool", required=True)
    parser.add_argument("--door", required=True)
    parser.add_argument("--document", required=True)
    parser.add_argument("tests", nargs="*")
    OPTIONS = parser.parse_args()
    unittest.main(argv=["door_test.py", *OPTIONS.tests], verbosity=2)
