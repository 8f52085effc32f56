"""A real apikeyd-door beside a live daemon, and who asks it."""

import http.client
import json
import re
import socket
import subprocess

from live_daemon import PATIENCE_S, LiveDaemon, wait_until

DOOR_SCOPES = [
    "apikeyd.keys.read", "apikeyd.keys.write", "apikeyd.owners.read", "apikeyd.owners.write", "apikeyd.plans.read",
    "apikeyd.usage.read", "apikeyd.self",
]  # fmt: skip


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("door", timeout=PATIENCE_S)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(self.path)


class Door:
    """A door beside whatever daemon there is; `instance`: that one's directory, `options`: the door's."""

    def __init__(self, binary, config, instance, log, *options):
        self.command = [binary, "--config", config, *options]
        self.log = log
        self.socket = instance / "door.sock"
        self.process = None

    def start(self):
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(self.command, stderr=log)
        wait_until(self._ready, "the door does not get ready")

    def _ready(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"the door ended with {self.process.returncode}: {self.log.read_text()}")
        return "event=door.ready" in self.log.read_text()

    def stop(self):
        """SIGTERM; the exit status."""
        self.process.terminate()
        status = self.process.wait(PATIENCE_S)
        self.process = None
        return status

    def close(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def tcp_port(self):
        return int(re.search(r"tcp=127\.0\.0\.1:(\d+)", self.log.read_text())[1])

    def connect(self):
        return UnixConnection(self.socket)

    def ask(self, method, target, *, key=None, body=None, headers=(), connection=None):
        """(status, headers, body); `body`: bytes, or what becomes JSON."""
        headers = dict(headers)
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        own = connection is None
        connection = connection or self.connect()
        try:
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            if own:
                connection.close()

    def send(self, sent, *, end=True):
        """The bytes that come back for these; `end`: nothing more is sent."""
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(PATIENCE_S)
            peer.connect(str(self.socket))
            try:
                peer.sendall(sent)
                if end:
                    peer.shutdown(socket.SHUT_WR)
            except BrokenPipeError:
                pass  # it has answered
            return peer.makefile("rb").read()


class LiveDoor(Door):
    """Daemon, door and tool of one private instance; close() ends all and removes everything."""

    def __init__(self, daemon, tool, door, more=""):
        self.tool_path = tool
        self.daemon = LiveDaemon(daemon, more)
        instance = self.daemon.directory / self.daemon.instance
        super().__init__(door, self.daemon.config, instance, self.daemon.home / "door.log")
        self.daemon.start()

    def close(self):
        super().close()
        self.daemon.close()

    def tool(self, *arguments):
        """What apikeyctl prints; it must succeed."""
        command = [self.tool_path, "--config", self.daemon.config, *arguments]
        run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        if run.returncode != 0:
            raise RuntimeError(f"{arguments}: {run.returncode}: {run.stderr}")
        return run.stdout

    def issue(self, *options, scopes=()):
        """A key by the tool: (id, plaintext)."""
        granted = [word for scope in scopes for word in ("--scope", scope)]
        issued = json.loads(self.tool("issue", "--output", "json", *options, *granted))
        return issued["id"], issued["key"]
