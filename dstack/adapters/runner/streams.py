"""A request under way at a runner: the answer, and the bytes of the stream within a window."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from dstack.wire import CHUNK_BYTES

STREAM_WINDOW_BYTES = 4 * 1024 * 1024
"""Bytes of a stream by which a host may be ahead of the consumer."""
JOINED_PIECE_BYTES = 32 * 1024
"""Pieces below so many bytes are joined with waiting pieces."""


class Exchange:
    """A request from the sending to the answer.

    Untaken bytes are kept, at most STREAM_WINDOW_BYTES; a host with more bytes breaks the protocol. After `discard`
    later bytes are dropped.
    """

    def __init__(self, number: int, op: str, *, streams: bool) -> None:
        self.number = number
        self.op = op
        self.streams = streams
        self.answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._chunks: deque[bytes | bytearray] = deque()
        self._allowed = STREAM_WINDOW_BYTES
        self._spent = 0
        self._discarding = False
        self._wake: asyncio.Future[None] | None = None
        # Who gave up waiting does not ask for the failure, and the loop must not complain about that.
        self.answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())

    @property
    def discarding(self) -> bool:
        return self._discarding

    def arrived(self, data: bytes) -> bool:
        """Take bytes from the host; False for more bytes than allowed, and for bytes without a stream."""
        if not self.streams:
            return False
        self._allowed -= len(data)
        if self._discarding:
            # Nobody gives credit any more, so what was allowed before is the most that can still come.
            return self._allowed >= 0
        if data:
            self._keep(data)
            self._rouse()
        return self._allowed >= 0

    def succeed(self, answer: dict[str, Any]) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)
        self._rouse()

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
        self._rouse()

    def discard(self) -> None:
        """Nobody wants the bytes any more."""
        self._discarding = True
        self._chunks.clear()

    async def next(self, credit: Callable[[int], None]) -> bytes | None:
        """The next bytes, up to CHUNK_BYTES and as many as there are; None at the end, once the answer is there.

        `credit` is called with the number of further bytes for the host to send. Raises the error of a failed request.
        """
        while not self._chunks:
            if self.answer.done():
                self.answer.result()
                return None
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        data = self._take()
        self._spent += len(data)
        # In quarters of the window: few messages, and the host goes on before the window is used up.
        if self._spent >= STREAM_WINDOW_BYTES // 4 and not self.answer.done():
            self._allowed += self._spent
            credit(self._spent)
            self._spent = 0
        return data

    def _keep(self, data: bytes) -> None:
        """Keep a piece, small pieces joined: a window of single bytes must not cost a hundred times its size, and a
        consumer pays for each wake-up, not for each write of the job."""
        if len(data) >= JOINED_PIECE_BYTES:
            self._chunks.append(data)
            return
        last = self._chunks[-1] if self._chunks else None
        if not isinstance(last, bytearray) or len(last) + len(data) > CHUNK_BYTES:
            last = bytearray()
            self._chunks.append(last)
        last += data

    def _take(self) -> bytes:
        return bytes(self._chunks.popleft())

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
