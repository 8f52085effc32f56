#!/usr/bin/env python3
"""Promise: whoever waits for the fleet knows that every host that lives has a change, and which do not; and what hosts
tell of themselves is true of this server and this copy of the store."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import threading

import apikeyctl_test
from postgres_hosts import Fleet


class Hosts(Fleet):
    def fleet(self, host):
        return {one["host"]: one for one in json.loads(self.ctl(host, "fleet", "--output", "json"))}

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
