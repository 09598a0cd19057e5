"""A proxy before an object store that does to requests what networks and busy stores do, by a seed. Loopback only."""

from __future__ import annotations

import http.client
import random
import socket
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

FAULTS = ("answer-lost", "answer-cut", "request-cut", "busy", "late")
"""The store did it and nobody hears of it; half an answer; half a request; 503 and nothing done; a delay."""
LATE = 0.4
"""Seconds, at most."""
CONDITIONS = ("if-none-match", "if-match")
HOP = ("connection", "keep-alive", "transfer-encoding")


class FaultyProxy:
    """Serves while its block runs. `rate` of the requests meet a fault of `faults`; `met` counts them, by their kinds.

    `forgetful` makes the store behind it one that knows no conditions: every create overwrites. Whoever signs with one
    of the keys that are `over` is told so. It listens where the store does: on an address of this machine alone.
    """

    def __init__(
        self,
        target: str,
        *,
        seed: int = 0,
        rate: float = 0.3,
        faults: tuple[str, ...] = FAULTS,
        forgetful: bool = False,
    ) -> None:
        where = urlsplit(target)
        assert where.hostname is not None
        assert ip_address(where.hostname).is_private
        assert where.port is not None
        self.target = where.hostname, where.port
        self.rate = rate
        self.faults = faults
        self.forgetful = forgetful
        self.over: set[str] = set()
        self.met: Counter[str] = Counter()
        self.requests = 0
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._server = _Server((where.hostname, 0), _Handler)
        self._server.proxy = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"http://{where.hostname}:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def fault(self) -> str | None:
        """What happens to the next request."""
        with self._lock:
            self.requests += 1
            if self._chance.random() >= self.rate:
                return None
            found = self._chance.choice(self.faults)
            self.met[found] += 1
            return found

    def took(self, path: str) -> None:
        """The store has taken what was sent to `path`, or to a part of it."""

    def listed(self, answer: bytes) -> bytes:
        """What the store's answer to a list becomes."""
        return answer

    def wait(self) -> float:
        with self._lock:
            return self._chance.uniform(0, LATE)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    proxy: FaultyProxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is nothing to print."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _pass_on(self) -> None:
        proxy = self.server.proxy
        fault = proxy.fault()
        size = int(self.headers.get("Content-Length") or 0)
        if fault == "request-cut":
            self.rfile.read(size // 2)
            self._hang_up()
            return
        body = self._body(size)
        if any(f"Credential={key}/" in self.headers.get("Authorization", "") for key in tuple(proxy.over)):
            self._answer(400, [], b"<Error><Code>ExpiredToken</Code><Message>It has expired.</Message></Error>")
            return
        if fault == "busy":
            self._answer(503, [("Retry-After", "0")], b"<Error><Code>SlowDown</Code></Error>")
            return
        status, headers, answer = self._asked(body)
        if self.command in ("PUT", "POST") and status == 200:
            proxy.took(urlsplit(self.path).path)
        if self.command == "GET" and parse_qs(urlsplit(self.path).query).get("list-type"):
            answer = proxy.listed(answer)
            headers = [pair for pair in headers if pair[0].lower() != "content-length"]
        if fault == "answer-lost":
            self._hang_up()
            return
        if fault == "late":
            time.sleep(proxy.wait())
        self._answer(status, headers, answer, cut=fault == "answer-cut")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on

    def _body(self, size: int) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(size)
        whole = bytearray()
        while length := int(self.rfile.readline().split(b";")[0], 16):
            whole += self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()
        return bytes(whole)

    def _asked(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        dropped = {*HOP, "content-length", *(CONDITIONS if self.server.proxy.forgetful else ())}
        store = http.client.HTTPConnection(*self.server.proxy.target, timeout=60)
        try:
            store.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in dropped:
                    store.putheader(name, value)
            store.putheader("Content-Length", str(len(body)))
            store.endheaders(body)
            answer = store.getresponse()
            headers = [pair for pair in answer.getheaders() if pair[0].lower() not in (*HOP, "date", "server")]
            return answer.status, headers, answer.read()
        finally:
            store.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, *, cut: bool = False) -> None:
        names = {name.lower() for name, _ in headers}
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if "content-length" not in names:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body[: len(body) // 2] if cut else body)
        if cut:
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def log_message(self, *_: Any) -> None:
        return
