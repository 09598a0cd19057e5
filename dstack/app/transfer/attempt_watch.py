"""Follows a started attempt: the log to screen and bucket, then the exit report; survives lost connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from dstack.app.effects.answers import JobRunning, WatchAnswer
from dstack.app.hosts.fleet import Link
from dstack.app.transfer.log_pieces import LogWriter, stored_length
from dstack.core.format.keys import AttemptKeys
from dstack.errors import DstackError, HostUnreachableError
from dstack.model import ExitReport, Nonce
from dstack.ports import Bucket, RunnerPort

ShowLog = Callable[[bytes], None]
NoteTrouble = Callable[[DstackError | None], None]
"""The reason why the attempt cannot be watched; None when there is no reason any more."""
REWATCH_PAUSE_S = 1.0


class AttemptWatch:
    """A background task for an attempt, which ends once the job has ended and the whole log is in the bucket."""

    def __init__(
        self, bucket: Bucket, attempt: AttemptKeys, link: Link, *, nonce: Nonce, show: ShowLog, trouble: NoteTrouble
    ) -> None:
        self._bucket = bucket
        self._attempt = attempt
        self._link = link
        self._nonce = nonce
        self._show = show
        self._trouble = trouble
        self._shown: int | None = None
        self._task = asyncio.create_task(self._carry_on())

    async def wait(self, patience: float) -> WatchAnswer:
        """The exit report, JobRunning when there is no report within `patience` seconds; else raises the error that
        ended the task.

        JobRunning too once the watch was closed: two jobs of a run with the same fingerprint share the attempt, and the
        first to see the end brings the end in and closes this watch.
        """
        await asyncio.wait({self._task}, timeout=patience)
        if self._task.done() and not self._task.cancelled():
            return self._task.result()
        return JobRunning()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _carry_on(self) -> ExitReport:
        """Carry the log, again after every lost connection and every silence of the bucket, from the first missing
        byte."""
        troubled = False
        while True:
            runner: RunnerPort | None = None
            try:
                runner = (await self._link.reach()).runner
                if troubled:
                    self._trouble(None)
                    troubled = False
                return await self._once(runner)
            except HostUnreachableError as error:
                self._trouble(error)
                troubled = True
                if runner is not None:
                    await self._link.drop_runner(runner)
                await asyncio.sleep(REWATCH_PAUSE_S)
            except DstackError as error:
                # Whatever it is (a silent bucket, another host key, a host that cannot start a runner now): the attempt
                # goes on, and a stop must still reach it, so it is looked for again.
                troubled = True
                self._trouble(error)
                await asyncio.sleep(REWATCH_PAUSE_S)

    async def _once(self, runner: RunnerPort) -> ExitReport:
        await carry_log(
            self._bucket, self._attempt, lambda offset: runner.follow(self._nonce, offset), show=self._show_new
        )
        return await runner.wait(self._nonce)

    def _show_new(self, offset: int, data: bytes) -> None:
        """Show each byte once, also when a connection was lost between showing and writing."""
        if self._shown is None:
            self._shown = offset
        fresh = data[max(0, self._shown - offset) :]
        self._shown = max(self._shown, offset + len(data))
        if fresh:
            self._show(fresh)


async def carry_log(
    bucket: Bucket,
    attempt: AttemptKeys,
    follow: Callable[[int], AsyncIterator[bytes]],
    *,
    show: Callable[[int, bytes], None],
) -> None:
    """Carry the log on from where the bucket's copy ends, in bounded memory; the whole log is in the bucket on
    return."""
    writer = LogWriter(bucket, attempt, await asyncio.to_thread(stored_length, bucket, attempt))
    stream = follow(writer.offset)
    waiting: asyncio.Task[bytes] | None = None
    try:
        while True:
            if waiting is None:
                waiting = asyncio.ensure_future(anext(stream))
            # `wait_for` would cancel the step when the time is over, and a cancelled step ends the stream.
            await asyncio.wait({waiting}, timeout=max(0.0, writer.due))
            if not waiting.done():
                await writer.push()
                continue
            finished, waiting = waiting, None
            try:
                data = finished.result()
            except StopAsyncIteration:
                break
            show(writer.received, data)
            await writer.write(data)
        await writer.flush()
    finally:
        if waiting is not None:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await writer.close()


async def tail(bucket: Bucket, attempt: AttemptKeys, *, show: ShowLog, ended: Callable[[], Awaitable[bool]]) -> None:
    """Show the log of an attempt of another coordinator, from the bucket, until the attempt has ended."""
    offset = 0
    while True:
        # The end before the log: all pieces are written before the end, so none follows the reading below.
        last = await ended()
        while piece := await asyncio.to_thread(bucket.get, attempt.log(offset)):
            show(piece)
            offset += len(piece)
        if last:
            return
        await asyncio.sleep(0.3)
