"""Object stores of a few lines: whatever a handler answers, and one that gives the same answer to every request."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Served:
    """A server of this machine that answers as `handler` does, until it is closed."""

    def __init__(self, handler: type[BaseHTTPRequestHandler], address: str = "127.0.0.1") -> None:
        self._server = ThreadingHTTPServer((address, 0), handler)
        self.url = f"http://{address}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Refusing(Served):
    """A server that gives one answer to everything."""

    def __init__(self, status: int, code: str, address: str = "127.0.0.1") -> None:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()

        self.methods: list[str] = []
        methods = self.methods

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                methods.append(self.command)
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_PUT = do_HEAD = do_DELETE = do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                return

        super().__init__(Handler, address)
