"""From a fresh transport to a runner that speaks frames: docs/format.md §2, steps 1 and 2."""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from dstack.adapters.deadline import within
from dstack.errors import DstackError, HostError, HostUnreachableError
from dstack.ports import Transport

MAX_NOISE_BYTES = 64 * 1024
"""Bytes that login shells may say before the bootstrap's first word."""
MAX_ANSWER_BYTES = 64 * 1024
"""Bytes of the bootstrap's one line of JSON."""
QUOTED_CHARACTERS = 200
"""Characters of a host's noise that a message quotes."""
MAX_CLOSED_FOLDERS = 16
"""Folders that a host may name as having been open."""
EXIT_STATUS_TIMEOUT_S = 1.0
"""Seconds for which the exit status may come after the end of the stream."""
_READ = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """The program for a host: the bootstrap's source, the runner as a zipapp and its sha256, the folder to use."""

    bootstrap: bytes
    zipapp: bytes
    sha256: str
    directory: str
    entry: str = ""
    """The module of the zipapp whose `main` is called; "" is the runner's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedRunner:
    """A ready runner: the bytes of frames behind the bootstrap's last line, and the folders of dstack's there that were
    open to other accounts until now."""

    first: bytes
    closed: tuple[str, ...]


async def start_runner(transport: Transport, program: Program, *, deadline: float) -> StartedRunner:
    """Start the runner.

    Raises HostError when there is no usable python3, too much noise or a bootstrap that says no, and
    HostUnreachableError when the connection is lost or nothing is heard for `deadline` seconds. The caller closes the
    transport.
    """
    # A new one for each start, so that no noise can hold it.
    sentinel = secrets.token_hex(16)
    header = {
        "sentinel": sentinel,
        "dir": program.directory,
        "runner": program.sha256,
        "size": len(program.zipapp),
        **({"entry": program.entry} if program.entry else {}),
    }
    first = b"%d\n" % len(program.bootstrap) + program.bootstrap + json.dumps(header).encode() + b"\n"
    talk = _Talk(transport, b"\n" + sentinel.encode())
    try:
        answer = await within(deadline, _booted(talk, first, program))
    except TimeoutError:
        raise HostUnreachableError(
            transport.host,
            f"nothing came from python3 for {deadline:.0f} s",
            hint=f"try `ssh {transport.host} python3 --version`; a login shell that waits for input must not",
        ) from None
    if answer.get("ready") is not True:
        raise HostError(
            transport.host,
            first_words(answer.get("error"), 1000) or "the runner did not start",
            hint=first_words(answer.get("hint"), 1000) or None,
        )
    return StartedRunner(first=bytes(talk.rest), closed=_closed(answer.get("closed")))


def _closed(said: object) -> tuple[str, ...]:
    """Folders that were open by the host's word; at most MAX_CLOSED_FOLDERS, cut to one line each."""
    paths = said[:MAX_CLOSED_FOLDERS] if isinstance(said, list) else []
    return tuple(text for path in paths if (text := first_words(path, QUOTED_CHARACTERS)))


async def _booted(talk: _Talk, first: bytes, program: Program) -> dict[str, Any]:
    answer = await talk.ask(first)
    return await talk.ask(program.zipapp) if answer.get("need") is True else answer


def last_words(text: str, limit: int) -> str:
    """The last `limit` characters of a host's words as one safe line."""
    return _one_line(text[-4 * limit :])[-limit:]


def first_words(text: object, limit: int) -> str:
    """The first `limit` characters of a host's words as one safe line; "" for anything but text."""
    # Cut twice: a host may say megabytes, and a line gets shorter when runs of spaces are joined.
    return _one_line(text[: 4 * limit])[:limit] if isinstance(text, str) else ""


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


async def describe_end(transport: Transport) -> str:
    """How the far side's process ended and its last words, for messages; "" when nothing is known."""
    with suppress(TimeoutError):
        await within(EXIT_STATUS_TIMEOUT_S, _status(transport))
    status = transport.exit_status()
    parts = [] if status is None else [f"exit status {status}"]
    said = last_words(transport.stderr_tail(), QUOTED_CHARACTERS * 2)
    return "; ".join([*parts, *([f"it said: {said}"] if said else [])])


async def _status(transport: Transport) -> None:
    while transport.exit_status() is None:  # noqa: ASYNC110 - the port has no event for it
        await asyncio.sleep(0.02)


class _Talk:
    """One stream before there are frames."""

    def __init__(self, transport: Transport, mark: bytes) -> None:
        self._transport = transport
        self._mark = mark
        self.rest = bytearray()

    async def ask(self, data: bytes) -> dict[str, Any]:
        """Write `data` and read the bootstrap's next line; both at once, as a noisy host may not read yet."""
        writing = asyncio.ensure_future(self._transport.write(data))
        try:
            return await self._answer()
        finally:
            # Of a failed write the read knows the reason; a write that was cut short ends with the transport.
            writing.cancel()
            with suppress(DstackError, asyncio.CancelledError):
                await writing

    async def _answer(self) -> dict[str, Any]:
        while (found := self.rest.find(self._mark)) < 0:
            if len(self.rest) > MAX_NOISE_BYTES:
                self._too_noisy()
            await self._more()
        if found > MAX_NOISE_BYTES:
            self._too_noisy()
        del self.rest[: found + len(self._mark)]
        while (end := self.rest.find(b"\n")) < 0:
            if len(self.rest) > MAX_ANSWER_BYTES:
                raise HostError(self._transport.host, "the bootstrap's answer is longer than 64 KiB", hint=_FOREIGN)
            await self._more()
        line = bytes(self.rest[:end])
        del self.rest[: end + 1]
        return self._parsed(line)

    def _parsed(self, line: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            quoted = last_words(line.decode("utf-8", "replace"), QUOTED_CHARACTERS)
            raise HostError(self._transport.host, f"the bootstrap's answer is not JSON: {quoted}", hint=_FOREIGN)
        return answer

    async def _more(self) -> None:
        data = await self._transport.read(_READ)
        if data:
            self.rest += data
            return
        how = await describe_end(self._transport)
        host = self._transport.host
        # 127 is a shell's exit code for a command not found.
        if self._transport.exit_status() == 127:
            raise HostError(
                host,
                f"python3 was not found on {host}" + (f" ({how})" if how else ""),
                hint="install Python 3.9 or later so that `python3` finds it in a non-interactive shell",
            )
        parts = [f"python3 ended before the runner started{f' ({how})' if how else ''}", self._noise()]
        raise HostError(host, "; ".join(part for part in parts if part), hint=f"try `ssh {host} python3 --version`")

    def _too_noisy(self) -> NoReturn:
        said = last_words(self._transport.stderr_tail(), QUOTED_CHARACTERS * 2)
        raise HostError(
            self._transport.host,
            f"more than 64 KiB came before the runner's first word; {self._noise()}" + (f"; {said}" if said else ""),
            hint="make the login shell silent when it is not interactive",
        )

    def _noise(self) -> str:
        heard = last_words(self.rest.decode("utf-8", "replace"), QUOTED_CHARACTERS)
        return f"heard instead: {heard}" if heard else ""


_FOREIGN = "something on the host answers in place of dstack's bootstrap; look at what its login shell starts"
