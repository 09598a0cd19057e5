"""Whether a runner lives: frozen, its connection stands and says nothing, and whoever waits for it waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from dstack.app.hosts.fleet import Link
from dstack.errors import HostUnreachableError
from dstack.ports import RunnerPort

T = TypeVar("T")
SLOW_ANSWER_S = 5.0
"""Seconds without a sign of life after which a fresh runner is asked."""
PULSE_LOOK_S = 1.0
"""Seconds between a sign of life and the next look for one."""


async def ask_living(
    link: Link, request: Callable[[RunnerPort], Awaitable[T]], *, patience: float = SLOW_ANSWER_S
) -> T:
    """The answer to `request`, however long it takes, of a runner that lives.

    Where the open runner of `link` shows no sign of life for `patience` seconds, its connection is given up and a
    fresh runner on the same host is asked in its place, once. The request must be one that may be made twice. Raises as
    the request does, and HostUnreachableError when the fresh runner shows no sign of life either.
    """
    runner = (await link.reach()).runner
    found = await _answer(link, runner, request, patience)
    if not found:
        runner = (await link.reach()).runner
        found = await _answer(link, runner, request, patience)
    if not found:
        raise HostUnreachableError(link.host.name, "a runner starts there, and then gives no sign of life")
    return found[0]


async def _answer(
    link: Link, runner: RunnerPort, request: Callable[[RunnerPort], Awaitable[T]], patience: float
) -> tuple[T] | tuple[()]:
    """The answer in a tuple; nothing in it where the runner showed no sign of life, which has been given up then."""
    asking = asyncio.ensure_future(request(runner))
    beating = asyncio.create_task(_until_silent(runner, patience))
    try:
        await asyncio.wait({asking, beating}, return_when=asyncio.FIRST_COMPLETED)
        if asking.done():
            return (asking.result(),)
        beating.result()
        await link.lost(runner)
        return ()
    finally:
        for task in (asking, beating):
            task.cancel()
        await asyncio.gather(asking, beating, return_exceptions=True)


async def _until_silent(runner: RunnerPort, patience: float) -> None:
    """Return once no sign of life came for `patience` seconds, or the connection was lost."""
    try:
        while True:
            await runner.pulse(patience)
            await asyncio.sleep(PULSE_LOOK_S)
    except HostUnreachableError:
        return
