"""A bucket in memory: the whole port, with one lock. Counts requests, and can be told to damage or lose."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from dstack.core.format.key_rules import check_key, check_prefix, check_range
from dstack.errors import BucketError, DamagedObjectError
from dstack.ports import Listed, Put

MAX_GET = 64 << 20
PIECE = 1 << 20


class MemoryBucket:
    """`objects` may be changed by a test; `requests` counts calls; `lose` answers of `create*` become UNKNOWN."""

    trouble = ""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.requests: Counter[str] = Counter()
        self.order: list[str] = []
        """Keys in the order in which they came to be."""
        self.times: dict[str, float] = {}
        """When objects were modified, where a test says so; else now."""
        self.lose = 0
        self._lock = threading.Lock()

    def create(self, key: str, body: bytes) -> Put:
        return self.create_from(key, (body,))

    def create_from(self, key: str, chunks: Iterable[bytes]) -> Put:
        check_key(key)
        body = b"".join(chunks)
        with self._lock:
            self.requests["create"] += 1
            created = self._free(key)
            if created:
                self.objects[key] = body
                self.order.append(key)
            if self.lose:
                self.lose -= 1
                return Put.UNKNOWN
        return Put.CREATED if created else Put.EXISTS

    def _free(self, key: str) -> bool:
        if key in self.objects:
            return False
        parts = key.split("/")
        above = {"/".join(parts[:count]) for count in range(1, len(parts))}
        if above & self.objects.keys() or any(other.startswith(f"{key}/") for other in self.objects):
            raise BucketError(f"{key} is below or above another key")
        return True

    def put(self, key: str, body: bytes) -> None:
        check_key(key)
        with self._lock:
            self.requests["put"] += 1
            if key not in self.objects:
                self._free(key)
            self.objects[key] = bytes(body)

    def get(self, key: str) -> bytes | None:
        check_key(key)
        with self._lock:
            self.requests["get"] += 1
            body = self.objects.get(key)
        if body is not None and len(body) > MAX_GET:
            raise DamagedObjectError(key, f"{key} is {len(body)} bytes long")
        return body

    def read(self, key: str, offset: int, length: int) -> Iterator[bytes]:
        check_key(key)
        check_range(key, offset, length)
        with self._lock:
            self.requests["read"] += 1
            body = self.objects.get(key)
        if body is None or len(body) < offset + length:
            raise DamagedObjectError(key, f"{key} is absent or shorter than {offset + length} bytes")
        for start in range(offset, offset + length, PIECE):
            yield body[start : min(start + PIECE, offset + length)]

    def list(self, prefix: str, *, limit: int | None = None) -> Sequence[str]:
        check_prefix(prefix)
        with self._lock:
            self.requests["list"] += 1
            return sorted(key for key in self.objects if key.startswith(prefix))[:limit]

    def survey(self, prefix: str) -> Iterator[Listed]:
        for key in self.list(prefix):
            yield Listed(key=key, size=len(self.objects.get(key, b"")), modified=self.times.get(key, time.time()))

    def children(self, prefix: str, *, limit: int | None = None, after: str = "") -> Sequence[str]:
        names = set()
        for key in self.list(prefix):
            head, slash, _ = key[len(prefix) :].partition("/")
            names.add(head + slash)
        return sorted(name for name in names if name > after)[:limit]

    def delete(self, key: str) -> None:
        check_key(key)
        with self._lock:
            self.requests["delete"] += 1
            self.objects.pop(key, None)
