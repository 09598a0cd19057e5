"""What an object store was asked, by its own log: the judge of how many requests a command makes."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from tests.support.buckets.object_stores import ObjectStore
from tests.support.checkout import ROOT

_LINE = re.compile(r"\b(GET|HEAD|PUT|POST|DELETE) (/\S*) \S+ ?(\S*)$")
LIMIT = 30
FORMAT = ROOT / "docs/format.md"
SECOND = "each second of a running job, more"
STANDBY = "each host in stand-by, each half minute"
OPEN = "ps, one of the runs goes on with one job, more"
"""Rows that are counted otherwise than by running a command."""


@dataclass(frozen=True, slots=True)
class Requests:
    """Lists, reads (GET and HEAD of objects), and writes (PUT, POST, DELETE)."""

    lists: int
    reads: int
    writes: int


def documented() -> dict[str, Requests]:
    """Row -> requests, of the table "Requests of each command" in docs/format.md."""
    text = FORMAT.read_text().partition("**Requests of each command.**")[2]
    rows = re.findall(r"^\| `?([^|`]+?)`? \| (\d+) \| (\d+) \| (\d+) \|$", text, flags=re.MULTILINE)
    return {name: Requests(int(lists), int(reads), int(writes)) for name, lists, reads, writes in rows}


class RequestLog:
    """The requests of one bucket since this was made, or since the last look."""

    def __init__(self, store: ObjectStore, bucket: str) -> None:
        self._store = store
        self._bucket = bucket
        self._marks = 0
        self._seen = 0
        self.since()

    def since(self) -> Requests:
        """What came since the last look; everything that was answered before this call is in it."""
        lines = self._until_mark()
        counts = Counter(self._kind(*match.groups()) for line in lines if (match := _LINE.search(line)))
        return Requests(lists=counts["list"], reads=counts["read"], writes=counts["write"])

    def _kind(self, method: str, path: str, query: str) -> str:
        if path.split("/")[1] != self._bucket:
            return "other"
        if method == "GET" and "list-type" in query:
            return "list"
        return "read" if method in ("GET", "HEAD") else "write"

    def _until_mark(self) -> list[str]:
        """The lines up to a request of our own, which the log shows after those before it."""
        self._marks += 1
        mark = f"/mark-{self._bucket}-{self._marks}"
        try:
            urlopen(f"{self._store.endpoint}{mark}", timeout=LIMIT).close()
        except HTTPError:
            pass  # there is no such bucket, and the log has the line
        deadline = time.monotonic() + LIMIT
        while True:
            lines = Path(self._store.log).read_text(errors="replace").splitlines()[self._seen :]
            for index, line in enumerate(lines):
                if f"{mark} " in line:
                    self._seen += index + 1
                    return lines[:index]
            assert time.monotonic() < deadline, f"the log of the store does not show {mark}"
            time.sleep(0.05)
