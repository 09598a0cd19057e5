"""This machine as a host without SSH: the same bootstrap in a child process, over pipes."""

from __future__ import annotations

import asyncio
import fcntl
import sys
from contextlib import suppress

from dstack.adapters.deadline import within
from dstack.errors import HostError, HostUnreachableError
from dstack.model import Host
from dstack.wire import LAUNCHER

LOCAL_STDERR_BYTES = 4096
"""Bytes of stderr that are kept."""
LOCAL_CLOSE_TIMEOUT_S = 5.0
"""Seconds for a runner to end by itself after its input ended."""
_LIMIT = 1 << 20
_PIPE = 1 << 20


async def open_local(host: Host, python: str) -> LocalTransport:
    """Start LAUNCHER with `python` in a session of its own, out of reach of Ctrl-C in the terminal.

    Raises HostError when `python` cannot be started.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            python,
            # The same options as over SSH; -I and -S keep variables and packages of this account out.
            "-I",
            "-S",
            "-X",
            "utf8",
            "-c",
            LAUNCHER,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd="/",
            start_new_session=True,
            limit=_LIMIT,
        )
    except OSError as error:
        raise HostError(
            host.name, f"{python} cannot be started: {error.strerror}", hint="install dstack anew"
        ) from None
    return LocalTransport(host.name, process)


class LocalTransport:
    """A `Transport` to a child process."""

    def __init__(self, host: str, process: asyncio.subprocess.Process) -> None:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        self.host = host
        self.pid = process.pid
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        _widen(process.stdin)
        self._errors = bytearray()
        self._hearing = asyncio.create_task(self._hear(process.stderr))
        # Reaps the child as soon as it ends, so that its exit status is known when its output ends.
        self._waiting = asyncio.create_task(process.wait())

    async def read(self, limit: int) -> bytes:
        return await self._stdout.read(limit)

    async def write(self, data: bytes) -> None:
        """Raises HostUnreachableError when the child has ended or closed its input."""
        try:
            self._stdin.write(data)
            await self._stdin.drain()
        except (ConnectionError, RuntimeError) as error:
            raise HostUnreachableError(self.host, "the runner ended") from error

    async def close(self) -> None:
        """End the child's input and wait for the end of the child; after LOCAL_CLOSE_TIMEOUT_S seconds the child is
        killed.

        Only the child itself: supervisors live in sessions of their own, and go on.
        """
        self._stdin.close()
        try:
            await within(LOCAL_CLOSE_TIMEOUT_S, self._ended())
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await asyncio.shield(self._waiting)
        self._hearing.cancel()
        with suppress(asyncio.CancelledError):
            await self._hearing

    async def _ended(self) -> None:
        # What it still writes is dropped, or it could not end.
        while await self._stdout.read(_LIMIT):
            pass
        # Shielded from the time-out of `close`: the child has to be reaped all the same.
        await asyncio.shield(self._waiting)

    def stderr_tail(self) -> str:
        return self._errors.decode("utf-8", "replace")

    def exit_status(self) -> int | None:
        """The child's status, 128 + number for a signal; None while it runs."""
        code = self._process.returncode
        return 128 - code if code is not None and code < 0 else code

    async def _hear(self, stderr: asyncio.StreamReader) -> None:
        while data := await stderr.read(LOCAL_STDERR_BYTES):
            self._errors += data
            del self._errors[:-LOCAL_STDERR_BYTES]


def _widen(stdin: asyncio.StreamWriter) -> None:
    """Make room for whole frames in the pipe: a frame without room costs a wait for the child, and a copy of the
    rest."""
    if sys.platform == "linux":
        # More than this user may have, or closed because the child has ended already: whoever reads next sees that.
        with suppress(OSError, ValueError):
            fcntl.fcntl(stdin.get_extra_info("pipe").fileno(), fcntl.F_SETPIPE_SZ, _PIPE)
