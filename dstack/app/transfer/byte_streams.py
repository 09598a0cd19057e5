"""Between the event loop and blocking ports: iterators of bytes in both directions, threads that can be ended.

A single piece is under way at a time, so that memory stays bounded by the pieces of the ports.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
JOINED_BLOCK_BYTES = 256 << 10
Progress = Callable[[int, int], None]
"""Called in the event loop with the bytes so far and the bytes in all."""


class Meter:
    """Counts bytes from any thread and tells `progress` in the event loop: first (0, total), (total, total) once."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._done = 0
        self._total = total
        self._tell()

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count
            if count:
                self._tell()

    def _tell(self) -> None:
        if self._progress is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._progress, self._done, self._total)

    def counted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """`chunks`, each counted when the next one is asked for."""
        for chunk in chunks:
            yield chunk
            self.add(len(chunk))


class TransferCancelledError(Exception):
    """The task that a thread works for was cancelled."""


async def run_in_thread(work: Callable[[Callable[[], None]], T]) -> T:
    """Run `work(check)` in a thread; when this task is cancelled, `check()` raises TransferCancelledError there.

    Returns or raises only when the thread has ended, so that nothing goes on behind the caller's back.
    """
    stopped = threading.Event()

    def check() -> None:
        if stopped.is_set():
            raise TransferCancelledError

    return await _until_ended(_thread(lambda: work(check)), stopped.set)


async def feed(source: AsyncIterator[bytes], work: Callable[[Iterator[bytes]], T]) -> T:
    """Run the blocking `work(chunks)` in a thread on the pieces of an asynchronous source, one piece at a time.

    When this task is cancelled, or the source raises, `chunks` raises in the thread. The source is closed at the end.
    """
    chunks = _ThreadIterator(source)
    try:
        return await _until_ended(_thread(lambda: work(chunks)), chunks.stop)
    finally:
        await chunks.close()


def _thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """`work` in a thread of its own: the loop's pool is small, and a thread of the pool that waits for the loop could
    block all."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    # A running future cannot be cancelled: `_until_ended` waits for the thread itself.
    future.set_running_or_notify_cancel()
    threading.Thread(target=run, name="dstack-stream").start()
    return asyncio.wrap_future(future)


async def _until_ended(task: asyncio.Future[T], stop: Callable[[], None]) -> T:
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop()
        # Cancelled again, it waits on: a thread cannot be left behind.
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                continue
        if not task.cancelled():
            # Taken, so that the event loop does not report an exception that nobody asked for.
            task.exception()
        raise


class _ThreadIterator:
    """An asynchronous source as an iterator for one other thread."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._turn = asyncio.Lock()
        self._stopped = False
        self._waiting: concurrent.futures.Future[bytes | None] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        # Under the lock of `stop`: no step of the source begins behind a stop.
        with self._lock:
            if self._stopped:
                raise TransferCancelledError
            self._waiting = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
        try:
            piece = self._waiting.result()
        except concurrent.futures.CancelledError:
            raise TransferCancelledError from None
        if piece is None:
            raise StopIteration
        return piece

    async def _next(self) -> bytes | None:
        async with self._turn:
            return await anext(self._source, None)

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            if self._waiting is not None:
                self._waiting.cancel()

    async def close(self) -> None:
        """Close a source that is a generator; a cancelled step of the source ends first."""
        async with self._turn:
            if isinstance(self._source, AsyncGenerator):
                await self._source.aclose()


async def iterate_in_threads(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    """A blocking iterator of bytes as an asynchronous one; each step runs in a thread."""
    source = iter(chunks)
    # With a default: StopIteration cannot pass through a future.
    while (piece := await asyncio.to_thread(next, source, None)) is not None:
        yield piece


def in_blocks(pieces: Iterable[bytes], size: int = JOINED_BLOCK_BYTES) -> Iterator[bytes]:
    """The same bytes, small pieces joined until they are `size` bytes or more: each step between threads costs more
    than a small piece is worth."""
    block: list[bytes] = []
    length = 0
    for piece in pieces:
        block.append(piece)
        length += len(piece)
        if length >= size:
            yield b"".join(block) if len(block) > 1 else piece
            block, length = [], 0
    if block:
        yield b"".join(block)


async def for_each(items: Iterable[T], work: Callable[[T], Awaitable[None]], *, limit: int) -> None:
    """`work` on every item, `limit` at once; the first error ends the others and is raised when they have ended.

    `items` is advanced as there is room, in the event loop.
    """
    running: set[asyncio.Future[None]] = set()
    try:
        for item in items:
            if len(running) >= limit:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            running.add(asyncio.ensure_future(work(item)))
        while running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
