"""Requests to living runners only: a frozen runner keeps its connection and is silent, and its callers would wait for
ever."""

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
    """The answer of a living runner to `request`, however long the answer takes.

    Where the open runner of `link` shows no sign of life for `patience` seconds, its connection is given up and a fresh
    runner on the same host is asked instead, once. So the request must be safe to make twice. Raises as the request
    does, and HostUnreachableError when the fresh runner shows no sign of life either.
    """
    runner = (await link.reach()).runner
    found = await _answer(link, runner, request, patience)
    # `_answer` gave the silent runner up, so this opens another.
    if not found:
        runner = (await link.reach()).runner
        found = await _answer(link, runner, request, patience)
    if not found:
        raise HostUnreachableError(link.host.name, "a runner starts there, and then gives no sign of life")
    return found[0]


async def _answer(
    link: Link, runner: RunnerPort, request: Callable[[RunnerPort], Awaitable[T]], patience: float
) -> tuple[T] | tuple[()]:
    """The answer in a tuple; an empty tuple after a silence of the runner, with the runner given up."""
    asking = asyncio.ensure_future(request(runner))
    beating = asyncio.create_task(_until_silent(runner, patience))
    try:
        await asyncio.wait({asking, beating}, return_when=asyncio.FIRST_COMPLETED)
        if asking.done():
            return (asking.result(),)
        beating.result()
        await link.drop_runner(runner)
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
