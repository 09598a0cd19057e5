"""Requests and streams over a transport: frames out in order, answers and bytes in to their requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from dstack import wire
from dstack.adapters.deadline import within
from dstack.adapters.runner.start import describe_end, first_words
from dstack.adapters.runner.streams import STREAM_WINDOW_BYTES, Exchange
from dstack.errors import DstackError, HostError, HostUnreachableError, NoRoomError, NotHeldError, UnkillableError
from dstack.ports import Transport
from dstack.wire.host_messages import CancelRequest
from dstack.wire.message_form import Message, MisfitError, RequestMessage

A = TypeVar("A", bound=Message)
REQUEST_TIMEOUT_S = 60.0
"""Seconds within which even a very busy host must answer a small request."""
MAX_OPEN_REQUESTS = 10_000
"""Requests without an answer, given-up requests included."""
_READ = 1 << 20
_SAID = 2000


class Channel:
    """A started runner behind its transport; belongs to one event loop.

    Any number of requests and streams go on at once, without waiting for each other: the host may be at most
    STREAM_WINDOW_BYTES ahead of the reader of a stream. After a lost connection, or nonsense from the host, every
    request fails and the channel stays dead.
    """

    def __init__(self, transport: Transport, first: bytes) -> None:
        self.host = transport.host
        self._transport = transport
        self._frames = wire.FrameReader()
        self._open: dict[int, Exchange] = {}
        self._last = 0
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._dead: Callable[[], DstackError] | None = None
        self._reader = asyncio.create_task(self._read(first))

    # -- requests ------------------------------------------------------------------------------------------------

    async def ask(self, request: RequestMessage[A], *, deadline: float | None = REQUEST_TIMEOUT_S) -> A:
        """Send a request and wait for the answer.

        Raises HostUnreachableError when the connection is lost or `deadline` seconds bring no answer (the outcome is
        then unknown), HostError when the runner says no. A cancelled request has been sent.
        """
        try:
            exchange, frame = self._begin(request)
            return self._read_answer(request, await within(deadline, self._answered(exchange, frame)))
        except TimeoutError:
            raise HostUnreachableError(
                self.host,
                f"the runner did not answer {request.op!r} within {deadline:.0f} s",
                hint="the host may be overloaded or its disk may hang; the job, if it runs, goes on",
            ) from None

    async def _answered(self, exchange: Exchange, frame: bytes) -> dict[str, Any]:
        await self._sent(exchange, frame)
        return await asyncio.shield(exchange.answer)

    def _read_answer(self, request: RequestMessage[A], answer: dict[str, Any]) -> A:
        """Raises HostError for an answer that makes no sense."""
        try:
            return request.answer_from(answer)
        except MisfitError as misfit:
            raise nonsense_error(self.host, request.op, str(misfit)) from None

    async def ask_long(self, request: RequestMessage[A]) -> A:
        """Like `ask`, without a time-out; a cancelled request is given up on the runner too."""
        exchange = await self.send(request)
        try:
            return self._read_answer(request, await asyncio.shield(exchange.answer))
        except asyncio.CancelledError:
            self.give_up(exchange)
            raise

    async def download(
        self, request: RequestMessage[A], ended: Callable[[A], None] | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The bytes of the host's stream for a request; `ended` gets the answer after the last byte.

        Left early, the request is given up on the runner too. Raises as `ask` does.
        """
        exchange = await self.send(request, window=STREAM_WINDOW_BYTES)
        try:
            while (data := await exchange.next(lambda count: self._credit(exchange, count))) is not None:
                yield data
            if ended is not None:
                ended(self._read_answer(request, exchange.answer.result()))
        finally:
            self.give_up(exchange)

    async def upload(self, request: RequestMessage[A], chunks: AsyncIterator[bytes]) -> A:
        """A request followed by bytes; the sending stops at an early answer.

        When `chunks` raises or the coroutine is cancelled, the request is given up on the runner too. Raises as `ask`
        does.
        """
        exchange = await self.send(request)
        try:
            async for chunk in chunks:
                view = memoryview(chunk)
                for start in range(0, len(view), wire.CHUNK_BYTES):
                    if exchange.answer.done():
                        break
                    await self._write(wire.pack_data(exchange.number, bytes(view[start : start + wire.CHUNK_BYTES])))
                if exchange.answer.done():
                    break
            if not exchange.answer.done():
                await self._write(wire.pack_data(exchange.number, b""))
            return self._read_answer(request, await asyncio.shield(exchange.answer))
        finally:
            self.give_up(exchange)

    async def send(self, request: RequestMessage[Any], *, window: int | None = None) -> Exchange:
        """Send a request; its answer will be in the exchange. Cancelled, the whole request is sent all the same.

        `window` is how many bytes may come before the answer; None for a request without a stream.
        """
        exchange, frame = self._begin(request, window)
        await self._sent(exchange, frame)
        return exchange

    async def _sent(self, exchange: Exchange, frame: bytes) -> None:
        try:
            await self._write(frame)
        except asyncio.CancelledError:
            self.give_up(exchange)
            raise

    def _begin(self, request: RequestMessage[Any], window: int | None = None) -> tuple[Exchange, bytes]:
        if self._dead is not None:
            raise self._dead()
        if len(self._open) >= MAX_OPEN_REQUESTS:
            raise HostError(self.host, f"{MAX_OPEN_REQUESTS} requests wait for an answer")
        self._last += 1
        frame = self._packed(request.envelope(self._last, window))
        exchange = Exchange(self._last, request.op, streams=window is not None)
        self._open[exchange.number] = exchange
        return exchange, frame

    def give_up(self, exchange: Exchange) -> None:
        """Drop later bytes for a request and tell the runner; nothing happens for an answered request."""
        exchange.discard()
        if not exchange.answer.done() and self._dead is None:
            self.later(CancelRequest(request=exchange.number))

    def later(self, request: RequestMessage[Any]) -> None:
        """Send a request between the earlier and the later requests, without waiting for anything."""
        with suppress(DstackError):
            _, frame = self._begin(request)
            _ = self._start(self._written(frame))

    def keep_lease(self) -> None:
        """From here on until the channel is dead, let the runner hear of this process before its lease is over."""
        _ = self._start(self._beat())

    async def _beat(self) -> None:
        # Credit for request 0, which never stands, changes nothing and gets no answer.
        sign = wire.pack_message({"op": wire.CREDIT, "request": 0, "bytes": 0})
        while self._dead is None:
            await asyncio.sleep(wire.LEASE_BEAT_S)
            await self._written(sign)

    async def close(self) -> None:
        """End the runner's input; every request under way fails with HostUnreachableError."""
        host = self.host
        self._die(lambda: HostUnreachableError(host, "the connection was closed"))
        self._reader.cancel()
        for task in tuple(self._tasks):
            task.cancel()
        # The transport has one reader at a time.
        await asyncio.gather(self._reader, *self._tasks, return_exceptions=True)
        with suppress(DstackError):
            await self._transport.close()

    # -- writing -------------------------------------------------------------------------------------------------

    def _packed(self, message: dict[str, Any]) -> bytes:
        try:
            return wire.pack_message(message)
        except wire.ProtocolError as error:
            raise HostError(
                self.host, f"{message['op']}: {error}", hint="make the script or its variables smaller"
            ) from None

    async def _write(self, frame: bytes) -> None:
        """Write a frame, whole even for a cancelled caller; frames go out in the order of the calls."""
        if self._dead is not None:
            raise self._dead()
        writing = self._start(self._written(frame))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            if writing.cancelled() and self._dead is not None:
                # `close` has ended the write; whoever waited for it was not cancelled.
                raise self._dead() from None
            raise

    async def _written(self, frame: bytes) -> None:
        async with self._turn:
            if self._dead is not None:
                raise self._dead()
            await self._transport.write(frame)

    def _credit(self, exchange: Exchange, count: int) -> None:
        """Allow the host more bytes, without waiting: a waiting consumer and a waiting host could wait for each
        other."""
        message = {"op": wire.CREDIT, "request": exchange.number, "bytes": count}
        _ = self._start(self._written(wire.pack_message(message)))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Marks it as seen: where nobody waits, the reader meets the same loss and tells everybody.
            task.exception()

    # -- reading -------------------------------------------------------------------------------------------------

    async def _read(self, first: bytes) -> None:
        try:
            self._take_all(first)
            while data := await self._transport.read(_READ):
                self._take_all(data)
            how = await describe_end(self._transport)
            self._lose("the runner ended" + (f" ({how})" if how else ""))
        except (wire.ProtocolError, RecursionError) as error:
            await self._reject(str(error))
        except DstackError as error:
            self._lose(error.detail, hint=error.hint)
        finally:
            # Whatever ends the reader, nobody may wait for an answer for ever.
            self._lose("its reader ended")

    def _take_all(self, data: bytes) -> None:
        for kind, payload in self._frames.feed(data):
            if kind == wire.DATA:
                number, piece = wire.unpack_data(payload)
                self._take_piece(number, piece)
            else:
                self._take_answer(wire.unpack_message(payload))

    def _take_piece(self, number: int, piece: bytes) -> None:
        exchange = self._open.get(number)
        if exchange is None:
            raise wire.ProtocolError(f"bytes for request {number}, which does not stand")
        if not exchange.arrived(piece):
            raise wire.ProtocolError(f"more bytes for {exchange.op!r} than were asked for")

    def _take_answer(self, message: dict[str, Any]) -> None:
        number = message.get("id")
        # `true` would be found as 1: a bool is an int in Python, and equal as a key.
        exchange = self._open.get(number) if type(number) is int else None
        if exchange is None:
            raise wire.ProtocolError(f"an answer to request {first_words(repr(number), 40)}, which does not stand")
        if isinstance(message.get("ok"), dict):
            exchange.succeed(message["ok"])
        elif isinstance(message.get("error"), dict):
            exchange.fail(self._refusal(exchange.op, message["error"]))
        else:
            raise wire.ProtocolError(f"the answer to {exchange.op!r} is neither ok nor an error")
        del self._open[exchange.number]

    def _refusal(self, op: str, error: dict[str, Any]) -> HostError:
        message = first_words(error.get("message"), _SAID) or f"the runner refused {op!r} without a reason"
        kind, hint = first_words(error.get("kind"), 40), first_words(error.get("hint"), _SAID) or None
        refusal = _REFUSALS.get(kind, RefusedError)
        return refusal(self.host, message, kind=kind, hint=hint)

    # -- the end -------------------------------------------------------------------------------------------------

    def _lose(self, message: str, *, hint: str | None = None) -> None:
        host = self.host
        self._die(lambda: HostUnreachableError(host, f"the connection was lost: {message}", hint=hint))

    async def _reject(self, message: str) -> None:
        """The host talks nonsense: nothing of it is believed any more."""
        host, said = self.host, first_words(message, _SAID)
        self._die(
            lambda: HostError(
                host, f"the runner broke the protocol: {said}", hint="something other than dstack writes to its output"
            )
        )
        with suppress(DstackError):
            await self._transport.close()

    def _die(self, reason: Callable[[], DstackError]) -> None:
        if self._dead is None:
            self._dead = reason
        for exchange in self._open.values():
            exchange.fail(self._dead())
        self._open.clear()


def nonsense_error(host: str, op: str, what: str) -> HostError:
    """The error for an answer that no runner of dstack's gives."""
    return HostError(
        host,
        f"the runner's answer to {op!r} makes no sense: {what}",
        hint="something other than dstack's runner answers there, or its files are damaged",
    )


class RefusedError(HostError):
    """The runner was asked and said no; `kind` is a word of docs/format.md §2."""

    def __init__(self, host: str, message: str, *, kind: str, hint: str | None = None) -> None:
        self.kind = kind
        super().__init__(host, message, hint=hint)


class NotHeldRefusedError(RefusedError, NotHeldError):
    """The refusal of kind `held`."""


class NoRoomRefusedError(RefusedError, NoRoomError):
    """The refusal of kind `room`."""


class UnkillableRefusedError(RefusedError, UnkillableError):
    """The refusal of kind `unkillable`."""


_REFUSALS: Mapping[str, type[RefusedError]] = {
    wire.NOT_HELD: NotHeldRefusedError,
    wire.NO_ROOM: NoRoomRefusedError,
    wire.UNKILLABLE: UnkillableRefusedError,
}
