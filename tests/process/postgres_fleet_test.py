#!/usr/bin/env python3
"""Promise: whoever waits for the fleet knows that every host that lives has a change, and which do not; and what hosts
tell of themselves is true of this server and this copy of the store."""

import json
import os
import pathlib
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

import apikeyctl_test
import host_networks
import postgres_server
from live_daemon import make_key
from postgres_hosts import Fleet


class Hosts(Fleet):
    def test_hosts_tell_of_themselves(self):
        hosts = [self.started("a"), self.started("b")]
        hosts[0].wait_for(lambda: set(self.fleet(hosts[0])) == {"a", "b"})
        self.issue(hosts[0])
        hosts[0].wait_for(lambda: all(one["behind"] == 0 for one in self.fleet(hosts[0]).values()))
        for one in self.fleet(hosts[1]).values():
            self.assertEqual((one["state"], one["version"]), ("live", hosts[0].status()["version"]))
            self.assertLess(one["told_ms_ago"], 15000)

    def test_a_revocation_waits_for_every_host(self):
        hosts = [self.started("a"), self.started("b")]
        for _ in range(20):
            issued, key = self.issue(hosts[0])
            hosts[1].becomes(key, "VALID")
            self.ctl(hosts[0], "revoke", issued, "--wait", "fleet")
            self.assertEqual([host.codes_of(key) for host in hosts], [["REVOKED"]] * 2)

    def test_a_host_that_does_not_take_it_in_is_named(self):
        hosts = [self.started("a"), self.started("b")]
        issued, key = self.issue(hosts[0])
        hosts[1].becomes(key, "VALID")
        hosts[1].daemon.send_signal(signal.SIGSTOP)
        self.addCleanup(hosts[1].daemon.send_signal, signal.SIGCONT)
        done = []
        revoke = threading.Thread(target=lambda: done.append(self.ctl(hosts[0], "revoke", issued, "--wait", "fleet", status=3)))
        revoke.start()
        hosts[0].becomes(key, "REVOKED")
        revoke.join()
        self.assertRegex(hosts[0].said, r"recorded, not known to be in force on: b( \(silent for \d+ s\))? ")
        hosts[1].daemon.send_signal(signal.SIGCONT)
        hosts[1].becomes(key, "REVOKED")
        self.ctl(hosts[0], "revoke", issued, "--wait", "fleet")

    def test_a_silent_host_is_named_until_it_is_forgotten(self):
        hosts = [self.started("a"), self.started("b")]
        issued, key = self.issue(hosts[0])
        hosts[1].becomes(key, "VALID")
        hosts[1].kill()
        self.sql("UPDATE apikeyd.hosts SET told = told - interval '1 hour' WHERE name = 'b'")
        self.assertEqual(self.fleet(hosts[0])["b"]["state"], "silent")
        self.ctl(hosts[0], "revoke", issued, "--wait", "fleet", status=3)
        self.assertRegex(hosts[0].said, r"not known to be in force on: b \(silent for 36\d\d s\)")
        self.ctl(hosts[0], "fleet", "--forget", "b")
        self.ctl(hosts[0], "revoke", issued, "--wait", "fleet")
        self.ctl(hosts[0], "fleet", "--forget", "b", status=1)

    def test_what_was_told_of_another_copy_is_not_believed(self):
        """Its numbers of transactions are this copy's as well, of other transactions."""
        hosts = [self.started("a"), self.started("b")]
        issued, key = self.issue(hosts[0])
        hosts[1].becomes(key, "VALID")
        hosts[1].kill()
        self.sql("UPDATE apikeyd.hosts SET server = 'another', applied = '9999999:9999999:' WHERE name = 'b'")
        self.assertIsNone(self.fleet(hosts[0])["b"]["behind"])
        self.ctl(hosts[0], "revoke", issued, "--wait", "fleet", status=3)
        self.assertIn("not known to be in force on: b", hosts[0].said)

    def test_two_daemons_of_one_name_are_told_apart(self):
        first = self.started("a")
        issued, _ = self.issue(first)
        second = self.started("a")
        second.wait_for(lambda: second.events("source.warning"))
        self.assertIn("another daemon tells the fleet as host 'a'", second.log.read_text())
        self.ctl(first, "revoke", issued, "--wait", "fleet")

    def test_a_daemon_that_is_started_again_is_the_same_host(self):
        hosts = [self.started("a"), self.started("b")]
        issued, key = self.issue(hosts[0])
        hosts[1].becomes(key, "VALID")
        hosts[1].kill()
        hosts[1].start()
        self.ctl(hosts[0], "revoke", issued, "--wait", "fleet")
        self.assertEqual(hosts[1].codes_of(key), ["REVOKED"])
        self.assertEqual(hosts[1].events("source.warning"), 0)

    def test_a_store_without_a_fleet(self):
        host = self.host()
        for arguments in (["fleet"], ["revoke", "2RkT9pQwX4Za", "--wait", "fleet"]):
            host.ctl(*arguments, "--store", f"yaml:{host.keys}", status=2)
            self.assertIn("has no fleet", host.said)

    def test_a_clock_ahead_on_one_host_silences_nobody(self):
        """Times are the server's alone."""
        hosts = [self.started("a"), self.started("b", ahead_s=86400)]
        hosts[0].wait_for(lambda: set(self.fleet(hosts[0])) == {"a", "b"})
        issued, key = self.issue(hosts[0])
        hosts[1].becomes(key, "VALID")
        self.assertEqual({one["state"] for one in self.fleet(hosts[0]).values()}, {"live"})
        self.ctl(hosts[0], "revoke", issued, "--wait", "fleet")
        hosts[1].becomes(key, "REVOKED")


class CutOff(Fleet):
    """Hosts that the test cuts off, with nothing said: the server sees them no more, and they do not see it."""

    USERS = "fleet_user", "tool_user"

    @classmethod
    def setUpClass(cls):
        cls.network = host_networks.make(("a", "b"))
        cls.addClassCleanup(cls.network.close)
        print(f"{cls.__name__}: hosts {cls.network.form}", file=sys.stderr)
        cls.server = postgres_server.Server(cls.network.settings, cls.network.hba(",".join(cls.USERS)))
        cls.addClassCleanup(cls.server.close)
        cls.network.serve(cls.server)
        cls.passwords = pathlib.Path(tempfile.mkstemp(prefix="apikeyd-test-pass-", dir="/dev/shm")[1])
        cls.addClassCleanup(cls.passwords.unlink)
        cls.password = secrets.token_hex(16)
        cls.passwords.write_text(f"*:*:*:*:{cls.password}\n")
        cls.server.psql(f"CREATE ROLE fleet_user LOGIN PASSWORD '{cls.password}'")

    def setUp(self):
        super().setUp()
        self.sql(f"GRANT apikeyd_reader TO fleet_user; ALTER ROLE tool_user PASSWORD '{self.password}'")
        self.writer = self.uri("a", "tool_user")
        self.addCleanup(self.network.mend, "b")  # or the next test would find it cut off
        self.hosts = []
        for name in ("a", "b"):
            host = self.host(name, source=self.uri(name, "fleet_user"))
            with self.network.at(name):
                host.start()
            self.hosts.append(host)
        self.keys = [self.issue(self.hosts[0]) for _ in range(4)]
        for _, key in self.keys:
            self.hosts[1].becomes(key, "VALID")

    def uri(self, name, user):
        return f"{self.network.uri(name, self.server, self.database, user)}passfile={self.passwords}"

    def ctl(self, host, *arguments, **options):
        with self.network.at(host.name):
            return super().ctl(host, *arguments, **options)

    def serves(self, *keys):
        """True; so that it is looked at for as long as something else is waited for."""
        for host in self.hosts:
            self.assertEqual(host.codes_of(*keys), ["VALID"] * len(keys), host.name)
        return True

    def test_a_host_that_is_cut_off_serves_on_is_named_and_catches_up(self):
        near, far = self.hosts
        (_, kept_key), (revoked, revoked_key), (first, first_key), (last, last_key) = self.keys
        self.ctl(near, "revoke", first, "--wait", "fleet")
        self.assertEqual([host.codes_of(first_key) for host in self.hosts], [["REVOKED"]] * 2)

        self.network.cut("b")
        done = []
        waited = "revoke", revoked, "--wait", "fleet"
        revoke = threading.Thread(target=lambda: done.append(self.ctl(near, *waited, status=3)))
        revoke.start()
        near.wait_for(lambda: self.serves(kept_key) and near.codes_of(revoked_key) == ["REVOKED"])
        late_key = make_key()
        self.sql(self.insert(late_key))
        near.wait_for(lambda: self.serves(kept_key) and not revoke.is_alive())
        self.assertEqual(len(done), 1)
        self.assertRegex(near.said, r"recorded, not known to be in force on: b( \(silent for \d+ s\))? ")
        near.wait_for(lambda: self.serves(kept_key) and self.fleet(near)["b"]["state"] == "silent")
        near.wait_for(lambda: self.fleet(near)["a"]["behind"] == 0)
        fleet = self.fleet(near)
        self.assertEqual(fleet["a"]["state"], "live")
        self.assertEqual(fleet["b"]["behind"], 2)
        self.assertEqual(near.codes_of(late_key), ["VALID"])
        # It cannot know; and it says that it hears of nothing any more.
        far.wait_for(lambda: self.serves(kept_key) and far.status()["watch_problem"])
        self.assertEqual(far.codes_of(revoked_key), ["VALID"])

        self.network.mend("b")
        far.wait_for(lambda: self.serves(kept_key) and far.codes_of(revoked_key, late_key) == ["REVOKED", "VALID"])
        far.wait_for(lambda: self.serves(kept_key) and not far.status()["watch_problem"])
        near.wait_for(lambda: self.fleet(near)["b"]["behind"] == 0)
        self.assertEqual(self.fleet(near)["b"]["state"], "live")
        self.ctl(near, "revoke", last, "--wait", "fleet")
        self.assertEqual([host.codes_of(last_key) for host in self.hosts], [["REVOKED"]] * 2)
        self.serves(kept_key, late_key)

    def test_a_host_that_is_cut_off_for_a_moment_misses_nothing(self):
        """Its connections outlive that, and so do the notices on them."""
        near, far = self.hosts
        *others, (_, kept_key) = self.keys
        for revoked, revoked_key in others:
            self.network.cut("b")
            self.sql(f"UPDATE apikeyd.keys SET state = 'revoked' WHERE id = '{revoked}'")
            near.becomes(revoked_key, "REVOKED")
            self.network.mend("b")
            far.wait_for(lambda: self.serves(kept_key) and far.codes_of(revoked_key) == ["REVOKED"])


class Poolers(Fleet):
    def test_behind_a_pooler_in_transaction_mode(self):
        """No session is the daemon's own there, and no notification comes."""
        pooler = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
        top = pathlib.Path(tempfile.mkdtemp(prefix="apikeyd-test-pooler-"))
        self.addCleanup(shutil.rmtree, top)
        (top / "pgbouncer.ini").write_text(
            f"[databases]\n{self.database} = host={self.server.sockets} port={self.server.port}\n"
            f"[pgbouncer]\nlisten_addr =\nunix_socket_dir = {top}\nlisten_port = 6432\nauth_type = any\npool_mode = transaction\n"
            f"auth_type = trust\nauth_file = {top}/users\nserver_reset_query =\nlogfile = {top}/log\npidfile = {top}/pid\n"
        )
        (top / "users").write_text('"daemon_user" ""\n"tool_user" ""\n')
        for path in (top, *top.iterdir()):
            if self.server.account:
                os.chown(path, self.server.account["user"], self.server.account["group"])
        process = subprocess.Popen([pooler, top / "pgbouncer.ini"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   **self.server.account)  # fmt: skip
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        top.chmod(0o755)
        through = f"{self.database}?host={str(top).replace('/', '%2F')}&port=6432"
        self.writer = f"postgresql://tool_user@/{through}"
        host = self.host(source=f"postgresql://daemon_user@/{through}")
        host.wait_for(lambda: (top / ".s.PGSQL.6432").exists())
        host.start()
        for _ in range(10):
            issued, key = self.issue(host)
            self.assertEqual(host.codes_of(key), ["VALID"])
            self.sql(f"UPDATE apikeyd.keys SET state = 'disabled' WHERE id = '{issued}'")
            host.becomes(key, "DISABLED")
        host.wait_for(lambda: "pooler" in host.status()["watch_problem"])


if __name__ == "__main__":
    apikeyctl_test.main()
