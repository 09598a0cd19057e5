"""Answers of several hosts to a question, asked at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from dstack.errors import DstackError
from dstack.model import Host, HostName
from dstack.ports import RunnerPort
from dstack.session.hosts import HostOpener
from dstack.session.session import Session

T = TypeVar("T")
Question = Callable[[Host, RunnerPort, HostOpener], Awaitable[T]]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostAnswer(Generic[T]):
    """The answer of a host, or the error in place of an answer."""

    host: Host
    value: T | None = None
    error: DstackError | None = None


async def ask_each(
    session: Session, hosts: Sequence[Host], question: Question[T], *, unanswered: list[HostName]
) -> list[HostAnswer[T]]:
    """The answers in the order of `hosts`; an unreachable host, or a refusal, holds up no other host.

    `unanswered` always names the hosts without an answer so far.
    """
    opener = HostOpener(session)
    unanswered[:] = [host.name for host in hosts]

    async def ask(host: Host) -> HostAnswer[T]:
        try:
            runner = await opener.open(host)
            try:
                return HostAnswer(host=host, value=await question(host, runner, opener))
            finally:
                await runner.close()
        except DstackError as error:
            return HostAnswer(host=host, error=error)
        finally:
            unanswered.remove(host.name)

    try:
        return list(await asyncio.gather(*map(ask, hosts)))
    finally:
        await opener.close()
