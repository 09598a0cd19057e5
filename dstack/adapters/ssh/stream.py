"""One exec channel as a `Transport`: bytes in and out with back pressure, the end told apart from a loss."""

from __future__ import annotations

import asyncio
import re
import signal
from collections import deque
from collections.abc import Callable

import asyncssh

from dstack.errors import DstackError, HostError, HostUnreachableError

SSH_WRITE_BYTES = 256 * 1024
"""Bytes handed to the channel at once; more gains nothing."""
SSH_WINDOW_BYTES = 16 << 20
"""Bytes a host may send ahead of the reader."""
READ_AHEAD_BYTES = 1 << 20
STDERR_TAIL_BYTES = 4096
EXIT_STATUS_WAIT_S = 2.0
CHANNEL_CLOSE_WAIT_S = 5.0

_ENDINGS: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (
        re.compile(r"python3?\b.*(not found|no such file)|unknown command.*python3", re.IGNORECASE),
        "there is no python3",
        "install Python 3.9 or later there, or put it on the PATH of non-interactive logins",
    ),
    (
        re.compile(r"account is currently not available|nologin", re.IGNORECASE),
        "the account may not log in",
        "give the account a login shell, or name another user",
    ),
    (
        re.compile(r"sftp connections only|restricted", re.IGNORECASE),
        "the account may not run commands",
        "dstack needs an account with an unrestricted shell",
    ),
)


class _Session(asyncssh.SSHClientSession[bytes]):
    """Collects incoming bytes and wakes waiters; the state shared by both directions."""

    def __init__(self) -> None:
        self.chunks: deque[bytes] = deque()
        self.size = 0
        self.errors = b""
        self.head = b""
        self.status: int | None = None
        self.ended = False
        self.closed = False
        self.loss: Exception | None = None
        self.write_paused = False
        self._read_paused = False
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._waiters: set[asyncio.Future[None]] = set()

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = chan

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        if datatype == asyncssh.EXTENDED_DATA_STDERR:
            self.errors = (self.errors + data)[-STDERR_TAIL_BYTES:]
            return
        # A login shell prints its complaint on stdout: "This account is currently not available."
        if len(self.head) < STDERR_TAIL_BYTES:
            self.head += data[: STDERR_TAIL_BYTES - len(self.head)]
        self.chunks.append(data)
        self.size += len(data)
        # Without a pause a host could fill the memory of this process.
        if self.size > READ_AHEAD_BYTES and not self._read_paused and self._channel is not None:
            self._read_paused = True
            self._channel.pause_reading()
        self._wake()

    def take(self, limit: int) -> bytes:
        """At most `limit` bytes of the collected bytes."""
        taken: list[bytes] = []
        room = limit
        while self.chunks and room:
            chunk = self.chunks.popleft()
            if len(chunk) > room:
                self.chunks.appendleft(chunk[room:])
                chunk = chunk[:room]
            taken.append(chunk)
            room -= len(chunk)
        self.size -= limit - room
        if self._read_paused and self.size <= READ_AHEAD_BYTES // 2 and self._channel is not None:
            self._read_paused = False
            self._channel.resume_reading()
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def exit_status_received(self, status: int) -> None:
        self.status = status

    def exit_signal_received(self, signal_name: str, core_dumped: bool, msg: str, lang: str) -> None:
        number = getattr(signal, f"SIG{signal_name}", 0)
        self.status = 128 + int(number)

    def eof_received(self) -> bool:
        self.ended = True
        self._wake()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        # A channel that closes without a status was cut off, whatever reason is given.
        if exc is not None or (self.status is None and not self.ended):
            self.loss = exc or ConnectionError("the channel was closed")
        self.ended = self.closed = True
        self._wake()

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        self._wake()

    async def wait_for_change(self) -> None:
        """Wait until anything of the above happens."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


class SshTransport:
    """A `Transport` over one channel of a shared connection; `closed` is called once, at the end."""

    def __init__(
        self, host: str, channel: asyncssh.SSHClientChannel[bytes], session: _Session, closed: Callable[[], None]
    ) -> None:
        self.host = host
        self._channel = channel
        self._session = session
        self._closed: Callable[[], None] | None = closed

    async def read(self, limit: int) -> bytes:
        """At most `limit` bytes, b"" at the end.

        Raises HostUnreachableError when the connection was lost, HostError when the far side ended because it has
        no python3 or lets the account run nothing.
        """
        session = self._session
        while not session.chunks:
            if session.loss is not None:
                raise self._loss_error(session.loss)
            if session.ended:
                return await self._end()
            await session.wait_for_change()
        return session.take(limit)

    async def write(self, data: bytes) -> None:
        """Send `data`; returns when the caller may forget it and the host is not more than a window behind.

        Raises as `read` does, and HostUnreachableError when the far side has ended.
        """
        # In pieces, each after a look at the window: one large write would fill the memory of asyncssh.
        view = memoryview(data)
        for start in range(0, len(data), SSH_WRITE_BYTES):
            await self._wait_for_room()
            try:
                self._channel.write(bytes(view[start : start + SSH_WRITE_BYTES]))
            except OSError:
                raise await self._end_error() from None
        await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        session = self._session
        while session.write_paused and not session.closed:
            await session.wait_for_change()
        if session.closed:
            raise await self._end_error()

    async def _end(self) -> bytes:
        """The end of the stream, once the reason is known."""
        await self._wait_for_status()
        if self._session.loss is not None and self._session.status is None:
            raise self._loss_error(self._session.loss)
        problem = self._host_error()
        if problem is not None:
            raise problem
        return b""

    async def _end_error(self) -> DstackError:
        """Why nothing can be written any more."""
        await self._wait_for_status()
        status, said = self._session.status, self.stderr_tail().strip()
        if self._session.loss is not None and status is None:
            return self._loss_error(self._session.loss)
        words = f"the far side ended with status {status}"
        return self._host_error() or HostUnreachableError(self.host, f"{words}: {said}" if said else words)

    async def _wait_for_status(self) -> None:
        """Wait a little for the far side's last words: its status comes in messages after the end of its output."""
        try:
            async with asyncio.timeout(EXIT_STATUS_WAIT_S):
                while not self._session.closed:
                    await self._session.wait_for_change()
        except TimeoutError:
            return

    def _host_error(self) -> HostError | None:
        status = self._session.status
        if not status:
            return None
        said = self.stderr_tail() + self._session.head.decode("utf-8", "replace")
        for pattern, what, hint in _ENDINGS:
            found = pattern.search(said)
            if found:
                return HostError(self.host, f"{what} ({found[0].strip()})", hint=hint)
        if status == 127:
            return HostError(self.host, _ENDINGS[0][1], hint=_ENDINGS[0][2])
        return None

    def _loss_error(self, error: Exception) -> HostUnreachableError:
        return HostUnreachableError(self.host, f"the connection was lost: {str(error) or type(error).__name__}")

    async def close(self) -> None:
        """End the far side's input and the channel; the connection stays open for others."""
        if self._closed is None:
            return
        closed, self._closed = self._closed, None
        try:
            self._channel.close()
            async with asyncio.timeout(CHANNEL_CLOSE_WAIT_S):
                await self._channel.wait_closed()
        except TimeoutError:
            self._channel.abort()
        finally:
            closed()

    def stderr_tail(self) -> str:
        """The last 4 KiB of the far side's stderr; hostile text, to be filtered before display."""
        return self._session.errors.decode("utf-8", "replace")

    def exit_status(self) -> int | None:
        """The status of the far side's process, 128 + number for a signal; None while running or unknown."""
        return self._session.status


async def start(
    connection: asyncssh.SSHClientConnection, host: str, command: str, closed: Callable[[], None]
) -> SshTransport:
    """Run `command` on an open connection: no pty, no environment, no agent.

    Raises asyncssh's ChannelOpenError when the host opens no further session.
    """
    channel, session = await connection.create_session(
        _Session,
        command,
        request_pty=False,
        env={},
        send_env=[],
        x11_forwarding=False,
        encoding=None,
        window=SSH_WINDOW_BYTES,
    )
    assert isinstance(session, _Session)
    return SshTransport(host, channel, session, closed)
