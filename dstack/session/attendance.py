"""A recorded run in the care of this process: brought to the end here, or left to hosts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dstack.adapters.unwatched_screen import LogScreen
from dstack.app.coordination.handover import HandoverResult
from dstack.app.coordination.heartbeat import HeartbeatWriter
from dstack.app.coordination.run import Coordination
from dstack.core.format.records import Coordinator, Final, RunRecord
from dstack.ports import Screen
from dstack.session.background_coordinators import start_background_coordinator
from dstack.session.coordinator_parts import make_context, own_coordinator
from dstack.session.hosts import Hosts, open_hosts
from dstack.session.session import Session
from dstack.session.standby import Standby, StartScreen

if TYPE_CHECKING:
    from dstack.session.handover import RunHandover

HAND_OVER_CONNECT_S = 10.0
"""Seconds in which hosts are to be reached for a hand-over: a later host gets no part of the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attendance:
    """The care of this process for a run: the hosts, and values of jobs from memory alone (`caller`)."""

    session: Session
    hosts: Hosts
    caller: Mapping[str, str] = field(default_factory=dict, repr=False)

    async def follow(
        self,
        record: RunRecord,
        *,
        screen: Screen,
        interruption: AbstractContextManager[asyncio.Event],
        stands_by: bool = False,
    ) -> Final | None:
        """Bring the run to the end -> the summary; None where the event of `interruption` is set first.

        `interruption` is entered for the time of the wait. With `stands_by` the hosts get the run in stand-by, and go
        on with the run when this process falls silent.
        """
        session = self.session
        start_screen = StartScreen(screen)
        with session.notices_to(in_loop(screen.message)), own_coordinator(session) as me:
            context = make_context(session, self.hosts.fleet, me, screen=start_screen, caller=self.caller)
            beside: list[asyncio.Task[None]] = []
            if stands_by:
                beside.append(asyncio.create_task(self._keep_standby(record, start_screen, me, context.heart)))
            work = asyncio.create_task(Coordination(context, record, me).finish())
            return await _until_set(work, beside, interruption)

    async def _keep_standby(
        self, record: RunRecord, screen: StartScreen, me: Coordinator, heart: HeartbeatWriter
    ) -> None:
        await Standby(self._open_handover, self.hosts.fleet, record, screen=screen).keep(me, heart)

    async def hand_over(
        self, planned: RunRecord, obtain_record: Callable[[], RunRecord]
    ) -> tuple[RunRecord, HandoverResult]:
        """Leave a run to coordinators on hosts -> the record of the run, and the answers of the hosts.

        `obtain_record` records the run or returns the record, and is called in a thread once the hosts are ready: all
        slow work on the way to a host comes before the record.
        """
        fleet = self.hosts.fleet
        handover = self._open_handover()
        try:
            await asyncio.to_thread(self.session.storage.probe)
            # A process that only watched the run has asked no host so far.
            await fleet.ready(HAND_OVER_CONNECT_S)
            await fleet.wait_for_tries(HAND_OVER_CONNECT_S)
            ready = await handover.ready(planned)
            record = await asyncio.to_thread(obtain_record)
            return record, await handover.hand(ready, record)
        finally:
            await handover.close()

    def continue_in_background(self, record: RunRecord, handed: HandoverResult) -> None:
        """Start a coordinator on this machine for the hosts without the run, where there are any."""
        if handed.left or not handed.taken:
            only = [each.name for each in handed.left] if handed.taken else []
            start_background_coordinator(self.session, record, caller=self.caller, only=only)

    def _open_handover(self) -> RunHandover:
        # Imported here on purpose: a run that ends soon asks no host, and pays for nothing of this.
        from dstack.session.handover import RunHandover

        return RunHandover(self.session, self.hosts, self.caller)


async def _until_set(
    work: asyncio.Task[Final],
    beside: Sequence[asyncio.Task[None]],
    interruption: AbstractContextManager[asyncio.Event],
) -> Final | None:
    """The result of `work`, or None where the event of `interruption` is set first; afterwards all tasks have ended."""
    tasks: list[asyncio.Task[Any]] = [work, *beside]
    try:
        with interruption as interrupted:
            waiting = asyncio.create_task(interrupted.wait())
            tasks.append(waiting)
            await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work.done() else None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def in_loop(show: Callable[[str], None]) -> Callable[[str], None]:
    """`show` for any thread: called by the event loop, and never once the loop is closed."""
    loop = asyncio.get_running_loop()

    def give(text: str) -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(show, text)

    return give


async def coordinate(session: Session, record: RunRecord, *, caller: Mapping[str, str], only: Sequence[str]) -> None:
    """Bring a recorded run to the end without a screen; `only` names the hosts to drive, no name means all hosts."""
    screen = LogScreen()
    async with open_hosts(session, only=only or None) as hosts:
        with session.notices_to(in_loop(screen.message)), own_coordinator(session) as me:
            context = make_context(session, hosts.fleet, me, screen=screen, caller=caller)
            await Coordination(context, record, me).finish()
