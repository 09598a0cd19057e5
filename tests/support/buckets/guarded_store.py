"""An S3 store of a few lines that lets a caller read, write, both or nothing."""

from __future__ import annotations

import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.buckets.refusing_store import Served

FORMAT = {
    "v": 1, "kind": "format", "nonce": "n", "min_reader": 1, "min_writer": 1, "rounds": 1, "writers": 1, "made": 0,
}  # fmt: skip
MOMENT = "2026-11-28T02:00:00.000Z"


class Guarded(Served):
    """One bucket that a dstack has used. `objects` are what it holds, by their keys."""

    def __init__(self, *, reads: bool, writes: bool) -> None:
        self.objects: dict[str, bytes] = {"dstack.json": json.dumps(FORMAT).encode()}
        objects = self.objects

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if not reads:
                    self._refuse(403, "AccessDenied")
                elif self._key:
                    body = objects.get(self._key)
                    self._answer(200, body) if body is not None else self._refuse(404, "NoSuchKey")
                else:
                    prefix = parse_qs(urlsplit(self.path).query).get("prefix", [""])[0]
                    self._answer(200, _listed({key: objects[key] for key in objects if key.startswith(prefix)}))

            do_HEAD = do_GET

            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if not writes:
                    self._refuse(403, "AccessDenied")
                elif self._key in objects and self.headers.get("If-None-Match"):
                    self._refuse(412, "PreconditionFailed")
                else:
                    objects[self._key] = body
                    self._answer(200, b"")

            def do_DELETE(self) -> None:
                if not writes:
                    self._refuse(403, "AccessDenied")
                    return
                objects.pop(self._key, None)
                self._answer(204, b"")

            def do_POST(self) -> None:
                """`DeleteObjects`, which clients use for a single object too."""
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                if not writes:
                    self._refuse(403, "AccessDenied")
                    return
                keys = re.findall("<Key>([^<]*)</Key>", body)
                for key in keys:
                    objects.pop(key, None)
                deleted = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
                self._answer(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())

            @property
            def _key(self) -> str:
                return unquote(urlsplit(self.path).path).lstrip("/").partition("/")[2]

            def _refuse(self, status: int, code: str) -> None:
                self._answer(status, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode())

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", f'"{hashlib.md5(body).hexdigest()}"')
                self.send_header("Last-Modified", "Sat, 28 Nov 2026 02:00:00 GMT")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                return

        super().__init__(Handler)


def _listed(objects: dict[str, bytes]) -> bytes:
    found = "".join(
        f"<Contents><Key>{key}</Key><LastModified>{MOMENT}</LastModified><Size>{len(body)}</Size>"
        f'<ETag>"{hashlib.md5(body).hexdigest()}"</ETag></Contents>'
        for key, body in sorted(objects.items())
    )
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>".encode()
