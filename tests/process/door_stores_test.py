#!/usr/bin/env python3
"""Promise: what the admin door does to a YAML file it does to SQLite and to the database of a fleet, and there it waits
for the other hosts if it shall."""

import concurrent.futures
import json
import pathlib
import signal

import apikeyctl_test
from live_door import DOOR_SCOPES, Door
from openapi_document import OpenApiDocument
from postgres_hosts import Fleet


class Asked:
    """A door beside a host, and what its document says of each answer."""

    def open_door(self, host, *options):
        options_of = apikeyctl_test.OPTIONS
        self.document = OpenApiDocument(pathlib.Path(options_of.document))
        self.door = Door(options_of.door, host.config, host.instance, host.top / "door.log", *options)
        self.addCleanup(self.door.close)
        self.door.start()

    def call(self, name, subject="", *, query="", **how):
        operation = self.document.operations[name]
        path = operation.path.replace("{id}", subject).replace("{name}", subject)
        status, headers, body = self.door.ask(operation.method, path + query, **how)
        self.document.judge(name, status, headers, body)
        return status, json.loads(body) if body else None

    def good(self, name, subject="", **how):
        status, body = self.call(name, subject, **how)
        self.assertLess(status, 300, body)
        return body

    def problem(self, expected, name, subject="", **how):
        status, body = self.call(name, subject, **how)
        self.assertEqual(status, expected, body)
        return body

    def check_a_life(self, codes):
        """`codes`: what the host answers keys."""
        self.good("createOwner", body={"name": "portal"})
        self.problem(409, "createOwner", body={"name": "portal"})
        self.good("changeOwner", "portal", body={"plan": None})
        issued = self.good("issueKey", body={"owner": "portal", "name": "first", "metadata": {"tier": 3}})
        key_id, key = issued["id"], issued["key"]
        self.assertEqual(codes(key), ["VALID"])
        [fault] = self.problem(422, "issueKey", body={"owner": "portal", "plan": "none"})["errors"]
        self.assertEqual(fault["pointer"], "/plan")
        self.good("changeKey", key_id, body={"name": "second"})
        shown = self.good("showKey", key_id)
        self.assertEqual([shown[field] for field in ("name", "owner", "metadata")], ["second", "portal", {"tier": 3}])
        for name, code in ("disableKey", "DISABLED"), ("enableKey", "VALID"):
            self.good(name, key_id)
            self.assertEqual(codes(key), [code])
        after = self.good("rotateKey", key_id, body={"grace": "1h"})
        self.assertEqual(codes(key, after["key"]), ["VALID", "VALID"])
        last = self.good("rotateKey", after["id"])
        self.assertEqual(codes(after["key"], last["key"]), ["REVOKED", "VALID"])
        self.assertEqual({one["id"] for one in self.good("listKeys", query="?owner=portal&state=active")["keys"]},
                         {key_id, last["id"]})  # fmt: skip
        self.problem(409, "deleteOwner", "portal")
        for revoked in key_id, last["id"]:
            self.good("revokeKey", revoked)
        self.assertEqual(codes(key, last["key"]), ["REVOKED", "REVOKED"])
        self.problem(409, "enableKey", key_id)
        self.good("deleteKey", key_id)
        self.problem(404, "showKey", key_id)
        self.good("deleteOwner", "portal")

    def check_an_owner(self, issue):
        """`issue`: a key by the tool for these arguments, (id, plaintext)."""
        (own, key), (other, _) = issue("--owner", "acme", "--scope", "apikeyd.self"), issue("--owner", "other")
        self.assertEqual(self.good("showSelf", key=key)["id"], own)
        self.problem(404, "revokeKey", other, key=key)
        self.problem(403, "issueKey", key=key, body={})
        rotated = self.good("rotateSelf", key=key)
        self.problem(401, "showSelf", key=key)
        self.assertEqual(self.good("showSelf", key=rotated["key"])["id"], rotated["id"])


class OnSqlite(Asked, apikeyctl_test.Ctl):
    STORE = "sqlite:{}/keys.db"

    def setUp(self):
        super().setUp()
        self.start()
        for scope in DOOR_SCOPES:
            self.ctl("scope", "create", scope)
        self.open_door(self)

    def test_what_is_done_to_keys(self):
        self.check_a_life(lambda *keys: [answer["code"] for answer in json.loads(self.verified(*keys))])
        self.problem(400, "revokeKey", "0" * 12, query="?wait=fleet")

    def verified(self, *keys):
        every = all(self.good("showKey", key[-46:-34])["state"] == "active" for key in keys)
        return self.ctl("verify", "--output", "json", stdin="".join(key + "\n" for key in keys), status=0 if every else 1)

    def test_an_owner(self):
        self.check_an_owner(self.issue)


class OnAFleet(Asked, Fleet):
    def setUp(self):
        super().setUp()
        self.hosts = [self.started("a"), self.started("b")]
        for scope in DOOR_SCOPES:
            self.ctl(self.hosts[0], "scope", "create", scope)
        self.open_door(self.hosts[0], "--store", self.writer)

    def issued(self, *arguments):
        return json.loads(self.ctl(self.hosts[0], "issue", *arguments, "--output", "json"))

    def issued_pair(self, *arguments):
        issued = self.issued(*arguments)
        return issued["id"], issued["key"]

    def test_what_is_done_to_keys(self):
        self.check_a_life(self.hosts[0].codes_of)

    def test_an_owner(self):
        self.check_an_owner(self.issued_pair)

    def test_a_login_that_may_only_read(self):
        self.door.stop()
        self.open_door(self.hosts[0])
        self.assertEqual(self.good("listKeys")["keys"], [])
        self.assertIs(self.problem(503, "issueKey", body={})["recorded"], False)
        self.assertIn("permission denied", self.door.log.read_text())

    def test_a_server_that_is_away(self):
        issued = self.good("issueKey", body={})
        self.server.stop()
        try:
            self.assertIs(self.problem(503, "revokeKey", issued["id"])["recorded"], False)
            self.problem(503, "showKey", issued["id"])
        finally:
            self.server.start()
        self.good("revokeKey", issued["id"])
        self.assertEqual(self.hosts[0].codes_of(issued["key"]), ["REVOKED"])

    def test_what_is_to_be_in_force_in_the_fleet(self):
        first, second = (self.good("issueKey", body={}) for _ in range(2))
        self.hosts[1].becomes(second["key"], "VALID")
        self.problem(400, "revokeKey", first["id"], query="?wait=forever")
        self.problem(400, "disableKey", first["id"], query="?wait=fleet")
        self.good("revokeKey", first["id"], query="?wait=fleet")
        self.assertEqual(self.hosts[1].codes_of(first["key"]), ["REVOKED"])
        self.hosts[1].daemon.send_signal(signal.SIGSTOP)
        try:
            self.assertIs(self.problem(503, "revokeKey", second["id"], query="?wait=fleet")["recorded"], True)
        finally:
            self.hosts[1].daemon.send_signal(signal.SIGCONT)
        self.assertRegex(self.door.log.read_text(), "event=door.not_in_force .*on: b")
        self.assertEqual(self.hosts[0].codes_of(second["key"]), ["REVOKED"])
        self.hosts[1].becomes(second["key"], "REVOKED")

    def test_no_more_wait_for_the_fleet_than_leave_the_others_served(self):
        issued = [self.good("issueKey", body={})["id"] for _ in range(5)]
        self.hosts[1].daemon.send_signal(signal.SIGSTOP)
        try:
            with concurrent.futures.ThreadPoolExecutor(len(issued)) as pool:
                revoked = [pool.submit(self.call, "revokeKey", one, query="?wait=fleet") for one in issued]
                self.assertEqual([one.result()[0] for one in revoked], [503] * len(issued))
        finally:
            self.hosts[1].daemon.send_signal(signal.SIGCONT)
        log = self.door.log.read_text()
        self.assertGreater(log.count("too many wait for the fleet"), 0)
        self.assertGreater(log.count("not known to be in force on: b"), 0)
        self.assertEqual({self.good("showKey", one)["state"] for one in issued}, {"revoked"})

    def test_a_caller_whose_key_goes_while_they_wait(self):
        """Nothing is changed for who may not change it when its turn comes."""
        for change, expected in ("state = 'revoked'", 401), ("owner = 'other'", 503), ("addresses = '[\"192.0.2.1\"]'", 503):
            with self.subTest(change):
                caller = self.issued("--scope", "apikeyd.keys.write")
                kept = self.issued()
                lock = self.server.session(self.database)
                lock.run(f"BEGIN; UPDATE apikeyd.keys SET {change} WHERE id = '{caller['id']}'")
                with concurrent.futures.ThreadPoolExecutor() as pool:
                    asked = [pool.submit(self.call, "issueKey", key=caller["key"], body={"name": "late"}),
                             pool.submit(self.call, "revokeKey", kept["id"], key=caller["key"])]  # fmt: skip
                    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND usename = 'tool_user'"
                    self.hosts[0].wait_for(lambda waits=waits: self.sql(waits) == [("2",)])
                    lock.run("COMMIT")
                    lock.close()
                    for answer in asked:
                        self.assertEqual(answer.result()[0], expected)
                self.assertEqual(self.sql("SELECT count(*) FROM apikeyd.keys WHERE name = 'late'"), [("0",)])
                self.assertEqual(self.hosts[0].codes_of(kept["key"]), ["VALID"])


if __name__ == "__main__":
    apikeyctl_test.main("--door", "--document")
