"""Asks several hosts at once, for commands that show what each of them says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from dstack.cli.progress_note import telling
from dstack.core.placement import names_text
from dstack.errors import DstackError
from dstack.model import Host
from dstack.ports import RunnerPort
from dstack.session.hosts import HostOpener
from dstack.session.session import Session

T = TypeVar("T")
Question = Callable[[Host, RunnerPort, HostOpener], Awaitable[T]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Generic[T]):
    """What came of one host: what it said, or the error."""

    host: Host
    said: T | None = None
    error: DstackError | None = None


def ask_hosts(session: Session, hosts: Sequence[Host], question: Question[T]) -> list[Answer[T]]:
    """The answers in the order of `hosts`; a host that cannot be reached, or says no, holds up none of the others.

    A person at a terminal is told after a moment for whom this waits.
    """
    return asyncio.run(_ask(session, hosts, question))


async def _ask(session: Session, hosts: Sequence[Host], question: Question[T]) -> list[Answer[T]]:
    opener = HostOpener(session)

    waiting = [host.name for host in hosts]

    async def one(host: Host) -> Answer[T]:
        try:
            runner = await opener.open(host)
            try:
                return Answer(host=host, said=await question(host, runner, opener))
            finally:
                await runner.close()
        except DstackError as error:
            return Answer(host=host, error=error)
        finally:
            waiting.remove(host.name)

    try:
        with telling(lambda: f"waiting for {names_text(waiting) or 'the end'}"):
            return list(await asyncio.gather(*map(one, hosts)))
    finally:
        await opener.close()
