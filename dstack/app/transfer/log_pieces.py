"""The log of an attempt in the bucket: pieces that are written once; the next key is offset + length."""

from __future__ import annotations

import asyncio
import time

from dstack.app.effects.steps import take
from dstack.app.protocol.create_if_absent import create_or_read
from dstack.app.transfer.threaded_bucket import ThreadedCreator
from dstack.core.format.key_parser import log_offset
from dstack.core.format.keys import AttemptKeys
from dstack.ports import Bucket

MAX_LOG_PIECE_BYTES = 8 * 1024 * 1024
SHORTEST_LINGER_S, LONGEST_LINGER_S = 0.5, 10.0
"""Seconds that a byte waits before being sent: at first, and at most."""
AGE_PER_LINGER = 120
"""The wait is the age of the writer divided by this: a log that never rests makes fewer than 1,000 pieces in an
hour."""


def linger_seconds(age: float) -> float:
    """Seconds that a byte waits before being sent, by a writer of that age.

    The reader of an old log can wait for the next line, and each piece is an object for ever.
    """
    return min(LONGEST_LINGER_S, max(SHORTEST_LINGER_S, age / AGE_PER_LINGER))


def stored_length(bucket: Bucket, attempt: AttemptKeys) -> int:
    """How many bytes of the log are in the bucket, without a gap."""
    # A late list gives too small a length: the writer then meets the pieces by key, and goes on behind them.
    keys = bucket.list(attempt.logs)
    if not keys:
        return 0
    last = log_offset(keys[-1])
    return last + len(bucket.get(keys[-1]) or b"")


class LogWriter:
    """Carries a log into the bucket in pieces that grow with the speed of the log. Safe beside other writers of the
    attempt.

    All writers read the same spool, so where another writer's piece stands already, the piece holds the same bytes, cut
    elsewhere: the chain goes on behind the piece. A single piece is on the way to the bucket while the next is taken;
    memory is bounded by twice MAX_LOG_PIECE_BYTES.
    """

    def __init__(self, bucket: Bucket, attempt: AttemptKeys, offset: int) -> None:
        self._creator = ThreadedCreator(bucket)
        self._attempt = attempt
        self._buffer = bytearray()
        self._began = time.monotonic()
        self._first = 0.0
        self._ahead = 0
        self._flight: asyncio.Task[None] | None = None
        self.offset = offset
        """Bytes that are in the bucket."""
        self.received = offset
        """Bytes of the log that were taken so far: the place of the next bytes in the log."""

    @property
    def due(self) -> float:
        """Seconds until the buffer should be written; an hour when the buffer is empty."""
        if not self._buffer:
            return 3600.0
        return self._first + linger_seconds(self._first - self._began) - time.monotonic()

    async def write(self, data: bytes) -> None:
        """Take more of the log; waits while a piece is on its way and MAX_LOG_PIECE_BYTES bytes wait behind the
        piece."""
        self.received += len(data)
        cut = min(self._ahead, len(data))
        self._ahead -= cut
        if cut == len(data):
            return
        if not self._buffer:
            self._first = time.monotonic()
        self._buffer += data[cut:]
        if len(self._buffer) >= MAX_LOG_PIECE_BYTES or self.due <= 0:
            await self.push()

    async def push(self) -> None:
        """Send the waiting bytes on their way, as soon as the piece before has arrived; raises BucketError."""
        await self._arrived()
        if self._buffer:
            piece, self._buffer = bytes(self._buffer), bytearray()
            self._flight = asyncio.create_task(self._carry(piece))

    async def flush(self) -> None:
        """Everything received is in the bucket afterwards; raises BucketError."""
        await self.push()
        await self._arrived()

    async def close(self) -> None:
        """Forget the piece on its way: the piece arrives or not, and the next writer sees the outcome."""
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.gather(self._flight, return_exceptions=True)

    async def _arrived(self) -> None:
        if self._flight is not None:
            flight, self._flight = self._flight, None
            await flight

    async def _carry(self, piece: bytes) -> None:
        while piece:
            steps = create_or_read(self._attempt.log(self.offset), piece, hint="check the bucket")
            # All writers cut the same bytes: of a piece of another writer only the length matters.
            length = len(await take(steps, self._creator))
            self.offset += length
            if length > len(piece):
                self._skip(length - len(piece))
            piece = piece[length:]

    def _skip(self, count: int) -> None:
        """Another writer is `count` bytes ahead: these bytes are neither sent from the buffer nor taken any more."""
        cut = min(count, len(self._buffer))
        del self._buffer[:cut]
        self._ahead += count - cut
