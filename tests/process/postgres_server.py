"""A PostgreSQL server of a test's own: in a temporary directory, on a Unix socket in it, gone with the test."""

import atexit
import contextlib
import os
import pathlib
import pwd
import re
import secrets
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.parse

from live_daemon import PATIENCE_S, wait_until

SCHEMA = pathlib.Path(__file__).resolve().parents[2] / "daemon" / "source" / "postgres_schema.sql"
SUPERUSER = "postgres"
DEFAULT_PORT = 5432
SOCKET_PATH_BYTES_MAX = 107
TOLD_BYTES_MAX = 1 << 20  # by psql of one statement
# Values can hold anything but NUL; psql's own NULL is no text either.
FIELD, NULL = "\x1f", "\x02"
PSQL_OPTIONS = ["-XAtq0", "-F", FIELD, "-P", f"null={NULL}", "-v", "VERBOSITY=verbose"]


class SqlError(RuntimeError):
    """What the server refused. `state`: the five characters of its SQLSTATE."""

    def __init__(self, state, message):
        super().__init__(f"{state}: {message}")
        self.state = state


def binaries():
    """The directory of the newest server's programs."""
    found = pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb")
    versions = sorted((int(path.parts[-3]), path.parent) for path in found if path.parts[-3].isdigit())
    if versions:
        return versions[-1][1]
    if there := shutil.which("initdb"):
        return pathlib.Path(there).resolve().parent
    raise RuntimeError("no PostgreSQL server: no /usr/lib/postgresql/*/bin/initdb (install postgresql)")


def account():
    """Arguments for subprocess: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam("postgres")
    except KeyError:
        wanted = "PostgreSQL does not run as root, and there is no user postgres (install postgresql)"
        raise RuntimeError(wanted) from None
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def environment():
    """Nobody's own settings of PostgreSQL; messages in English."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C.UTF-8"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def rows_of(output):
    """What psql printed with PSQL_OPTIONS, as tuples of strings and None."""
    records = output.split("\0")[:-1]
    return [tuple(None if value == NULL else value for value in record.split(FIELD)) for record in records]


def error_in(told):
    """The first that psql tells of on its standard error; None: there is none."""
    found = re.search(r"^(?:psql:.*? )?(?:ERROR|FATAL|PANIC):  (?:([0-9A-Z]{5}): )?(.*)", told, re.MULTILINE)
    return SqlError(found[1] or "08006", found[2]) if found else None


class Session:
    """One connection that stays open, for transactions that do. Made by Server.session()."""

    def __init__(self, command):
        self.mark = secrets.token_hex(16)
        self.notified = 0  # notifications that were received
        self.told = tempfile.TemporaryFile()
        self.told_bytes = 0
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.told,
                                        env=environment(), text=True)  # fmt: skip
        self.pid = int(self.run("SELECT pg_backend_pid()")[0][0])

    def send(self, sql):
        """Begins one statement, or COPY and its data, which may take as long as it likes."""
        # A semicolon for nothing has psql do the last statement again.
        end = "" if sql.rstrip().endswith((";", "\\.")) else "\n;"
        self.process.stdin.write(f"{sql}{end}\n\\echo {self.mark}\n")
        self.process.stdin.flush()

    def receive(self):
        """The rows of what was sent, once it is done."""
        output = ""
        while not output.endswith(f"{self.mark}\n"):
            line = self.process.stdout.readline()
            if not line:
                raise SqlError("08006", "the connection is gone")
            output += line
        output, notified = re.subn(r'Asynchronous notification "apikeyd_changes" .*\n', "", output)
        self.notified += notified
        # Not by read(): the file's position is where psql goes on.
        told = os.pread(self.told.fileno(), TOLD_BYTES_MAX, self.told_bytes)
        self.told_bytes += len(told)
        if error := error_in(told.decode()):
            raise error
        return rows_of(output)

    def is_done(self):
        """Whether receive() would not wait."""
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def run(self, sql):
        self.send(sql)
        return self.receive()

    def close(self):
        self.process.kill()
        self.process.communicate()
        self.told.close()


class Server:
    """with Server() as server: ...; or close() it. What it started ends with it, also when the program ends."""

    def __init__(self, settings=None, hba=(), tcp=False, fsync=False):
        """`settings`: of postgresql.conf, beside or instead of those here. `hba`: lines of pg_hba.conf that come first;
        else everybody is trusted. `tcp`: also on a port of 127.0.0.1. `fsync`: for those who pull its plug; slow."""
        self.bin = binaries()
        self.account = account()
        self.process = None
        self.sessions = []
        self.port = free_port() if tcp else DEFAULT_PORT
        self.top = pathlib.Path(tempfile.mkdtemp(prefix="apikeyd-test-postgres-"))
        atexit.register(self.close)
        try:
            self._make(dict(settings or {}), hba, tcp, fsync)
        except BaseException:
            self.close()
            raise

    def _make(self, settings, hba, tcp, fsync):
        self.data, self.sockets, self.log = self.top / "data", self.top / "socket", self.top / "log"
        if len(os.fsencode(self.sockets / f".s.PGSQL.{self.port}")) > SOCKET_PATH_BYTES_MAX:
            raise RuntimeError(f"{self.sockets}: too long for a Unix socket (set TMPDIR to a shorter one)")
        self.top.chmod(0o755)
        for directory in (self.data, self.sockets):
            directory.mkdir()
            if self.account:
                os.chown(directory, self.account["user"], self.account["group"])
        self.data.chmod(0o700)
        made = subprocess.run(
            [self.bin / "initdb", "-D", self.data, "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C",
             "--no-sync"],
            cwd=self.top, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=PATIENCE_S, check=False, **self.account,
        )  # fmt: skip
        if made.returncode != 0:
            raise RuntimeError(f"initdb failed: {made.stdout}")
        ours = {
            "unix_socket_directories": self.sockets,
            "listen_addresses": "127.0.0.1" if tcp else "",
            "port": self.port,
            "fsync": "on" if fsync else "off",
            "full_page_writes": "on" if fsync else "off",
            "shared_buffers": "32MB",
            "max_connections": 60,
        }
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in (ours | settings).items())
        everybody = ["local all all trust", "host all all 127.0.0.1/32 trust"]
        (self.data / "pg_hba.conf").write_text("".join(f"{line}\n" for line in [*hba, *everybody]))

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def start(self):
        """Returns when it takes connections; recovers first if it was killed."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.bin / "postgres", "-D", self.data], cwd=self.top, env=environment(), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, **self.account,
            )  # fmt: skip
        wait_until(self._ready, "the PostgreSQL server does not get ready")

    def _ready(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"the PostgreSQL server ended with {self.process.returncode}: {self.log.read_text()}")
        command = [self.bin / "pg_isready", "-q", "-h", self.sockets, "-p", str(self.port)]
        asked = subprocess.run(command, env=environment(), timeout=PATIENCE_S, check=False)
        return asked.returncode == 0

    def stop(self, how=signal.SIGINT):
        """By default connections are cut and all is written; SIGTERM waits until they end, SIGQUIT writes nothing."""
        if self.process:
            self.thaw()
            self.process.send_signal(how)
            self.process.wait(PATIENCE_S)
            self.process = None

    def kill(self):
        """As a crash of all its processes; returns when they are gone."""
        if self.process:
            pids = self._stop_all()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait(PATIENCE_S)
            wait_until(lambda: not any(map(is_running, pids)), "the PostgreSQL server's processes do not end")
            self.process = None

    def freeze(self):
        """From now on it takes connections and answers nobody."""
        self._stop_all()

    def thaw(self):
        for pid in [*children_of(self.process.pid), self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _stop_all(self):
        """The pids of all its processes, of which none runs on. The first one first: it makes no more then."""
        pids = [self.process.pid]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
            if pid == self.process.pid:
                wait_until(lambda: state_of(pid)[0] in "TZX", "the PostgreSQL server does not stop")
                pids += children_of(pid)
        return pids

    def close(self):
        """Ends and removes everything; can be called again."""
        # Not at once by kill(): nobody may be there to reap what it leaves.
        for session in self.sessions:
            session.close()
        self.sessions.clear()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.stop(signal.SIGQUIT)
        self.kill()
        shutil.rmtree(self.top, ignore_errors=True)
        atexit.unregister(self.close)

    def client(self, program, db, user, *more):
        """The command that runs a client program of PostgreSQL."""
        return [self.bin / program, "-h", self.sockets, "-p", str(self.port), "-U", user, "-d", db, *more]

    def psql(self, sql, db="postgres", user=SUPERUSER):
        """The rows of all its statements, each in a transaction of its own unless they say otherwise; SqlError for the
        first that is refused, after which none runs."""
        command = self.client("psql", db, user, *PSQL_OPTIONS, "-v", "ON_ERROR_STOP=1", "-f", "-")
        done = subprocess.run(command, input=sql, capture_output=True, env=environment(), text=True, timeout=PATIENCE_S,
                              check=False)  # fmt: skip
        if done.returncode == 0:
            return rows_of(done.stdout)
        raise error_in(done.stderr) or RuntimeError(done.stderr)

    def session(self, db="postgres", user=SUPERUSER):
        opened = Session(self.client("psql", db, user, *PSQL_OPTIONS))
        self.sessions.append(opened)
        return opened

    def wait_until_blocked(self, session):
        """Until what it sent waits for a lock that another transaction has."""
        asked = f"SELECT wait_event_type FROM pg_stat_activity WHERE pid = {session.pid}"
        wait_until(lambda: session.is_done() or self.psql(asked) == [("Lock",)], "the session does not wait for a lock")
        if session.is_done():
            raise RuntimeError("the session waited for no lock")

    def uri(self, db, user):
        """For libpq, over the Unix socket."""
        port = "" if self.port == DEFAULT_PORT else f"&port={self.port}"
        return f"postgresql://{quote(user)}@/{quote(db)}?host={quote(str(self.sockets))}{port}"

    def tcp_uri(self, db, user, password=None):
        credentials = quote(user) if password is None else f"{quote(user)}:{quote(password)}"
        return f"postgresql://{credentials}@127.0.0.1:{self.port}/{quote(db)}"

    def create_store(self, db, schema=SCHEMA, options=""):
        """A database with an empty key store, which daemon_user may read and tool_user change. `options`: of CREATE
        DATABASE. The role that makes it may do no more than it has to."""
        self.psql("""DO $$ BEGIN
            IF to_regrole('store_owner') IS NULL THEN
              CREATE ROLE store_owner LOGIN CREATEROLE; CREATE ROLE daemon_user LOGIN; CREATE ROLE tool_user LOGIN;
            END IF; END $$""")  # fmt: skip
        self.psql(f"CREATE DATABASE {db} OWNER store_owner {options}")
        self.psql(f"SET client_min_messages = warning;\n\\i {schema}\n", db, "store_owner")
        self.psql("GRANT apikeyd_reader TO daemon_user; GRANT apikeyd_writer TO tool_user", db)


def quote(text):
    return urllib.parse.quote(text, safe="")


def state_of(pid):
    """Its state's letter and its parent; of none, what a zombie has."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "X", 0
    return fields[0], int(fields[1])


def is_running(pid):
    return state_of(pid)[0] not in "ZX"


def children_of(pid):
    return [int(path.name) for path in pathlib.Path("/proc").glob("[0-9]*") if state_of(path.name)[1] == pid]
