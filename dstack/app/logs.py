"""The log of an attempt in the bucket: pieces that are written once; the next key is offset + length."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from dstack.core.keys import AttemptKeys
from dstack.ports import Bucket, Put

LARGE = 8 * 1024 * 1024
LINGER = 0.5
"""Seconds that a byte waits at most before it is in the bucket."""


def written(bucket: Bucket, attempt: AttemptKeys) -> int:
    """How many bytes of the log are in the bucket, without a gap."""
    keys = bucket.list(attempt.logs)
    if not keys:
        return 0
    last = int(keys[-1].rpartition("/")[2], 16)
    return last + len(bucket.get(keys[-1]) or b"")


def pieces(bucket: Bucket, attempt: AttemptKeys, offset: int = 0) -> Iterator[bytes]:
    """The pieces that are there from `offset` (the start of a piece) on, in order; no LIST is needed."""
    while True:
        piece = bucket.get(attempt.log(offset))
        if not piece:
            return
        yield piece
        offset += len(piece)


class LogWriter:
    """Carries one log into the bucket in pieces that grow with its speed. Safe beside other writers of the attempt.

    All writers read the same spool, so where another one's piece stands already, it is what we would have written,
    cut elsewhere: the chain goes on behind it. Memory is bounded by LARGE.
    """

    def __init__(self, bucket: Bucket, attempt: AttemptKeys, offset: int) -> None:
        self._bucket = bucket
        self._attempt = attempt
        self._buffer = bytearray()
        self._first = 0.0
        self._ahead = 0
        self.offset = offset
        """Bytes that are in the bucket."""

    @property
    def received(self) -> int:
        """Bytes of the log that were taken so far: where to go on reading the spool."""
        return self.offset + len(self._buffer) - self._ahead

    @property
    def due(self) -> float:
        """Seconds until the buffer should be written; an hour when it is empty."""
        return self._first + LINGER - time.monotonic() if self._buffer else 3600.0

    async def write(self, data: bytes) -> None:
        """Take more of the log; returns when no more than LARGE bytes wait."""
        cut = min(self._ahead, len(data))
        self._ahead -= cut
        if cut == len(data):
            return
        if not self._buffer:
            self._first = time.monotonic()
        self._buffer += data[cut:]
        if len(self._buffer) >= LARGE or self.due <= 0:
            await self.flush()

    async def flush(self) -> None:
        """Everything received is in the bucket afterwards; raises BucketError."""
        while self._buffer:
            with memoryview(self._buffer) as view:
                piece = bytes(view[:LARGE])  # one copy of up to 8 MB, not two
            await asyncio.to_thread(self._put, piece)
        self._first = time.monotonic()

    def _put(self, piece: bytes) -> None:
        key = self._attempt.log(self.offset)
        length = len(piece)
        if self._bucket.create(key, piece) is not Put.CREATED:
            there = self._bucket.get(key)
            if there is None:
                return
            length = len(there)
        taken = min(length, len(self._buffer))
        del self._buffer[:taken]
        self._ahead = length - taken
        self.offset += length
