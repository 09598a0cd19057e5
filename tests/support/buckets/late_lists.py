"""An object store whose lists come late: each lacks some of what is there, while a key by itself always answers."""

from __future__ import annotations

import random
import re
import threading
from urllib.parse import unquote

from tests.support.faults.faulty_proxy import FaultyProxy

ENTRY = re.compile(rb"<(Contents|CommonPrefixes)>.*?<(?:Key|Prefix)>(.*?)</.*?</\1>", re.DOTALL)
KINDS = ("half", "empty", "frozen")
"""Of a list that is late: each entry is missing or not, by chance; all are; those are that came since it is late."""


class LateListProxy(FaultyProxy):
    """Passes everything on, and once it is `late` leaves entries out of every list.

    `left_out` counts them. Nothing else is done to requests. A store that is late while its first user looks at it is
    refused as a bucket.
    """

    def __init__(self, target: str, *, seed: int, kind: str) -> None:
        super().__init__(target, seed=seed, rate=0)
        self.late = False
        self.left_out = 0
        self._kind = kind
        self._draw = random.Random(f"lists {seed}")
        self._old: set[str] = set()
        self._turn = threading.Lock()

    def took(self, path: str) -> None:
        if not self.late:
            with self._turn:
                self._old.add(unquote(path).lstrip("/").partition("/")[2])

    def listed(self, answer: bytes) -> bytes:
        with self._turn:
            return ENTRY.sub(self._entry, answer)

    def _entry(self, found: re.Match[bytes]) -> bytes:
        if not self.late or self._is_shown(unquote(found[2].decode())):
            return found[0]
        self.left_out += 1
        return b""

    def _is_shown(self, name: str) -> bool:
        if self._kind == "half":
            return self._draw.random() < 0.5
        return self._kind == "frozen" and any(key.startswith(name) for key in self._old)
