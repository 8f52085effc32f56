"""A real apikeyd with a key set of its own, for tests that look at it from outside."""

import contextlib
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import string
import subprocess
import tempfile
import time
import zlib

PATIENCE_S = 240  # what hangs ends; a busy machine with sanitizers does not
BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


def make_key(environment="live"):
    """A key of the native form; where it ends up is a test's own business, so any random numbers do."""
    body = f"ak_{environment}_{''.join(random.choices(BASE62, k=12))}_{''.join(random.choices(BASE62, k=27))}"
    crc = zlib.crc32(body.encode())
    return body + "".join(BASE62[crc // 62**place % 62] for place in reversed(range(6)))


def key_id(key):
    return key[-46:-34]


def wait_until(condition, what):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.01)


class LiveDaemon:
    """A private instance in memory; close() stops the daemon and removes everything. `rows` maps key to fields."""

    def __init__(self, binary, more=""):
        """`more`: lines for the configuration."""
        self.binary = binary
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="apikeyd-test-", dir="/dev/shm"))
        self.directory = self.home / "run"
        self.instance = "default"
        self.rows = {}
        self.process = None
        self.key_set = self.home / "keys.yaml"
        self.config = self.home / "apikeyd.yaml"
        self.config.write_text(
            f"source: yaml:{self.key_set}\nusage: sqlite:{self.home}/usage.db\n"
            f"directory: {self.directory}\ninstance: {self.instance}\nlog: {{file: {self.home}/log}}\n"
            f"reload: {{max_loss_percent: 100}}\n{more.format(home=self.home)}"
        )

    def write_keys(self):
        lines = ["keys:" if self.rows else "keys: []"]
        for key, fields in self.rows.items():
            digest = hashlib.sha256(key.encode()).hexdigest()
            row = {"id": key_id(key), "sha256": digest, "environment": "live"} | fields
            lines.append(f"  - {json.dumps(row)}")
        fresh = self.key_set.with_suffix(".new")
        fresh.write_text("\n".join(lines) + "\n")
        fresh.rename(self.key_set)

    def start(self):
        self.write_keys()
        self.process = subprocess.Popen([self.binary, "--config", self.config])
        wait_until(self._ready, "the daemon does not get ready")
        if problem := self.request({"verb": "status"}).get("load_error"):
            raise RuntimeError(problem)

    def _ready(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"the daemon ended with {self.process.returncode}: {(self.home / 'log').read_text()}")
        with contextlib.suppress(OSError):
            return self.request({"verb": "status"})["pid"] == self.process.pid
        return False

    def request(self, verb):
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(PATIENCE_S)
            door.connect(str(self.directory / self.instance / "admin.sock"))
            door.sendall(json.dumps(verb).encode() + b"\n")
            return json.loads(door.makefile().readline())

    def apply_keys(self):
        """Writes `rows` and returns when they are in force."""
        self.write_keys()
        reloaded = self.request({"verb": "reload", "force": False})
        if not reloaded["ok"]:
            raise RuntimeError(reloaded["error"])

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(PATIENCE_S)
        self.process = None
        return status

    def close(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.home)


def binary(name):
    """The path of a program under test, which meson names in the environment."""
    return os.environ[name]
