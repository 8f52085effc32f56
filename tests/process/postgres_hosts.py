"""Daemons as the hosts of a fleet that has one key store in PostgreSQL."""

import hashlib
import json
import pathlib
import subprocess
import unittest

import apikeyctl_test
import postgres_server
import segment_reader
from apikeyctl_test import Ctl
from live_daemon import key_id


class Host(Ctl):
    """A daemon's own files; more than one of them makes a fleet."""

    def __init__(self, test, name, source, reload="{poll_ms: 100}", ahead_s=0, more=""):
        """`ahead_s`: how far the host's clock is ahead. `more`: lines of the configuration, with {top} for its place."""
        super().__init__()
        self.name, self.source, self.reload, self.more = name, source, reload, more
        if ahead_s:
            [library] = pathlib.Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
            self.DAEMON_BY = ("env", f"LD_PRELOAD={library}", f"FAKETIME=+{ahead_s}s")
        self.setUp()
        test.addCleanup(self.doCleanups)

    def configure(self, _):
        self.config.write_text(
            f"source: {self.source}\nhost: {self.name}\nusage: sqlite:{self.top}/usage.db\ndirectory: {self.top}/run\n"
            f"reload: {self.reload}\naudit_log: {{file: {self.top}/audit}}\n"
            + self.more.replace("{top}", str(self.top))
        )

    def kill(self):
        """libfaketime leaves its memory behind where it is killed."""
        pid = self.daemon.pid if self.daemon else None
        super().kill()
        for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
            pathlib.Path("/dev/shm", name).unlink(missing_ok=True)

    def runTest(self):
        """A test case has to have one."""

    def codes_of(self, *keys):
        """Whatever they are, and also where there is no table yet."""
        command = [apikeyctl_test.OPTIONS.tool, "--config", self.config, "verify", "--output", "json"]
        done = subprocess.run(command, input="".join(key + "\n" for key in keys), capture_output=True, text=True,
                              timeout=apikeyctl_test.WAIT_S, check=False)  # fmt: skip
        self.assertIn(done.returncode, (0, 1, 3), done.stderr)
        return [answer["code"] for answer in json.loads(done.stdout)]

    def becomes(self, key, code):
        self.wait_for(lambda: self.codes_of(key) == [code])

    def status(self):
        return self.json("status")

    def table(self):
        """What a reader that shares no code with the daemon finds in memory: the state of each key."""
        names = {segment_reader.ACTIVE: "active", segment_reader.DISABLED: "disabled", segment_reader.REVOKED: "revoked"}
        return {row.id: names[row.state] for row in segment_reader.Instance(self.instance).table.rows()}


class Fleet(unittest.TestCase):
    """A server for all tests of a class, a database for each."""

    SETTINGS = {}
    databases = 0

    @classmethod
    def setUpClass(cls):
        cls.server = postgres_server.Server(cls.SETTINGS, fsync=getattr(cls, "FSYNC", False))
        cls.addClassCleanup(cls.server.close)
        cls.server.start()

    def setUp(self):
        Fleet.databases += 1
        self.database = f"keys{Fleet.databases}"
        self.server.create_store(self.database)
        self.writer = self.server.uri(self.database, "tool_user")

    def host(self, name="a", source=None, **options):
        return Host(self, name, source or self.server.uri(self.database, "daemon_user"), **options)

    def started(self, name="a", **options):
        host = self.host(name, **options)
        host.start()
        return host

    def ctl(self, host, *arguments, **options):
        """The tool on that host, by a login that may change keys."""
        return host.ctl(*arguments, "--store", self.writer, **options)

    def issue(self, host, *arguments):
        answer = json.loads(self.ctl(host, "issue", "--owner", "acme", *arguments, "--output", "json"))
        return answer["id"], answer["key"]

    def fleet(self, host):
        """What `apikeyctl fleet` tells of each."""
        return {one["host"]: one for one in json.loads(self.ctl(host, "fleet", "--output", "json"))}

    def sql(self, statements):
        return self.server.psql(statements, self.database)

    def insert(self, key, **fields):
        columns = {"id": key_id(key), "sha256": "\\x" + hashlib.sha256(key.encode()).hexdigest(), "environment": "live"}
        columns |= fields
        names = ", ".join(f'"{name}"' for name in columns)
        values = ", ".join("NULL" if value is None else "'" + str(value).replace("'", "''") + "'" for value in columns.values())
        return f"INSERT INTO apikeyd.keys({names}) VALUES({values});"
