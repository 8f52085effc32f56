#!/usr/bin/env python3
"""Promise: with a key store in PostgreSQL the tool and the daemons of a fleet do what they do with a file, what anybody
commits is in force on every host, and a host serves on whatever becomes of the server."""

import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import apikeyctl_test
import postgres_server
from live_daemon import key_id, make_key
from postgres_hosts import Fleet


class ByTheTool(Fleet):
    def test_the_life_of_a_key(self):
        host = self.started()
        self.ctl(host, "scope", "create", "reports.read")
        self.ctl(host, "plan", "create", "free", "--limit", "burst=100/s,burst=200", "--limit", "monthly=1000/month,shadow")
        self.ctl(host, "owner", "create", "acme", "--plan", "free")
        issued, key = self.issue(
            host, "--name", "CI", "--plan", "free", "--scope", "reports.read", "--address", "127.0.0.0/8",
            "--metadata", '{"team": "\\ud83d\\ude00"}', "--expires", "90d", "--limit", "burst=7/s",
        )  # fmt: skip
        shown = json.loads(self.ctl(host, "show", issued, "--output", "json"))
        self.assertEqual((shown["owner"], shown["name"], shown["plan"]), ("acme", "CI", "free"))
        self.assertEqual((shown["scopes"], shown["addresses"]), (["reports.read"], ["127.0.0.0/8"]))
        self.assertEqual(shown["metadata"], {"team": "\U0001f600"})
        self.assertEqual([row["id"] for row in json.loads(self.ctl(host, "list", "--output", "json"))], [issued])
        self.ctl(host, "update", issued, "--name", "renamed", "--clear", "addresses")
        self.assertEqual(json.loads(self.ctl(host, "show", issued, "--output", "json"))["name"], "renamed")
        for verb, code in (("disable", "DISABLED"), ("enable", "VALID"), ("revoke", "REVOKED")):
            self.ctl(host, verb, issued)
            self.assertEqual(host.codes_of(key), [code])
        self.ctl(host, "enable", issued, status=1)
        self.assertIn("for ever", host.said)
        self.ctl(host, "plan", "delete", "free", status=1)
        self.ctl(host, "delete", issued)
        self.assertEqual(host.codes_of(key), ["NOT_FOUND"])

    def test_a_rotation_and_an_import(self):
        host = self.started()
        issued, key = self.issue(host)
        answer = json.loads(self.ctl(host, "rotate", issued, "--grace", "1h", "--output", "json"))
        self.assertEqual(host.codes_of(key, answer["key"]), ["VALID", "VALID"])
        keys = [make_key() for _ in range(1500)]
        rows = "".join(
            json.dumps({"id": key_id(key), "sha256": hashlib.sha256(key.encode()).hexdigest(), "environment": "live"}) + "\n"
            for key in keys
        )
        self.ctl(host, "import", "--form", "jsonl", stdin=rows)
        self.assertEqual(host.codes_of(*keys[:3], *keys[-3:]), ["VALID"] * 6)
        page = json.loads(self.ctl(host, "list", "--limit", "1200", "--output", "json"))
        self.assertEqual(len(page), 1200)
        rest = json.loads(self.ctl(host, "list", "--limit", "1200", "--after", page[-1]["id"], "--output", "json"))
        self.assertEqual(len(page) + len(rest), 1502)

    def test_migration_both_ways(self):
        host = self.started()
        _, key = self.issue(host, "--name", "one")
        self.ctl(host, "migrate", self.writer, f"yaml:{host.top}/copy.yaml")
        self.assertIn("name: one", (host.top / "copy.yaml").read_text())
        self.server.create_store(self.database + "b")
        other = self.server.uri(self.database + "b", "tool_user")
        host.ctl("migrate", f"yaml:{host.top}/copy.yaml", other)
        host.ctl("migrate", other, f"yaml:{host.top}/back.yaml")
        self.assertEqual((host.top / "copy.yaml").read_text(), (host.top / "back.yaml").read_text())
        self.assertEqual(host.codes_of(key), ["VALID"])

    def test_a_backup_is_the_servers(self):
        host = self.started()
        self.ctl(host, "backup", str(host.top / "copy"), status=3)
        self.assertIn("pg_dump", host.said)

    def test_with_the_daemon_down_a_change_is_recorded(self):
        host = self.started()
        issued, key = self.issue(host)
        host.kill()
        self.ctl(host, "revoke", issued, status=3)
        self.assertIn("recorded, not in force", host.said)
        host.start()
        self.assertEqual(host.codes_of(key), ["REVOKED"])


class ByAnybody(Fleet):
    def test_what_is_committed_is_in_force_on_every_host(self):
        hosts = [self.started("a"), self.started("b")]
        keys = [make_key() for _ in range(3)]
        self.sql("".join(map(self.insert, keys)))
        for host in hosts:
            for key in keys:
                host.becomes(key, "VALID")
        self.sql(f"UPDATE apikeyd.keys SET state = 'revoked' WHERE id = '{key_id(keys[0])}'")
        self.sql(f"DELETE FROM apikeyd.keys WHERE id = '{key_id(keys[1])}'")
        for host in hosts:
            host.becomes(keys[0], "REVOKED")
            host.becomes(keys[1], "NOT_FOUND")
            self.assertEqual(host.codes_of(keys[2]), ["VALID"])

    def test_nothing_is_in_force_before_it_is_committed(self):
        host = self.started()
        self.sql(self.insert(make_key()))  # who brings the first key of an environment makes others wait who would
        key = make_key()
        session = self.server.session(self.database)
        session.run("BEGIN")
        session.run(self.insert(key)[:-1])
        other = make_key()
        self.sql(self.insert(other))
        host.becomes(other, "VALID")
        self.assertEqual(host.codes_of(key), ["NOT_FOUND"])
        session.run("ROLLBACK")
        last = make_key()
        self.sql(self.insert(last))
        host.becomes(last, "VALID")
        self.assertEqual(host.codes_of(key), ["NOT_FOUND"])

    def test_commits_out_of_the_order_of_their_numbers(self):
        """The earlier transaction commits last, when the daemon has read past its numbers."""
        host = self.started()
        keys = [make_key() for _ in range(6)]
        self.sql("".join(map(self.insert, keys[:2])))
        host.becomes(keys[1], "VALID")
        early, later = self.server.session(self.database), self.server.session(self.database)
        early.run("BEGIN")
        early.run(f"UPDATE apikeyd.keys SET state = 'revoked' WHERE id = '{key_id(keys[0])}'")
        later.run("BEGIN")
        later.run(self.insert(keys[2])[:-1])
        later.run("COMMIT")
        host.becomes(keys[2], "VALID")
        for key in keys[3:]:
            self.sql(self.insert(key))
            host.becomes(key, "VALID")
        self.assertEqual(host.codes_of(keys[0]), ["VALID"])
        early.run("COMMIT")
        host.becomes(keys[0], "REVOKED")

    def test_ten_thousand_changes_in_one_transaction(self):
        host = self.started()
        first = make_key()
        self.sql(self.insert(first))
        host.becomes(first, "VALID")
        self.sql("""INSERT INTO apikeyd.keys(id, sha256, environment)
            SELECT lpad(i::text, 12, '0'), sha256(i::text::bytea), 'live' FROM generate_series(1, 10000) i""")
        host.wait_for(lambda: host.status()["keys"] == 10001)
        self.sql("UPDATE apikeyd.keys SET state = 'disabled' WHERE id < '000000005000'")
        self.sql(f"UPDATE apikeyd.keys SET state = 'revoked' WHERE id = '{key_id(first)}'")
        host.becomes(first, "REVOKED")
        shown = {row["id"]: row["state"] for row in json.loads(self.ctl(host, "list", "--output", "json"))}
        self.assertEqual(sum(state == "disabled" for state in shown.values()), 4999)

    def test_a_truncated_table_is_read_anew(self):
        host = self.started()
        keys = [make_key() for _ in range(3)]
        self.sql("".join(map(self.insert, keys)))
        host.becomes(keys[2], "VALID")
        self.sql(f"BEGIN; TRUNCATE apikeyd.keys; {self.insert(keys[0])} COMMIT;")
        host.becomes(keys[2], "NOT_FOUND")
        self.assertEqual(host.codes_of(*keys[:2]), ["VALID", "NOT_FOUND"])

    def test_policies_and_a_table_altered_by_hand(self):
        host = self.started()
        key = make_key()
        self.sql("INSERT INTO apikeyd.plans(name, limits) VALUES('free', '[\"burst=2/h,burst=2\"]');" + self.insert(key, plan="free"))
        host.becomes(key, "VALID")
        self.assertEqual(host.codes_of(key), ["VALID"])
        host.becomes(key, "RATE_LIMITED")
        bad = make_key()
        self.sql("ALTER TABLE apikeyd.keys DROP CONSTRAINT keys_environment_check;" + self.insert(bad, environment="UPPER"))
        host.wait_for(lambda: host.events("source.warning"))
        self.assertIn(f"id {key_id(bad)}: environment", host.log.read_text())
        self.assertEqual(host.codes_of(bad), ["NOT_FOUND"])
        self.sql("ALTER TABLE apikeyd.keys RENAME COLUMN owner TO holder;" + f"DELETE FROM apikeyd.keys WHERE id = '{key_id(bad)}'")
        host.wait_for(lambda: host.status()["load_error"])
        self.assertEqual(host.codes_of(key), ["RATE_LIMITED"])


class Away(Fleet):
    """What becomes of the server; a server for each test."""

    FSYNC = True

    @classmethod
    def setUpClass(cls):
        """Each test has its own."""

    def setUp(self):
        self.server = postgres_server.Server(fsync=True)
        self.addCleanup(self.server.close)
        self.server.start()
        super().setUp()

    def test_killed_and_started_again(self):
        host = self.started()
        keys = [make_key() for _ in range(4)]
        self.sql("".join(map(self.insert, keys[:2])))
        host.becomes(keys[1], "VALID")
        self.server.kill()
        host.wait_for(lambda: host.status()["watch_problem"])
        self.assertEqual(host.codes_of(*keys[:2]), ["VALID"] * 2)
        self.server.start()
        self.sql(f"UPDATE apikeyd.keys SET state = 'revoked' WHERE id = '{key_id(keys[0])}';" + self.insert(keys[2]))
        host.becomes(keys[0], "REVOKED")
        host.becomes(keys[2], "VALID")
        host.wait_for(lambda: not host.status()["watch_problem"])

    def test_a_notice_that_is_lost_with_its_connection(self):
        """Between the commit and its delivery: the frozen processes of the daemon's connections are killed."""
        host = self.started(reload="{poll_ms: 3600000}")
        keys = [make_key() for _ in range(2)]
        self.sql(self.insert(keys[0]))
        host.becomes(keys[0], "VALID")
        pids = [int(pid) for (pid,) in self.sql("SELECT pid FROM pg_stat_activity WHERE usename = 'daemon_user'")]
        self.assertEqual(len(pids), 2)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        self.sql(self.insert(keys[1]))
        for pid in pids:
            self.sql(f"SELECT pg_terminate_backend({pid})")
            os.kill(pid, signal.SIGCONT)
        host.becomes(keys[1], "VALID")

    def test_an_older_copy_put_back(self):
        """The position goes backwards, also where as many changes came to the copy as it lacks."""
        host = self.started(reload="{poll_ms: 100, max_loss_percent: 100}")
        keys = [make_key() for _ in range(4)]
        self.sql("".join(map(self.insert, keys[:2])))
        host.becomes(keys[1], "VALID")
        dump = subprocess.run(self.server.client("pg_dump", self.database, "postgres", "-Fc"), check=True, capture_output=True)
        self.sql(self.insert(keys[2]))
        host.becomes(keys[2], "VALID")
        restore = self.server.client("pg_restore", self.database, "postgres", "--clean", "--if-exists", "--single-transaction")
        # It locks table by table, and the server ends it where that meets a daemon that reads them all.
        for _ in range(5):
            restored = subprocess.run(restore, input=dump.stdout, check=False, capture_output=True)
            if restored.returncode == 0 or b"deadlock" not in restored.stderr:
                break
        self.assertEqual(restored.returncode, 0, restored.stderr.decode())
        host.becomes(keys[2], "NOT_FOUND")
        self.sql(self.insert(keys[3]))
        host.becomes(keys[3], "VALID")
        self.assertEqual(host.codes_of(*keys[:3]), ["VALID", "VALID", "NOT_FOUND"])

    def test_one_revocation_taken_back_holds_up_nobody_after_a_restart(self):
        """All is read anew then."""
        host = self.started()
        issued, key = self.issue(host)
        later = make_key()
        self.sql(f"UPDATE apikeyd.keys SET state = 'revoked' WHERE id = '{issued}'")
        host.becomes(key, "REVOKED")
        # In one transaction: a key that was gone in between is another one.
        self.sql(f"BEGIN; DELETE FROM apikeyd.keys WHERE id = '{issued}'; {self.insert(key)} COMMIT")
        host.wait_for(lambda: "was revoked and is not any more" in host.log.read_text())
        self.server.kill()
        self.server.start()
        self.sql(self.insert(later))
        host.becomes(later, "VALID")
        self.assertEqual(host.codes_of(key), ["REVOKED"])

    def test_a_frozen_server_holds_up_nobody(self):
        host = self.started()
        _, key = self.issue(host)
        self.server.freeze()
        self.assertEqual(host.codes_of(key), ["VALID"])
        self.assertEqual(host.status()["keys"], 1)
        host.daemon.send_signal(signal.SIGTERM)
        self.assertEqual(host.daemon.wait(apikeyctl_test.WAIT_S), 0)
        host.daemon = None
        self.server.thaw()
        host.start()
        self.assertEqual(host.codes_of(key), ["VALID"])

    def test_a_cold_boot_without_the_server(self):
        host = self.started(more="snapshot: {file: {top}/snapshot}\n")
        keys = [make_key() for _ in range(3)]
        self.sql("".join(map(self.insert, keys[:2])))
        host.becomes(keys[1], "VALID")
        self.sql(f"UPDATE apikeyd.keys SET state = 'revoked' WHERE id = '{key_id(keys[0])}'")
        host.becomes(keys[0], "REVOKED")
        self.server.kill()
        host.kill()
        shutil.rmtree(host.instance)
        host.start()
        self.assertEqual(host.codes_of(*keys[:2]), ["REVOKED", "VALID"])
        self.assertTrue(host.status()["snapshot"]["in_use"])
        self.server.start()
        self.sql(self.insert(keys[2]))
        host.becomes(keys[2], "VALID")
        self.assertFalse(host.status()["snapshot"]["in_use"])

    def test_the_daemon_killed_in_the_middle_of_many_changes(self):
        hosts = [self.started("a"), self.started("b")]
        self.sql("""INSERT INTO apikeyd.keys(id, sha256, environment)
            SELECT lpad(i::text, 12, '0'), sha256(i::text::bytea), 'live' FROM generate_series(1, 10000) i""")
        hosts[1].wait_for(lambda: hosts[1].status()["keys"] == 10000)
        self.sql("UPDATE apikeyd.keys SET state = 'revoked' WHERE id < '000000005000'")
        hosts[0].kill()
        hosts[0].start()
        stored = {name: state for name, state in self.sql("SELECT id, state FROM apikeyd.keys")}
        for host in hosts:
            host.wait_for(lambda host=host: host.table() == stored)


class Doors(Fleet):
    """Who may not come in is told why, and what to do, and serves what it had."""

    @classmethod
    def setUpClass(cls):
        top = pathlib.Path(tempfile.mkdtemp(prefix="apikeyd-test-certificates-"))
        cls.addClassCleanup(shutil.rmtree, top)
        cls.certificates = top
        top.chmod(0o755)
        for name in ("server", "other"):
            made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", f"{name}.key", "-out", f"{name}.crt"]  # fmt: skip
            subprocess.run(made, cwd=top, check=True, capture_output=True)
        settings = {"ssl": "on", "ssl_cert_file": top / "server.crt", "ssl_key_file": top / "server.key"}
        hba = ["hostssl all secret_user 127.0.0.1/32 scram-sha-256"]
        cls.server = postgres_server.Server(settings, hba, tcp=True)
        cls.addClassCleanup(cls.server.close)
        if cls.server.account:
            os.chown(top / "server.key", cls.server.account["user"], cls.server.account["group"])
        (top / "server.key").chmod(0o600)
        cls.server.start()
        cls.server.psql("CREATE ROLE secret_user LOGIN PASSWORD 'right-one'; CREATE ROLE nobody_special LOGIN")

    def refused(self, source):
        """A daemon with this source, and why it has no keys."""
        host = self.started(source=source)
        return host, host.status()["load_error"]

    def test_a_wrong_password(self):
        self.sql("GRANT apikeyd_reader TO secret_user")
        key = make_key()
        self.sql(self.insert(key))
        passwords = pathlib.Path(tempfile.mkstemp(prefix="apikeyd-test-pass-", dir="/dev/shm")[1])
        self.addCleanup(passwords.unlink)
        passwords.write_text("*:*:*:*:wrong-one\n")
        uri = f"{self.server.tcp_uri(self.database, 'secret_user')}?sslmode=require&passfile={passwords}"
        host, error = self.refused(uri)
        self.assertRegex(error, "the server refused the user; check .* password file .*password authentication failed")
        passwords.write_text("*:*:*:*:right-one\n")
        host.becomes(key, "VALID")
        for word in ("wrong-one", "right-one"):
            self.assertNotIn(word, host.log.read_text())

    def test_a_certificate_of_somebody_else(self):
        key = make_key()
        self.sql(self.insert(key))
        uri = f"{self.server.tcp_uri(self.database, 'daemon_user')}?sslmode=verify-full&sslrootcert={self.certificates}"
        _, error = self.refused(f"{uri}/other.crt")
        self.assertIn("certificate verify failed", error)
        host, error = self.refused(f"{uri}/server.crt")
        self.assertIsNone(error)
        self.assertEqual(host.codes_of(key), ["VALID"])

    def test_missing_rights(self):
        _, error = self.refused(self.server.uri(self.database, "nobody_special"))
        self.assertRegex(error, "(?i)grant.*apikeyd_reader.*42501")
        host = self.started()
        host.ctl("issue", "--owner", "acme", "--store", self.server.uri(self.database, "daemon_user"), status=3)
        self.assertRegex(host.said, "(?i)grant.*apikeyd_writer.*42501")

    def test_a_database_without_tables_and_none(self):
        _, error = self.refused(self.server.uri("postgres", "daemon_user"))
        self.assertIn("postgres_schema.sql", error)
        _, error = self.refused(self.server.uri("nowhere", "daemon_user"))
        self.assertIn('database "nowhere" does not exist', error)

    def test_a_schema_of_a_later_release(self):
        self.sql("UPDATE apikeyd.store SET version = 2")
        _, error = self.refused(None)
        self.assertIn("has version 2, this apikeyd knows 1", error)

    def test_a_password_in_the_configuration_is_refused_and_not_repeated(self):
        host = self.host(source=self.server.tcp_uri(self.database, "secret_user", "hunter22"))
        checked = subprocess.run([apikeyctl_test.OPTIONS.daemon, "--check", "--config", host.config], text=True,
                                 capture_output=True, timeout=apikeyctl_test.WAIT_S, check=False)  # fmt: skip
        self.assertEqual(checked.returncode, 1)
        self.assertRegex(checked.stderr, r"apikeyd.yaml:1:9: source: .*a password stands in it")
        self.assertNotIn("hunter22", checked.stdout + checked.stderr)
        host.ctl("list", "--store", self.server.tcp_uri(self.database, "secret_user", "hunter22"), config=False, status=2)
        self.assertNotIn("hunter22", host.said)

    def test_a_value_of_a_megabyte(self):
        host = self.started()
        with self.assertRaises(postgres_server.SqlError):
            self.sql(self.insert(make_key(), metadata=json.dumps({"x": "y" * 2**20})))
        key = make_key()
        self.sql("ALTER TABLE apikeyd.keys DROP CONSTRAINT keys_metadata_check")
        self.sql(self.insert(key, metadata=json.dumps({"x": "y" * 2**20})))
        host.wait_for(lambda: host.events("source.warning"))
        self.assertIn(f"id {key_id(key)}: metadata", host.log.read_text())
        self.assertLess(len(host.log.read_text()), 2**16)
        self.assertEqual(host.codes_of(key), ["NOT_FOUND"])


if __name__ == "__main__":
    apikeyctl_test.main()
