#!/usr/bin/env python3
"""Promise: the example server tells the holder of a valid key who they are, and everyone else nothing but no."""

import datetime
import http.client
import json
import os
import signal
import socket
import subprocess
import unittest

from live_daemon import LiveDaemon, PATIENCE_S, binary, key_id, make_key, wait_until


def response_bytes(port, headers, method="GET"):
    """The whole answer as it came over the wire, without its Date."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as peer:
        peer.sendall(f"{method} /any/path HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{lines}\r\n".encode())
        answer = peer.makefile("rb").read()
    return b"\r\n".join(line for line in answer.split(b"\r\n") if not line.lower().startswith(b"date:"))


class Server:
    def __init__(self, directory, instance="default"):
        self.process = subprocess.Popen(
            [binary("EXAMPLE_SERVER"), "--directory", directory, "--instance", instance, "--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self.process.stdout.readline().removeprefix("listening on 127.0.0.1:"))

    def get(self, *headers, method="GET", body=None):
        """Returns (status, headers, body) of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.putrequest(method, "/reports?year=2026")
            for name, value in headers:
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def bearer(key):
    return ("Authorization", f"Bearer {key}")


class HttpServer(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = LiveDaemon(binary("APIKEYD"))
        cls.addClassCleanup(cls.daemon.close)
        cls.valid, cls.quoted, cls.revoked, cls.disabled, cls.expired = (make_key() for _ in range(5))
        past = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)
        cls.daemon.rows = {
            cls.valid: {"owner": "acme", "name": "CI", "metadata": {"team": "platform"}},
            cls.quoted: {"owner": 'say "x" \\', "name": "Zoë €"},
            cls.revoked: {"state": "revoked"},
            cls.disabled: {"state": "disabled"},
            cls.expired: {"expires": past.strftime("%Y-%m-%dT%H:%M:%SZ")},
        }
        cls.daemon.start()
        cls.server = Server(cls.daemon.directory)
        cls.addClassCleanup(cls.server.end)
        cls.unknown = make_key()
        wrong_letter = "a" if cls.valid[-1] != "a" else "b"
        cls.refused = {
            "malformed": cls.valid[:-1] + wrong_letter,
            "not found": cls.unknown,
            "revoked": cls.revoked,
            "disabled": cls.disabled,
            "expired": cls.expired,
            "empty": "",
            "another form": "hello",
        }

    def assert_problem(self, answer, status, challenge):
        got_status, headers, body = answer
        self.assertEqual(got_status, status, body)
        self.assertEqual(headers["Content-Type"], "application/problem+json")
        self.assertEqual(headers["Cache-Control"], "no-store")
        self.assertEqual(headers.get_all("WWW-Authenticate"), None if challenge is None else [challenge])
        problem = json.loads(body)
        self.assertEqual(problem["status"], status)
        self.assertEqual(set(problem), {"type", "title", "status", "detail"})

    def test_a_valid_key_is_told_who_it_is(self):
        expected = {"key_id": key_id(self.valid), "owner": "acme", "environment": "live", "name": "CI"}
        ways = [bearer(self.valid), ("authorization", f"bEARER   {self.valid}"), ("X-API-Key", self.valid)]
        for header in ways:
            with self.subTest(header[0]):
                status, headers, body = self.server.get(header)
                self.assertEqual((status, headers["Content-Type"]), (200, "application/json"))
                self.assertEqual(headers["Cache-Control"], "no-store")
                self.assertEqual(json.loads(body), expected)
                self.assertNotIn(self.valid.encode(), body)

    def test_text_is_escaped(self):
        status, _, body = self.server.get(bearer(self.quoted))
        self.assertEqual(status, 200)
        self.assertEqual((json.loads(body)["owner"], json.loads(body)["name"]), ('say "x" \\', "Zoë €"))

    def test_no_key_is_challenged_without_an_error(self):
        for headers in [], [("Authorization", "Basic dTpw")]:
            with self.subTest(headers):
                self.assert_problem(self.server.get(*headers), 401, 'Bearer realm="example"')

    def test_a_refused_key_gets_the_invalid_token_challenge(self):
        for reason, key in self.refused.items():
            with self.subTest(reason):
                challenge = 'Bearer realm="example", error="invalid_token"'
                self.assert_problem(self.server.get(("X-API-Key", key)), 401, challenge)

    def test_reasons_are_indistinguishable(self):
        for name in "X-API-Key", "Authorization":
            scheme = "Bearer " if name == "Authorization" else ""
            answers = {
                reason: response_bytes(self.server.port, [(name, scheme + key)])
                for reason, key in self.refused.items()
                if reason != "empty" or not scheme  # `Bearer` alone is no credential
            }
            for reason, answer in answers.items():
                with self.subTest(header=name, reason=reason):
                    self.assertTrue(answer.startswith(b"HTTP/1.1 401 "))
                    self.assertEqual(answer, answers["not found"])

    def test_two_different_keys_are_a_bad_request(self):
        pairs = [
            [bearer(self.valid), ("X-API-Key", self.unknown)],
            [bearer(self.valid), bearer(self.unknown)],
            [("X-API-Key", self.valid), ("X-API-Key", self.unknown)],
        ]
        for headers in pairs:
            with self.subTest([name for name, _ in headers]):
                challenge = 'Bearer realm="example", error="invalid_request"'
                self.assert_problem(self.server.get(*headers), 400, challenge)

    def test_the_same_key_twice_is_one_key(self):
        self.assertEqual(self.server.get(bearer(self.valid), ("X-API-Key", self.valid))[0], 200)

    def test_a_key_in_the_url_is_not_looked_at(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=PATIENCE_S)
        self.addCleanup(connection.close)
        connection.request("GET", f"/?api_key={self.valid}")
        self.assertEqual(connection.getresponse().status, 401)

    def test_methods_bodies_and_connections_kept(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=PATIENCE_S)
        self.addCleanup(connection.close)
        for method, body in ("POST", b"x" * 1000), ("HEAD", None), ("GET", None):
            connection.request(method, "/", body, {"X-API-Key": self.valid})
            answer = connection.getresponse()
            self.assertEqual(answer.status, 200)
            self.assertEqual(len(answer.read()), 0 if method == "HEAD" else int(answer.headers["Content-Length"]))

    def test_a_body_that_waits_to_be_asked_for_is_asked_for(self):
        with socket.create_connection(("127.0.0.1", self.server.port), PATIENCE_S) as peer:
            head = f"POST / HTTP/1.1\r\nHost: h\r\nX-API-Key: {self.valid}\r\nContent-Length: 4\r\n"
            peer.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
            self.assertEqual(peer.recv(100), b"HTTP/1.1 100 Continue\r\n\r\n")
            peer.sendall(b"body")
            answer = http.client.HTTPResponse(peer)
            answer.begin()
            self.assertEqual(answer.status, 200)

    def test_what_cannot_be_read_is_answered_and_ends_its_own_connection_only(self):
        long_header = b"GET / HTTP/1.1\r\nX-Long: " + b"x" * 20000 + b"\r\n\r\n"
        long_body = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200000
        requests = {
            "no HTTP": (b"\x16\x03\x01 not HTTP at all\r\n\r\n", 400),
            "another version": (b"GET / HTTP/9.9\r\n\r\n", 400),
            "a length that is none": (b"POST / HTTP/1.1\r\nContent-Length: 1x\r\n\r\n", 400),
            "too long a header": (long_header, 431),
            "too long a body": (long_body, 413),
        }
        for what, (request, status) in requests.items():
            with self.subTest(what), socket.create_connection(("127.0.0.1", self.server.port), PATIENCE_S) as peer:
                peer.sendall(request)
                answer = http.client.HTTPResponse(peer)
                answer.begin()
                self.assertEqual(answer.status, status)
                self.assertEqual(answer.headers["Content-Type"], "application/problem+json")
                self.assertEqual(json.loads(answer.read())["status"], status)
                self.assertEqual(answer.headers["Connection"], "close")
        with socket.create_connection(("127.0.0.1", self.server.port), PATIENCE_S) as peer:
            peer.sendall(b"GET / HTTP/1.1\r\nHost: h")
            peer.shutdown(socket.SHUT_WR)
            self.assertEqual(peer.recv(100), b"", "a peer that went away in the middle is told nothing")
        self.assertEqual(self.server.get(bearer(self.valid))[0], 200)

    def test_a_revocation_is_in_force_when_the_daemon_has_answered(self):
        key = make_key()
        self.daemon.rows[key] = {}
        self.daemon.apply_keys()
        self.assertEqual(self.server.get(bearer(key))[0], 200)
        self.daemon.rows[key] = {"state": "revoked"}
        self.daemon.apply_keys()
        self.assertEqual(
            response_bytes(self.server.port, [bearer(key)]),
            response_bytes(self.server.port, [bearer(self.unknown)]),
        )


class WithoutDaemon(unittest.TestCase):
    def setUp(self):
        self.daemon = LiveDaemon(binary("APIKEYD"))
        self.addCleanup(self.daemon.close)
        self.key = make_key()
        self.daemon.rows = {self.key: {"owner": "acme"}}

    def serve(self):
        server = Server(self.daemon.directory)
        self.addCleanup(server.end)
        return server

    def test_before_the_daemon_keys_cannot_be_checked_and_afterwards_they_can(self):
        server = self.serve()
        status, headers, body = server.get(bearer(self.key))
        self.assertEqual((status, headers["Retry-After"]), (503, "1"))
        self.assertEqual(json.loads(body)["status"], 503)
        self.assertIsNone(headers["WWW-Authenticate"])
        self.assertEqual(server.get()[0], 401, "who sends no key is not told about the service")
        self.daemon.start()
        wait_until(lambda: server.get(bearer(self.key))[0] == 200, "the server never found the daemon")

    def test_the_daemon_may_be_away(self):
        self.daemon.start()
        server = self.serve()
        self.assertEqual(self.daemon.stop(), 0)
        self.assertEqual(server.get(bearer(self.key))[0], 200)
        self.assertEqual(server.get(bearer(make_key()))[0], 401)

    def test_signals_end_it_cleanly(self):
        self.daemon.start()
        for number in signal.SIGTERM, signal.SIGINT:
            server = self.serve()
            with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as idle:
                idle.sendall(b"GET / HTTP/1.1\r\n")
                server.process.send_signal(number)
                self.assertEqual(server.process.wait(PATIENCE_S), 0)

    def test_a_port_in_use_is_one_clear_line(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            command = [binary("EXAMPLE_SERVER"), "--directory", self.daemon.directory, "--port", port]
            run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        self.assertEqual(run.returncode, 1)
        self.assertEqual(len(run.stderr.splitlines()), 1, run.stderr)
        self.assertIn("Address already in use", run.stderr)


if __name__ == "__main__":
    os.umask(0o077)
    unittest.main(verbosity=2)
