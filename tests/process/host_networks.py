"""What lies between a server and the hosts of a fleet, where a test can cut a host off: what is sent vanishes, and
neither end is told.

Run as a program it is one forwarder: host_networks.py SOCKET SERVER_SOCKET.
"""

import contextlib
import ctypes
import os
import pathlib
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

from live_daemon import PATIENCE_S, wait_until
from postgres_server import quote

CLONE_NEWNET = 0x40000000
SERVER = "server"
SERVER_ADDRESS = "192.0.2.1"
OWN_NAMESPACE = "/proc/thread-self/ns/net"


def make(hosts):
    """Namespaces where the system lets this test make them, else forwarders."""
    try:
        return Namespaces(hosts)
    except (OSError, subprocess.SubprocessError) as error:
        told = getattr(error, "stderr", None) or str(error)
        return Forwarders(hosts, told.strip())


class Namespaces:
    """The server and each host in a network namespace of its own, on one bridge in another. They have no names and no
    way out: they are gone with this object, or with what runs in them. Needs root, and `ip`."""

    form = "in network namespaces of their own"
    settings = {"listen_addresses": SERVER_ADDRESS}

    def __init__(self, hosts):
        self.spaces = {}
        try:
            self.switch = new_space()
            self.run(self.switch, "link", "add", "name", "switch", "up", "type", "bridge")
            for number, name in enumerate((SERVER, *hosts), 1):
                self.spaces[name] = space = new_space()
                self.run(self.switch, "link", "add", "name", name, "type", "veth", "peer", "name", "eth0", "netns",
                         f"/proc/{os.getpid()}/fd/{space}")  # fmt: skip
                self.run(self.switch, "link", "set", "dev", name, "master", "switch", "up")
                self.run(space, "address", "add", f"192.0.2.{number}/24", "dev", "eth0")
                self.run(space, "link", "set", "dev", "eth0", "up")
        except BaseException:
            self.close()
            raise

    def run(self, space, *arguments):
        with entered(space):
            subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=PATIENCE_S)

    def at(self, name):
        """What this thread starts meanwhile is there."""
        return entered(self.spaces[name])

    def hba(self, user):
        return [f"host all {user} 192.0.2.0/24 scram-sha-256"]

    def serve(self, server):
        with self.at(SERVER):
            server.start()

    def uri(self, _, server, database, user):
        return f"postgresql://{user}@{SERVER_ADDRESS}:{server.port}/{database}?"

    def cut(self, name):
        self.run(self.switch, "link", "set", "dev", name, "down")

    def mend(self, name):
        self.run(self.switch, "link", "set", "dev", name, "up")

    def close(self):
        for space in (*self.spaces.values(), getattr(self, "switch", None)):
            if space is not None:
                os.close(space)
        self.spaces.clear()
        self.switch = None


def new_space():
    """A descriptor of a new network namespace, in which nothing is yet."""
    here = os.open(OWN_NAMESPACE, os.O_RDONLY)
    try:
        call("unshare", CLONE_NEWNET)
        try:
            return os.open(OWN_NAMESPACE, os.O_RDONLY)
        finally:
            call("setns", here, CLONE_NEWNET)
    finally:
        os.close(here)


@contextlib.contextmanager
def entered(space):
    here = os.open(OWN_NAMESPACE, os.O_RDONLY)
    try:
        call("setns", space, CLONE_NEWNET)
        try:
            yield
        finally:
            call("setns", here, CLONE_NEWNET)
    finally:
        os.close(here)


def call(name, *arguments):
    """Of the C library; it concerns the calling thread alone."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


class Forwarders:
    """The same on one host: each daemon reaches the server through a process that forwards what is sent, and is
    stopped to cut it off. Connections to it come about even then, as the kernel makes them."""

    settings = {}

    def __init__(self, hosts, why):
        self.form = f"behind forwarders, since network namespaces cannot be made: {why}"
        self.top = pathlib.Path(tempfile.mkdtemp(prefix="apikeyd-test-forwarders-"))
        self.hosts, self.processes = hosts, {}

    def at(self, _):
        return contextlib.nullcontext()

    def hba(self, user):
        return [f"local all {user} scram-sha-256"]

    def serve(self, server):
        server.start()
        for name in self.hosts:
            door = self.top / name / f".s.PGSQL.{server.port}"
            door.parent.mkdir()
            command = [sys.executable, __file__, door, server.sockets / door.name]
            self.processes[name] = subprocess.Popen(command, stdin=subprocess.PIPE)
            wait_until(door.exists, f"the forwarder of {name} does not start")

    def uri(self, name, server, database, user):
        return f"postgresql://{user}@/{database}?host={quote(str(self.top / name))}&port={server.port}&"

    def cut(self, name):
        self.processes[name].send_signal(signal.SIGSTOP)

    def mend(self, name):
        self.processes[name].send_signal(signal.SIGCONT)

    def close(self):
        for process in self.processes.values():
            process.kill()
            process.communicate()
        self.processes.clear()
        shutil.rmtree(self.top, ignore_errors=True)


def forward(path, server_path):
    """Until standard input ends: the test is gone."""
    ends = {}  # by each end of a connection its other one
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(path)
        door.listen(socket.SOMAXCONN)
        while True:
            for ready in select.select([sys.stdin, door, *ends], [], [])[0]:
                if ready is sys.stdin:
                    return
                if ready is door:
                    pair = door.accept()[0], socket.socket(socket.AF_UNIX)
                    ends |= {pair[0]: pair[1], pair[1]: pair[0]}
                    with contextlib.suppress(OSError):
                        pair[1].connect(server_path)
                elif ready in ends and not pass_on(ready, ends[ready]):
                    for end in (ready, ends[ready]):
                        del ends[end]
                        end.close()


def pass_on(end, other):
    try:
        data = end.recv(1 << 16)
        other.sendall(data)
    except OSError:
        return False
    return bool(data)


if __name__ == "__main__":
    forward(*sys.argv[1:])
