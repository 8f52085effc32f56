#!/usr/bin/env python3
"""Promise: what each host of a fleet counted comes to be in the database, once, whatever becomes of hosts and server on
the way; and a login that may read keys is enough for it."""

import collections
import contextlib
import json
import pathlib
import shutil
import sqlite3
import subprocess
import time

import apikeyctl_test
from postgres_hosts import Fleet
from postgres_server import SqlError

# By the hosts' clocks a minute is over in a second, since hours leave a host a minute after they were counted.
SPEED = 60
COPY = "another instance of apikeyd sent for this usage store"


class Usage(Fleet):
    def setUp(self):
        super().setUp()
        self.counted = collections.Counter()  # what clients were answered: (host, id, allowed or denied)

    def host(self, name="a", source=None, **options):
        host = super().host(name, source, more="flush_interval_ms: 100\n", **options)
        [library] = pathlib.Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
        host.DAEMON_BY = ("env", f"LD_PRELOAD={library}", f"FAKETIME=+0 x{SPEED}", "FAKETIME_DONT_FAKE_MONOTONIC=1")
        return host

    def issue_to(self, *hosts):
        """A key that all of them have; and looking for it counts nothing."""
        key_id, key = self.issue(hosts[0])
        for host in hosts:
            host.wait_for(lambda host=host: key_id in host.table())
        return key_id, key

    def validate(self, host, *keys, times=1):
        command = [apikeyctl_test.OPTIONS.tool, "--config", host.config, "verify", "--output", "json"]
        done = subprocess.run(command, input="".join(key + "\n" for key in keys) * times, capture_output=True, text=True,
                              timeout=apikeyctl_test.WAIT_S, check=False)  # fmt: skip
        self.assertIn(done.returncode, (0, 1), done.stderr)
        for answer in json.loads(done.stdout):
            self.assertTrue(answer["counted"], answer)
            self.counted[host.name, answer["id"], "allowed" if answer["code"] == "VALID" else "denied"] += 1
            self.counted[host.name, answer["code"]] += 1

    def in_database(self):
        """The same as the database has it."""
        sums = collections.Counter()
        for host, key_id, allowed, denied in self.sql(
            "SELECT host, key_id, sum(allowed), sum(denied) FROM apikeyd.usage GROUP BY host, key_id"
        ):
            sums.update({(host, key_id, "allowed"): int(allowed), (host, key_id, "denied"): int(denied)})
        codes = {"0": "VALID", "3": "REVOKED"}
        for host, code, total in self.sql(
            "SELECT host, code, sum(total) FROM apikeyd.usage_codes JOIN apikeyd.usage_stores USING (store) "
            "GROUP BY host, code"
        ):
            sums[host, codes[code]] += int(total)
        return +sums

    def arrives(self, host):
        host.wait_for(lambda: self.in_database() == +self.counted)

    def batch(self):
        return int(self.sql("SELECT batch FROM apikeyd.usage_stores")[0][0])

    def in_store(self, host, sql):
        with contextlib.closing(sqlite3.connect(f"file:{host.top}/usage.db?mode=ro", uri=True)) as store:
            return store.execute(sql).fetchone()[0]

    def move_away_store(self, host):
        for path in host.top.glob("usage.db*"):
            path.unlink()
        shutil.rmtree(host.top / "run")

    def test_the_sums_of_two_hosts(self):
        hosts = [self.started("a"), self.started("b")]
        first, second = (self.issue_to(*hosts) for _ in range(2))
        self.validate(hosts[0], first[1], times=5)
        self.validate(hosts[1], first[1], second[1], times=3)
        self.arrives(hosts[0])
        self.ctl(hosts[0], "revoke", first[0])
        for host in hosts:
            host.wait_for(lambda host=host: host.table()[first[0]] == "revoked")
        for times in range(1, 4):
            self.validate(hosts[0], first[1], second[1], times=times)
            self.validate(hosts[1], first[1], times=times)
            self.arrives(hosts[0])
        self.assertEqual(self.sql("SELECT DISTINCT owner FROM apikeyd.usage"), [("acme",)])
        self.assertEqual({host.status()["usage_send_error"] for host in hosts}, {None})

    def test_what_the_tool_says(self):
        hosts = [self.started("a"), self.started("b")]
        first, second = (self.issue_to(*hosts) for _ in range(2))
        self.ctl(hosts[0], "revoke", second[0])
        for host in hosts:
            host.wait_for(lambda host=host: host.table()[second[0]] == "revoked")
        self.validate(hosts[0], first[1], second[1], times=2)
        self.validate(hosts[1], first[1], times=3)
        self.arrives(hosts[0])
        told = lambda *arguments: hosts[1].json("usage", "--fleet", *arguments)  # noqa: E731
        keys = [{"id": first[0], "allowed": 5, "denied": 0}, {"id": second[0], "allowed": 0, "denied": 2}]
        self.assertEqual(told(), sorted(keys, key=lambda one: one["id"]))
        self.assertEqual(told(first[0]), keys[:1])
        self.assertEqual(told("--owner", "nobody"), [])
        self.assertEqual(told("--group-by", "owner", "--owner", "acme"), [{"owner": "acme", "allowed": 5, "denied": 2}])
        by_host = [{"host": "a", "allowed": 2, "denied": 2}, {"host": "b", "allowed": 3, "denied": 0}]
        self.assertEqual(told("--group-by", "host"), by_host)
        self.assertEqual(told("--group-by", "host", second[0]), [{"host": "a", "allowed": 0, "denied": 2}])
        self.assertEqual(told("--group-by", "code"), [{"code": "VALID", "total": 5}, {"code": "REVOKED", "total": 2}])
        later = time.strftime("%Y-%m-%dT%H:00:00Z", time.gmtime(time.time() + 20 * 3600))  # than hosts' clocks
        hours = told("--by", "hour", "--group-by", "owner", "--until", later)
        self.assertEqual([sum(one[what] for one in hours) for what in ("allowed", "denied")], [5, 2])
        self.assertEqual(list(hours[0]), ["start", "owner", "allowed", "denied"])
        self.assertTrue(all(one["start"].endswith(":00:00Z") for one in hours))
        self.assertEqual(told("--until", "2020-01-01"), [])
        self.assertEqual(hosts[0].ctl("usage", "--fleet", "--group-by", "host", "--output", "csv"),
                         "host,allowed,denied\na,2,2\nb,3,0\n")  # fmt: skip
        for refused in (["--chart"], ["--plan", "x"], ["--by", "minute"], ["--since", "2020-01-01T00:30:00Z"], ["--group-by", "plan"]):
            hosts[0].ctl("usage", "--fleet", *refused, status=2)
        hosts[0].ctl("usage", "--group-by", "host", status=2)
        hosts[0].ctl("--store", "yaml:/nowhere", "usage", "--fleet", status=2)
        self.assertIn("has no fleet", hosts[0].said)

    def test_a_daemon_that_dies_between_the_send_and_its_note(self):
        host = self.started()
        _, key = self.issue_to(host)
        self.validate(host, key, times=3)
        self.arrives(host)
        for times in range(1, 4):
            lock = self.server.session(self.database)
            lock.run("BEGIN; LOCK TABLE apikeyd.usage_keys IN EXCLUSIVE MODE")
            self.validate(host, key, times=times)
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%send_usage%'"
            host.wait_for(lambda: self.sql(waits) == [("1",)])
            before = self.batch()
            with contextlib.closing(sqlite3.connect(host.top / "usage.db", timeout=60, isolation_level=None)) as store:
                store.execute("BEGIN IMMEDIATE")  # nothing can be noted
                lock.run("COMMIT")
                lock.close()
                host.wait_for(lambda before=before: self.batch() > before)
                host.kill()
            self.assertLess(self.in_store(host, "SELECT batch FROM sending"), self.batch())
            host.start()
            self.arrives(host)
        self.validate(host, key)
        self.arrives(host)

    def test_a_send_that_was_given_up_and_comes_late(self):
        """Sums never come down, in whatever order they come."""
        send = ("SELECT apikeyd.send_usage('h', 'place', '0123456789abcdef', {before}, '{{3600}}', '{{a}}', "
                "'{{{allowed}}}', '{{{denied}}}', '{{3600}}', '{{0}}', '{{{allowed}}}')")  # fmt: skip
        kept = ("SELECT allowed, denied, total, batch FROM apikeyd.usage_keys JOIN apikeyd.usage_codes USING (store) "
                "JOIN apikeyd.usage_stores USING (store)")  # fmt: skip
        for before, allowed, denied, given, sums in (
            (0, 5, 1, 1, ("5", "1", "5")),
            (0, 6, 1, 2, ("6", "1", "6")),  # without a note, sent again
            (2, 8, 3, 3, ("8", "3", "8")),
            (2, 7, 3, 4, ("8", "3", "8")),  # given up before the last one
            (3, 8, 2, 5, ("8", "3", "8")),
            (5, 9, 3, 6, ("9", "3", "9")),
        ):
            self.assertEqual(self.sql(send.format(before=before, allowed=allowed, denied=denied)), [(str(given),)])
            self.assertEqual(self.sql(kept), [(*sums, str(given))])

    def test_a_copy_that_sends_first(self):
        """Of a store that was told of lately another host's copy is refused also where it knows as much."""
        send = "SELECT apikeyd.send_usage('{host}', '{place}', '0123456789abcdef', {before}, '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}')"
        ask = lambda host, place, before: int(self.sql(send.format(host=host, place=place, before=before))[0][0])  # noqa: E731
        self.assertEqual(ask("a", "x", 0), 1)
        self.assertEqual(ask("b", "y", 1), -1)
        self.assertEqual(ask("a", "x", 1), 2)
        self.assertEqual(ask("renamed", "x", 2), 3)
        self.assertEqual(ask("renamed", "booted anew", 3), 4)
        self.assertEqual(ask("renamed", "another", 3), -1)
        self.sql("UPDATE apikeyd.usage_stores SET told = told - interval '11 minutes'")
        self.assertEqual(ask("b", "moved", 4), 5)

    def test_a_server_that_is_away(self):
        hosts = [self.started("a"), self.started("b")]
        keys = [self.issue_to(*hosts)[1] for _ in range(3)]
        self.validate(hosts[0], *keys)
        self.arrives(hosts[0])
        self.server.stop()
        try:
            for _ in range(3):
                for host in hosts:
                    flushed = host.status()["flushed"]
                    self.validate(host, *keys)
                    host.wait_for(lambda host=host, flushed=flushed: host.status()["flushed"] != flushed)
            for host in hosts:
                host.wait_for(lambda host=host: "cannot be reached" in (host.status()["usage_send_error"] or ""))
                self.assertIn("fleet usage", host.ctl("doctor", status=1))
                self.assertEqual(host.events("usage.flush_failed"), 0)
            hosts[1].kill()
            self.validate(hosts[1], *keys)
        finally:
            self.server.start()
        hosts[1].start()
        self.arrives(hosts[0])
        hosts[0].wait_for(lambda: hosts[0].status()["usage_send_error"] is None)
        self.assertEqual(hosts[0].events("usage.send_recovered"), 1)

    def test_a_copy_of_the_database_that_is_put_back(self):
        host = self.started()
        _, key = self.issue_to(host)
        self.validate(host, key, times=2)
        self.arrives(host)
        self.sql("CREATE TABLE k AS TABLE apikeyd.usage_keys; CREATE TABLE s AS TABLE apikeyd.usage_stores")
        self.validate(host, key, times=2)
        self.arrives(host)
        self.sql("TRUNCATE apikeyd.usage_keys, apikeyd.usage_codes; INSERT INTO apikeyd.usage_keys TABLE k; "
                 "UPDATE apikeyd.usage_stores t SET batch = s.batch FROM s WHERE t.store = s.store")  # fmt: skip
        self.validate(host, key)
        self.arrives(host)
        self.assertEqual(host.events("usage.sent_anew"), 1)

    def test_a_host_with_another_name(self):
        host = self.started("a")
        _, key = self.issue_to(host)
        self.validate(host, key, times=3)
        self.arrives(host)
        host.wait_for(lambda: self.in_store(host, "SELECT batch FROM sending") == self.batch())
        host.kill()
        host.name = "other"
        host.configure("")
        host.start()
        self.counted = collections.Counter({("other", *what[1:]): count for what, count in self.counted.items()})
        self.validate(host, key, times=2)
        self.arrives(host)
        self.assertEqual(self.sql("SELECT host FROM apikeyd.usage_stores"), [("other",)])

    def test_a_host_with_a_new_usage_store(self):
        host = self.started()
        _, key = self.issue_to(host)
        self.validate(host, key, times=3)
        self.arrives(host)
        host.kill()
        self.move_away_store(host)
        host.start()
        self.validate(host, key, times=2)
        self.arrives(host)
        self.assertEqual(self.sql("SELECT count(*) FROM apikeyd.usage_stores"), [("2",)])

    def test_a_copy_of_a_usage_store(self):
        self.copies_do_not_mix("b")

    def test_a_copy_of_a_usage_store_on_a_host_of_the_same_name(self):
        self.copies_do_not_mix("a")

    def copies_do_not_mix(self, name):
        """Of two hosts that have one usage store, only one writes its rows; and the other says so."""
        hosts = [self.started("a"), self.host("b")]
        hosts[1].name = name
        hosts[1].configure("")
        _, key = self.issue_to(hosts[0])
        self.validate(hosts[0], key, times=3)
        self.arrives(hosts[0])
        hosts[0].kill()
        shutil.copy(hosts[0].top / "usage.db", hosts[1].top / "usage.db")
        for path in hosts[0].top.glob("usage.db-*"):
            shutil.copy(path, hosts[1].top / path.name)
        hosts[0].start()
        self.validate(hosts[0], key, times=2)
        self.arrives(hosts[0])
        hosts[1].start()
        hosts[1].wait_for(lambda: hosts[1].table())
        unnoted = collections.Counter(self.counted)
        self.validate(hosts[1], key)
        self.counted = unnoted
        hosts[1].wait_for(lambda: COPY in (hosts[1].status()["usage_send_error"] or ""))
        self.validate(hosts[0], key)
        self.arrives(hosts[0])
        hosts[1].kill()
        self.move_away_store(hosts[1])
        hosts[1].start()
        self.validate(hosts[1], key)
        self.arrives(hosts[1])

    def test_a_database_without_the_tables(self):
        self.sql("DROP FUNCTION apikeyd.send_usage; DROP VIEW apikeyd.usage; DROP TABLE apikeyd.usage_keys, "
                 "apikeyd.usage_codes, apikeyd.usage_stores")  # fmt: skip
        host = self.started()
        _, key = self.issue_to(host)
        self.validate(host, key)
        host.wait_for(lambda: "share/apikeyd/postgres_usage.sql" in (host.status()["usage_send_error"] or ""))
        schema = pathlib.Path(__file__).resolve().parents[2] / "daemon" / "source" / "postgres_usage.sql"
        for _ in range(2):
            self.server.psql(f"\\i {schema}\n", self.database, "store_owner")
        self.arrives(host)

    def test_rights(self):
        host = self.started()
        _, key = self.issue_to(host)
        self.validate(host, key)
        self.arrives(host)
        for user in ("daemon_user", "tool_user"):
            for refused in (
                "SELECT uid FROM apikeyd.usage_stores", "INSERT INTO apikeyd.usage_keys VALUES(0, 'x', 1, 1, 1)",
                "UPDATE apikeyd.usage_keys SET allowed = 0", "UPDATE apikeyd.usage_stores SET batch = 0",
                "DELETE FROM apikeyd.usage_stores",
            ):  # fmt: skip
                with self.assertRaises(SqlError, msg=refused) as caught:
                    self.server.psql(refused, self.database, user)
                self.assertEqual(caught.exception.state, "42501", refused)
        # What anybody may send is a count of an hour.
        for sums in "'{3600}', '{x}', '{-1}', '{0}'", "'{3600}', '{x}', '{0}', '{-1}'", "'{3601}', '{x}', '{1}', '{0}'":
            sent = f"SELECT apikeyd.send_usage('b', 'x', '{'0' * 16}', 0, {sums}, '{{}}', '{{}}', '{{}}')"
            with self.assertRaises(SqlError, msg=sums) as caught:
                self.server.psql(sent, self.database, "daemon_user")
            self.assertEqual(caught.exception.state, "23514", sums)
        with self.assertRaises(SqlError):
            self.server.psql("DELETE FROM apikeyd.usage_keys", self.database, "daemon_user")
        self.server.psql("DELETE FROM apikeyd.usage_keys; DELETE FROM apikeyd.usage_codes", self.database, "tool_user")


if __name__ == "__main__":
    apikeyctl_test.main()
